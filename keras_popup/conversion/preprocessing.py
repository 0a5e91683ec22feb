"""Preprocessing as the first layers of a model, so that whoever has the model need not know it."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_popup import _keras

_PREPROCESSING = (
    keras.layers.CategoryEncoding,
    keras.layers.CenterCrop,
    keras.layers.Discretization,
    keras.layers.Hashing,
    keras.layers.IntegerLookup,
    keras.layers.Normalization,
    keras.layers.Rescaling,
    keras.layers.Resizing,
    keras.layers.StringLookup,
    keras.layers.TextVectorization,
)


def put_first(layers: Sequence[Any], model: keras.Model) -> keras.Model:
    """Returns a model that runs some layers before the layers of a model. Layers and weights are shared.

    A Sequential or Functional model gets the layers among its own. Any other model becomes a layer of the new model.

    Args:
        layers: the layers in order. The first may be a `keras.Input`, if the new model has another input than `model`.
        model: a built model with one input.

    Returns:
        A `keras.Model` with the name of `model`, not compiled; `model` itself for an empty list.

    Raises:
        TypeError: if `layers` is not a list of layers.
        ValueError: if the model has several inputs, or if the layers do not give what it takes.
    """
    chain = [layers] if isinstance(layers, keras.layers.Layer) else list(layers)
    start = chain.pop(0) if chain and isinstance(chain[0], keras.KerasTensor) else None
    if strange := [layer for layer in chain if not isinstance(layer, keras.layers.Layer)]:
        raise TypeError(f"`preprocess` must be Keras layers in a list. Received: {strange[0]!r}.")
    if not chain and start is None:
        return model
    names = {layer.name for layer in getattr(model, "layers", ())}
    if clashing := [layer.name for layer in chain if layer.name in names]:
        raise ValueError(
            f"Model '{model.name}' has a layer named '{clashing[0]}' already. Give that of `preprocess` another "
            "`name`, or leave it out if the model begins with it."
        )
    start = _copy_input(model) if start is None else start
    prepared = start
    for layer in chain:
        prepared = layer(prepared)
    _check_shape(prepared, model)
    if type(model) is keras.Sequential:
        return keras.Sequential(
            [keras.Input(batch_shape=start.shape, dtype=start.dtype, name=start.name), *chain, *model.layers],
            name=model.name,
        )
    flat = type(model) is _keras.Functional
    outputs = _keras.run_graph(model, [prepared]) if flat else model(prepared)
    return keras.Model(start, outputs, name=model.name)


def find_preprocessing(model: keras.Model) -> list[Any]:
    """Returns the preprocessing layers that a model begins with, such as Rescaling and Normalization."""
    found = []
    for layer in model.layers:
        if isinstance(layer, keras.layers.InputLayer):
            continue
        if not isinstance(layer, _PREPROCESSING):
            break
        found.append(layer)
    return found


def _copy_input(model: keras.Model) -> Any:
    """Returns a new input like that of a model."""
    inputs = getattr(model, "inputs", None)
    if not inputs:
        raise ValueError(
            f"Model '{model.name}' does not say what it takes. Begin `preprocess` with a keras.Input of that shape."
        )
    if len(inputs) != 1:
        raise ValueError(
            f"Model '{model.name}' has {len(inputs)} inputs; layers can be put first in a model with one. Put them "
            "into the model yourself, and leave out `preprocess`."
        )
    return keras.Input(batch_shape=inputs[0].shape, dtype=inputs[0].dtype, name=inputs[0].name)


def _check_shape(prepared: Any, model: keras.Model) -> None:
    inputs = getattr(model, "inputs", None) or []
    expected = inputs[0].shape if len(inputs) == 1 else None
    if expected is not None and (
        len(prepared.shape) != len(expected)
        or any(None not in pair and pair[0] != pair[1] for pair in zip(prepared.shape, expected, strict=True))
    ):
        raise ValueError(
            f"Model '{model.name}' takes inputs of shape {tuple(expected)}. The layers of `preprocess` give "
            f"{tuple(prepared.shape)}."
        )
