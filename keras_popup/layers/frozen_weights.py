"""Weights that a layer does without, or that are frozen for good."""

import functools
from typing import Any

import keras

from keras_popup import _keras
from keras_popup.layers.masked_layer import stock_of
from keras_popup.layers.tree import is_graph, walk_parts

# The arguments of a layer that say whether it has a weight, and what they are if not.
_SWITCHES: dict[str, dict[str, Any]] = {
    "bias": {"use_bias": False, "bias_axes": None},
    "gamma": {"scale": False},
    "beta": {"center": False},
}


# The value of a weight that does nothing.
_NEUTRAL = {"bias": 0.0, "gamma": 1.0, "beta": 0.0}


def drop(layer: Any, name: str) -> None:
    """Takes a weight away from a layer that can do without it: "bias", "gamma" or "beta"."""
    weight = getattr(layer, name, None)
    if weight is None:
        return
    with _keras.unlocked(layer):
        place = _keras.untrack(layer, weight)
        setattr(layer, name, None)
        switches = {switch: getattr(layer, switch) for switch in _SWITCHES[name] if hasattr(layer, switch)}
        for switch in switches:
            setattr(layer, switch, _SWITCHES[name][switch])
    dropped = {**getattr(layer, "_popup_without", {}), name: (weight, place, switches)}
    object.__setattr__(layer, "_popup_without", dropped)


def take_back(layer: Any) -> None:
    """Undoes `drop`, with weights that do nothing."""
    with _keras.unlocked(layer):
        for name, (weight, place, switches) in reversed(layer.__dict__.pop("_popup_without", {}).items()):
            weight.assign(keras.ops.full(weight.shape, _NEUTRAL[name], weight.dtype))
            weight.trainable = layer.trainable
            setattr(layer, name, weight)
            _keras.track(layer, _keras.TRAINABLE, weight, place[1])
            for switch, value in switches.items():
                setattr(layer, switch, value)


def freeze_layer(layer: Any, in_code: bool) -> None:
    """Freezes a layer and all it holds, as setting `trainable` does, and has files tell so.

    Args:
        in_code: bool, whether the layer is held by one that tells it for it.
    """
    _keras.set_trainable(layer, False)
    if not (in_code or is_graph(layer) or stock_of(layer).__module__.startswith("keras.")):
        # Of some such layers Keras loads the weights as trainable ones.
        object.__setattr__(layer, "_popup_must_remember", True)
    for part in (layer, *(part for _, part in walk_parts(layer))):
        if isinstance(part, keras.layers.SpectralNormalization):  # which changes its kernel all the same
            object.__setattr__(part, "_popup_must_remember", True)


def freeze_weights(layer: Any) -> None:
    """Freezes the weights that a layer has itself, for good: setting `trainable` does not thaw them."""
    object.__setattr__(layer, "_popup_frozen", True)
    weights = list(_keras.own_variables(layer, _keras.TRAINABLE))
    for place, weight in enumerate(weights):
        weight.trainable = False
        _keras.track(layer, _keras.NON_TRAINABLE, weight, place)
    object.__setattr__(layer, "_popup_frozen_count", len(weights))
    object.__setattr__(layer, "load_own_variables", functools.partial(_load_all_or_unfrozen, layer))


def _load_all_or_unfrozen(layer: Any, store: Any) -> None:
    """Loads the weights of a layer. Files of earlier versions do not have those of normalizations that are frozen."""
    count = layer._popup_frozen_count
    others = _keras.own_variables(layer, _keras.NON_TRAINABLE)[count:]
    if not count or len(store) != len(others) or _keras.own_variables(layer, _keras.TRAINABLE):
        type(layer).load_own_variables(layer, store)
        return
    for number, variable in enumerate(others):
        variable.assign(store[str(number)])


def thaw_weights(layer: Any) -> None:
    """Undoes `freeze_weights`."""
    count = vars(layer).pop("_popup_frozen_count", 0)
    for name in ("_popup_frozen", "_popup_must_remember", "load_own_variables"):
        vars(layer).pop(name, None)
    for place, weight in enumerate(_keras.own_variables(layer, _keras.NON_TRAINABLE)[:count]):
        weight.trainable = layer.trainable
        _keras.track(layer, _keras.TRAINABLE, weight, place)


NORMS = (keras.layers.BatchNormalization, keras.layers.LayerNormalization, keras.layers.GroupNormalization)


def _is_off(layer: Any, switches: dict[str, Any]) -> bool:
    return any(hasattr(layer, switch) and getattr(layer, switch) == off for switch, off in switches.items())
