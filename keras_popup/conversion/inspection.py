"""What is in a model: its masked layers and kernels, and why others have no mask."""

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
    """Raises TypeError for what is no model, with what to pass instead."""
    if isinstance(model, keras.Model):
        return
    said = f"{function} takes a keras.Model. Received: "
    module = type(model).__module__.partition(".")[0]
    if module in ("tf_keras", "keras_core") or type(model).__module__.startswith("tensorflow.python.keras"):
        raise TypeError(
            f"{said}a {type(model).__name__} of the package {module}. Build it with Keras 3, `import keras`, and "
            "unset TF_USE_LEGACY_KERAS; weights go from one to the other by get_weights and set_weights."
        )
    if isinstance(model, keras.layers.Layer):
        what = f"a layer, {type(model).__name__} '{model.name}'. Put it into a model: "
        what += "keras.Sequential([keras.Input(...), layer])."
    elif keras.ops.is_tensor(model) or isinstance(model, keras.KerasTensor):
        what = "a tensor. Make a model of it: keras.Model(inputs, tensor)."
    elif isinstance(model, str):
        what = f"the text {model[:60]!r}. Load it first: keras.models.load_model({model[:60]!r})."
    elif isinstance(model, (list, tuple)):
        what = f"a {type(model).__name__}. Make a model of its layers: keras.Sequential(layers)."
    elif isinstance(model, type):
        what = f"the class {model.__name__}. Make an object of it: {model.__name__}(...)."
    else:
        what = f"{type(model).__name__}."
    raise TypeError(said + what)


def find_in_code(model: Any) -> set[int]:
    """Returns the ids of the layers that are held by code, or by what is held by code."""
    everything = [model, *(layer for _, layer in walk_parts(model))]
    in_code: set[int] = set()
    for layer in everything:
        if not is_graph(layer):
            in_code |= {id(part) for _, part in walk_parts(layer)}
    return in_code if is_graph(model) else in_code | {id(model)}


def masked_layers(model: Any) -> list[Any]:
    """Returns the masked layers that a model, or a layer, holds at any depth."""
    return list(walk_masked(model))


def masked_kernels(model: Any) -> list[tuple[str, MaskedKernel]]:
    """Returns (path, kernel) of all masked kernels of a model, of which no two paths are the same."""
    paths = patterns.Paths(model)
    found: dict[str, MaskedKernel] = {}
    for layer in walk_masked(model):
        several = len(layer.kernel_specs) > 1 and len(layer.masked_kernels) > 1
        for name, kernel in layer.masked_kernels.items():
            path = paths.of_kernel(layer, name, several) or name
            number = 1
            while (unique := path if number == 1 else f"{path}_{number}") in found:
                number += 1
            found[unique] = kernel
    return list(found.items())


# Why `mask_model` has left layers out, where it had a reason that their class does not tell.
_REASONS: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()


def note_reason(layer: Any, reason: str) -> None:
    """Notes why a layer is not masked, for `reason_not_masked`."""
    _REASONS[layer] = reason


def reason_not_masked(layer: Any) -> str:
    """Returns why a layer that has weights of its own is not masked."""
    if layer in _REASONS:
        return _REASONS[layer]
    kind = stock_of(layer)
    if kind in NORMS:
        return "a normalization"
    base = maskable_base(kind)
    if base is not None and overridden(kind, base):
        return f"a {base.__name__} with code of its own"
    if base is not None:
        return "left as it is"
    if get_parts(layer):
        return f"weights made by its own code ({', '.join(weight.name for weight in own_weights(layer))})"
    return "no masked layer of its kind"
