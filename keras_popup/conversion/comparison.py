"""Compares the outputs of two models, on inputs that are made up where there are none."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from keras_popup import _keras
from keras_popup.layers import walk

Array = NDArray[Any]

_EXAMPLES = 4
_TOLERANCE, _ROUNDED_TOLERANCE = 1e-4, 0.1


def draw_inputs(model: Any) -> list[Array]:
    """Returns a batch for a model that knows its inputs, always the same.

    Floats are uniform numbers in [0, 1), integers 0 or 1, texts empty. The batch has 4 examples, and each other
    unknown dimension has size 32.
    """
    rng = np.random.default_rng(0)
    batch = []
    for x in model.inputs:
        shape = (x.shape[0] or _EXAMPLES, *(size or 32 for size in x.shape[1:]))
        if x.dtype == "string":
            batch.append(np.full(shape, ""))
            continue
        numbers = rng.random(shape) if "float" in x.dtype else rng.integers(0, 2, shape)
        batch.append(numbers.astype(tf.as_dtype(x.dtype).as_numpy_dtype))
    return batch


def compute_difference(expected: dict[str, Array], outputs: dict[str, Array]) -> float:
    """Returns the largest difference, in units of the largest magnitude of the same expected output.

    Args:
        expected: arrays by the names of the outputs.
        outputs: arrays with these names, and maybe others.

    Returns:
        A float, NaN if a difference is not a number: it is not below any tolerance.

    Raises:
        ValueError: if two arrays have different shapes.
    """
    differences = []
    for name, x in expected.items():
        y = np.asarray(outputs[name], np.float64)
        if x.shape != y.shape:
            raise ValueError(f"its output '{name}' has shape {y.shape}, not {x.shape}")
        scale = np.abs(x).max(initial=0.0) or 1.0
        differences.append((np.abs(x - y) / scale).max(initial=0.0))
    return float(np.max(differences))


def uses_16_bits(model: Any) -> bool:
    """Tells whether some layers of a model compute in float16 or bfloat16."""
    return any(layer.compute_dtype in ("float16", "bfloat16") for _, layer in walk(model))


def check_same_outputs(model: Any, changed: Any, how: str, remedy: str) -> None:
    """Raises RuntimeError if two models give outputs that differ by more than rounding, on a batch of `draw_inputs`.

    Args:
        model: the model.
        changed: what was made of it.
        how: the beginning of the message, such as "Without its dead channels".
        remedy: what to do, the end of the message.
    """
    batch = draw_inputs(model)
    difference = compute_difference(_compute_outputs(model, batch), _compute_outputs(changed, batch))
    tolerance = _ROUNDED_TOLERANCE if uses_16_bits(model) else _TOLERANCE
    if not difference <= tolerance:
        raise RuntimeError(
            f"{how}, model '{model.name}' gives other outputs: they differ by {difference:.3g} of the largest output, "
            f"expected {tolerance:g} at most. This is a fault here, or the model's outputs are random or not finite. "
            f"{remedy}."
        )


def _compute_outputs(model: Any, batch: list[Array]) -> dict[str, Array]:
    outputs = keras.tree.flatten(model(_keras.pack_inputs(model, batch), training=False))
    return {str(index): np.asarray(tf.cast(output, tf.float64)) for index, output in enumerate(outputs)}
