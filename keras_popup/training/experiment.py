"""Makes what a `RunConfig` describes: the data, the network, its optimizer and loss."""

import dataclasses
import logging
import os
from collections.abc import Sequence
from typing import Any

import keras

from keras_popup import conversion, datasets, initializers, models, records, selectors, tickets
from keras_popup.training.config import PLACES, ResolvedRunConfig, RunConfig

_logger = logging.getLogger("keras_popup")


def load_data(config: RunConfig) -> datasets.Dataset:
    """Loads the dataset of a configuration, resized and augmented. Raises the errors of `datasets.load`."""
    return datasets.load(
        config.dataset,
        data_dir=config.data_dir,
        image_size=config.image_size,
        validation=config.validation,
        augment=config.resolve("augment"),
        seed=config.seed,
    )


def describe_origin(config: RunConfig, data: datasets.Dataset) -> dict[str, Any]:
    """Returns what a run's model and ticket tell of their origin, as arguments of `tickets.save_ticket`."""
    # Where things are on this machine says nothing to others.
    left_out = (*PLACES, "data_dir", "dataset", "from_run", "base")
    arguments = {
        field.name: value
        for field in dataclasses.fields(RunConfig)
        if field.name not in left_out and (value := getattr(config, field.name)) != field.default
    }
    name = data.name.partition(":")[0]  # it may be "cifar10:3.*.*"
    dataset = f"{name}:{data.version}" if data.version else data.name
    return {"classes": list(data.classes), "dataset": dataset, "arguments": {"seed": config.seed, **arguments}}


def build_model(
    config: RunConfig,
    image_shape: tuple[int, int, int],
    classes: int,
    preprocessing: Sequence[keras.layers.Layer] = (),
) -> keras.Model:
    """Builds the network of a configuration: masked, or with learned weights for the method "dense".

    Args:
        config: the run's arguments.
        image_shape: (height, width, channels).
        classes: int, the number of classes.
        preprocessing: layers that come first in the network, such as `Dataset.preprocessing()`.

    Returns:
        A `keras.Model` in the configuration's precision, not compiled.
    """
    if config.method == "finetune":
        return _load_finetuned(config, image_shape, classes)
    if config.base is not None:
        return _build_on_base(config, image_shape, classes, preprocessing)
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(config.precision)
    try:
        model = models.get(config.model)(
            input_shape=image_shape, classes=classes, width=config.width, activation=config.activation
        )
        model = conversion.put_first(_preparation(config) or preprocessing, model)
        # Coupled weight decay, as in the reference: of the scores or of the learned kernels.
        l2 = keras.regularizers.L2(config.l2 / 2) if config.l2 else None
        if config.method == "dense":
            return _regularized(model, l2)
        return conversion.mask_model(
            model,
            k=_fractions(config, model),
            selector=selectors.Bernoulli(config.rescale) if config.draws else config.resolve("selector") or "top_k",
            kernel_initializer=kernel_initializer(config),
            scores_regularizer=l2,
            train_norms=bool(config.resolve("train_norms")),
            seed=config.seed,
        )
    finally:
        keras.config.set_dtype_policy(policy)


def _load_finetuned(config: RunConfig, image_shape: tuple[int, int, int], classes: int) -> keras.Model:
    """Returns the network of another run, with its masks and trainable kernels.

    Raises:
        ValueError: if there is no finished run, or if its network is another one.
    """
    assert config.from_run is not None
    run = records.RunFolder(config.from_run)
    if not run.is_one() or not run.model.exists():
        raise ValueError(f"`from_run` must be the folder of a finished run. Received: '{run.path}'.")
    run.check_model()
    source = RunConfig.from_json(run.config())
    for name in ("model", "width", "precision"):
        theirs, given = getattr(source, name), getattr(config, name)
        if theirs != given:
            raise ValueError(f"The run in '{run.path}' has {name}={theirs!r}. Received: {name}={given!r}.")
    model = keras.models.load_model(run.model)
    expected = (tuple(model.input_shape[1:]), model.output_shape[-1])
    if expected != (tuple(image_shape), classes):
        raise ValueError(
            f"The network in '{run.path}' takes images of {expected[0]} and has {expected[1]} classes. The data have "
            f"images of {tuple(image_shape)} and {classes} classes."
        )
    return conversion.finetune(model, copy=False)


def find_base(config: RunConfig) -> str | None:
    """Returns the .keras file of a configuration's base, or None if it has none.

    Raises:
        ValueError: if there is no such file.
    """
    if config.base is None:
        return None
    path = records.find_model(config.base)
    if not os.path.isfile(path):
        raise ValueError(f"`base` must be a .keras file, or the folder of a finished run. Received: '{config.base}'.")
    return path


_PIXELS = {"0_to_255": (1.0, 0.0), "0_to_1": (1 / 255, 0.0), "-1_to_1": (1 / 127.5, -1.0)}
"""Scale and offset of pixels, by the name of what a network takes."""


def _preparation(config: RunConfig) -> list[keras.layers.Layer]:
    """Returns the layer that prepares pixels, if they are not standardized by the mean of the data."""
    pixels = config.resolve("pixels")
    if pixels in (None, "standardized"):
        return []
    scale, offset = _PIXELS[pixels]
    return [keras.layers.Rescaling(scale, offset, name="preprocessing")]


