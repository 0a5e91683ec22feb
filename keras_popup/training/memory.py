"""What a training run takes of the memory, worked out from shapes before any of it is taken."""

import math
import os
import random
from pathlib import Path

import keras

from keras_popup import _keras, models
from keras_popup.training.config import ResolvedRunConfig

_FLOAT = 4  # bytes


def check_memory(
    config: ResolvedRunConfig, image_shape: tuple[int, int, int], classes: int, images: int, on_gpu: bool
) -> None:
    """Checks that a run can fit into the memory of the machine.

    A GPU's memory is not known before TensorFlow has taken it, so nothing is checked there. Nor is a network that comes
    from a file.

    Args:
        config: the run's arguments.
        image_shape: (height, width, channels).
        classes: int, the number of classes.
        images: int, how many there are to train on.
        on_gpu: bool, whether the run is on GPUs.

    Raises:
        ValueError: if it cannot fit, with both numbers.
    """
    if on_gpu or config.base is not None or config.method == "finetune":
        return
    batch = min(config.batch_size, images)
    needed, there = estimate_bytes(config, image_shape, classes, batch), find_memory()
    if there is not None and needed > there:
        raise ValueError(
            f"This training would take at least {needed / 1e9:,.1f} GB of memory, and the machine has "
            f"{there / 1e9:,.1f} GB. Choose a smaller `width`, `batch_size` or `image_size`. Received: "
            f"width={config.width:g}, batch_size={config.batch_size}, images of {image_shape}."
        )


def estimate_bytes(config: ResolvedRunConfig, image_shape: tuple[int, int, int], classes: int, batch: int) -> int:
    """Returns how many bytes a run takes at least, without taking them.

    It counts weights, scores, masked kernels, gradients and the optimizer's variables, and half of the outputs of all
    layers for one batch: the backward pass does not need all of them.

    Args:
        config, image_shape, classes: as in `check_memory`.
        batch: int, the images in a step.
    """
    state = random.getstate()  # initializers without a seed draw one, and the run must draw the same ones
    try:
        with _keras.deferred_variables(), keras.StatelessScope(initialize_variables=False):
            model = models.get(config.model)(input_shape=image_shape, classes=classes, width=config.width)
    finally:
        random.setstate(state)
    weights: int = sum(math.prod(variable.shape) for variable in model.variables)
    outputs = [tensor for layer in model.layers for tensor in keras.tree.flatten(layer.output)]
    activations: int = sum(math.prod(tensor.shape[1:]) for tensor in outputs)
    slots = 2 if config.optimizer == "adam" else 1
    arrays = 2 + slots + (0 if config.method == "dense" else 2)  # weights, gradients; of masks: scores, masked kernels
    return _FLOAT * (arrays * weights + batch * activations // 2)


def find_memory() -> int | None:
    """Returns the memory of this machine or container in bytes; None if the system does not tell."""
    found = []
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    limit = Path("/sys/fs/cgroup/memory.max")  # of a container
    if limit.exists() and (text := limit.read_text(encoding="utf-8").strip()).isdigit():
        found.append(int(text))
    return min(found, default=None)
