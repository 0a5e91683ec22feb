"""Lists the masked layers and kernels of a model, and the reasons why other layers have no mask."""

import weakref
from typing import Any

import keras

from keras_popup.conversion import patterns
from keras_popup.layers import (
    NORMS,
    MaskedKernel,
    get_parts,
    is_graph,
    maskable_base,
    overridden,
    own_weights,
    stock_of,
    walk_masked,
    walk_parts,
)


def check_model(model: Any, function: str) -> None:
    """Raises TypeError if `model` is not a `keras.Model`. The message says what to pass instead."""
    if isinstance(model, keras.Model):
        return
    start = f"{function} takes a keras.Model. Received: "
    module = type(model).__module__.partition(".")[0]
    if module in ("tf_keras", "keras_core") or type(model).__module__.startswith("tensorflow.python.keras"):
        raise TypeError(
            f"{start}a {type(model).__name__} of the package {module}. Build the model with Keras 3 (`import keras`) "
            "and unset TF_USE_LEGACY_KERAS. Copy its weights with get_weights and set_weights."
        )
    if isinstance(model, keras.layers.Layer):
        received = f"a layer, {type(model).__name__} '{model.name}'. Put it into a model: "
        received += "keras.Sequential([keras.Input(...), layer])."
    elif keras.ops.is_tensor(model) or isinstance(model, keras.KerasTensor):
        received = "a tensor. Make a model of it: keras.Model(inputs, tensor)."
    elif isinstance(model, str):
        received = f"the text {model[:60]!r}. Load it first: keras.models.load_model({model[:60]!r})."
    elif isinstance(model, (list, tuple)):
        received = f"a {type(model).__name__}. Make a model of its layers: keras.Sequential(layers)."
    elif isinstance(model, type):
        received = f"the class {model.__name__}. Pass an object of it: {model.__name__}(...)."
    else:
        received = f"{type(model).__name__}."
    raise TypeError(start + received)


def find_in_code(model: Any) -> set[int]:
    """Returns the ids of the layers that a layer or model made by code holds, at any depth."""
    everything = [model, *(layer for _, layer in walk_parts(model))]
    in_code: set[int] = set()
    for layer in everything:
        if not is_graph(layer):
            in_code |= {id(part) for _, part in walk_parts(layer)}
    return in_code if is_graph(model) else in_code | {id(model)}


def masked_layers(model: Any) -> list[Any]:
    """Returns the masked layers among a model or layer and the layers that it holds, at any depth.

    Args:
        model: a `keras.Model` or `keras.layers.Layer`.

    Returns:
        A list of `keras_popup.layers.MaskedLayer`s, in the order of the model; empty if nothing is masked. Their `k`
        can be read and set. `mask()` gives the mask, `scores` the scores, `frozen_kernel` the kernel without the mask.

    Example:

    >>> import keras_popup
    >>> masked = keras_popup.mask_model(keras_popup.models.FullyConnected(), k=0.3, seed=1)
    >>> [(layer.name, layer.k, layer.kept) for layer in keras_popup.masked_layers(masked)]
    [('dense1', 0.3, 70560), ('dense2', 0.3, 9000), ('classes', 0.3, 300)]
    """
    return list(walk_masked(model))


def find_kernels(model: Any, function: str) -> list[tuple[str, MaskedKernel]]:
    """Returns (path, kernel) for all masked kernels of a model that is masked and built.

    Raises:
        TypeError: if `model` is not a `keras.Model`.
        ValueError: if it has no masked layer, or is not built.
    """
    check_model(model, function)
    if not (kernels := masked_kernels(model)):
        raise ValueError(f"Model '{model.name}' has no masked layer. Mask it with keras_popup.mask_model first.")
    if any(kernel.scores is None for _, kernel in kernels):
        raise ValueError(f"Model '{model.name}' is not built. Call it on data first.")
    return kernels


def masked_kernels(model: Any) -> list[tuple[str, MaskedKernel]]:
    """Returns (path, kernel) for all masked kernels of a model. All paths are different."""
    paths = patterns.Paths(model)
    kernels: dict[str, MaskedKernel] = {}
    for layer in walk_masked(model):
        several = len(layer.kernel_specs) > 1 and len(layer.masked_kernels) > 1
        for name, kernel in layer.masked_kernels.items():
            path = paths.of_kernel(layer, name, several) or name
            number = 1
            while (unique := path if number == 1 else f"{path}_{number}") in kernels:
                number += 1
            kernels[unique] = kernel
    return list(kernels.items())


# Why `mask_model` has not masked layers, for reasons that do not follow from their class.
_REASONS: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()


def note_reason(layer: Any, reason: str) -> None:
    """Notes why a layer is not masked, for `reason_not_masked`."""
    _REASONS[layer] = reason


def reason_not_masked(layer: Any) -> str:
    """Returns the reason why a layer with weights of its own is not masked."""
    if layer in _REASONS:
        return _REASONS[layer]
    kind = stock_of(layer)
    if kind in NORMS:
        return "a normalization"
    base = maskable_base(kind)
    if base is not None and overridden(kind, base):
        return f"a subclass of {base.__name__} with its own code"
    if base is not None:
        return "left as it is"
    if get_parts(layer):
        return f"weights that its own code makes ({', '.join(weight.name for weight in own_weights(layer))})"
    return "its class cannot be masked"