def _build_on_base(
    config: RunConfig,
    image_shape: tuple[int, int, int],
    classes: int,
    preprocessing: Sequence[keras.layers.Layer],
) -> keras.Model:
    """Returns the network of a configuration's base: with masks over its weights, or as it is for the method "dense".

    Raises:
        ValueError: if there is no base, if it has masks, or if it is for other images or classes.
    """
    path = find_base(config)
    assert path is not None
    model = tickets.load_base(path)
    if conversion.masked_layers(model):
        raise ValueError(f"The base '{path}' has masks. A base is a plain network, such as that of --method dense.")
    taken = model.inputs[0].shape[1:] if len(getattr(model, "inputs", None) or ()) == 1 else None
    if taken is None:
        raise ValueError(f"The base '{path}' must be a Sequential or Functional model that takes one image.")
    if len(taken) != 3 or any(a not in (None, b) for a, b in zip(taken, image_shape, strict=True)):
        raise ValueError(
            f"The base '{path}' takes inputs of shape {taken}. The data have images of {tuple(image_shape)}. Give "
            "`image_size`, the pixels that images are resized to, or other data."
        )
    prepares = bool(conversion.find_preprocessing(model))
    if prepares == (config.pixels is not None):
        raise ValueError(
            f"The base '{path}' begins with layers that prepare images. Leave `pixels` out."
            if prepares
            else f"The base '{path}' does not begin with layers that prepare images, such as Rescaling. Say what "
            "pixels it takes: `pixels`, one of 0_to_255, 0_to_1, -1_to_1, standardized."
        )
    if config.pixels is not None:
        model = conversion.put_first(_preparation(config) or preprocessing, model)
    exclude: list[str] = []
    if config.new_head:
        model = conversion.replace_head(model, classes, seed=config.seed)
        exclude = [model.layers[-1].name]
    elif (probabilities := conversion.gives_probabilities(model)) or model.output_shape != (None, classes):
        also = " and are probabilities" if probabilities else ""
        raise ValueError(
            f"The base '{path}' must give a logit for each of the {classes} classes. Its outputs have the shape "
            f"{model.output_shape}{also}. With `new_head`, it gets a new last layer."
        )
    l2 = keras.regularizers.L2(config.l2 / 2) if config.l2 else None
    if config.method == "dense":
        # Also what was frozen when the base was saved. Keras does nothing if the model itself is trainable already.
        model.trainable = False
        model.trainable = True
        return conversion.copy_model(model, lambda layer: _add_regularizer(layer, l2))[0] if l2 else model
    return conversion.mask_model(
        model,
        k=_fractions(config, model),
        selector=selectors.Bernoulli(config.rescale) if config.draws else config.resolve("selector") or "top_k",
        # The default is by magnitude, which is not at random.
        scores_initializer=config.scores_initializer or ("score_uniform" if config.method == "random" else None),
        scores_regularizer=l2,
        train_norms=bool(config.resolve("train_norms")),
        weights="keep",
        exclude=exclude,
        seed=config.seed,
    )


def kernel_initializer(config: RunConfig) -> Any:
    """Returns the initializer of the frozen kernels.

    Raises:
        ValueError: if there is no initializer of that name, or if it cannot be scaled.
    """
    initializer = initializers.get(config.kernel_initializer)
    if config.scaled:
        if not isinstance(initializer, initializers.FrozenInitializer):
            raise ValueError(
                "`scaled` needs one of this library's kernel initializers. "
                f"Received: kernel_initializer={config.kernel_initializer!r}."
            )
        initializer.scaled = True
    return initializer


def _fractions(config: RunConfig, model: keras.Model) -> float | dict[str, float]:
    """Returns `k` as `mask_model` takes it: without a last "*" for the other layers if there are none."""
    if not isinstance(config.k, dict):
        return config.k
    named = dict(config.k)
    if len(named) > 1 and list(named)[-1] == "*":
        rest = named.pop("*")
        return {**named, "*": rest} if conversion.find_unmatched_kernels(model, named) else named
    return named


def _regularized(model: keras.Model, regularizer: Any) -> keras.Model:
    """Returns a copy of a model whose kernels have a regularizer."""

    def with_regularizer(layer: keras.layers.Layer) -> keras.layers.Layer:
        return type(layer).from_config(_add_regularizer(layer.get_config(), regularizer))

    return keras.models.clone_model(model, clone_function=with_regularizer)


def _add_regularizer(config: dict[str, Any], regularizer: Any) -> dict[str, Any]:
    """Returns the config of a layer with a regularizer of its kernel, if it has one."""
    if "kernel_regularizer" not in config:
        return config
    return {**config, "kernel_regularizer": keras.regularizers.serialize(regularizer)}


def compile_model(model: keras.Model, config: ResolvedRunConfig, steps: int) -> None:
    """Compiles a model with the optimizer, schedule and loss of a configuration.

    Args:
        model: the network, as `build_model` returns it.
        config: the run's arguments, with the protocol's values.
        steps: int, steps in an epoch.
    """
    warmup = round(config.warmup_epochs * steps)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0 if warmup else config.learning_rate,
        decay_steps=max(1, config.epochs * steps - warmup),
        alpha=1.0 if config.schedule == "constant" else 0.0,
        warmup_target=config.learning_rate if warmup else None,
        warmup_steps=warmup,
    )
    if config.optimizer == "sgd":
        optimizer = keras.optimizers.SGD(schedule, momentum=config.momentum)
    else:
        optimizer = keras.optimizers.Adam(schedule)
    model.compile(
        optimizer=optimizer,
        loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=config.label_smoothing),
        metrics=["accuracy"],
        jit_compile={"auto": "auto", "true": True, "false": False}[config.jit_compile],
    )
