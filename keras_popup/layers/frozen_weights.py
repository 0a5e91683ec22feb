"""Weights that are dropped from a layer, or frozen for good."""

import functools
from typing import Any

import keras

from keras_popup import _keras
from keras_popup.layers.masked_layer import stock_of
from keras_popup.layers.tree import is_graph, walk_parts

# The attributes of a layer that tell whether it has a weight, with their values if it does not.
SWITCHES: dict[str, dict[str, Any]] = {
    "bias": {"use_bias": False, "bias_axes": None},
    "gamma": {"scale": False},
    "beta": {"center": False},
}

# The value with which a weight has no effect.
_NEUTRAL = {"bias": 0.0, "gamma": 1.0, "beta": 0.0}


def drop(layer: Any, name: str) -> None:
    """Removes a weight from a layer that works without it: "bias", "gamma" or "beta"."""
    weight = getattr(layer, name, None)
    if weight is None:
        return
    with _keras.unlocked(layer):
        found = _keras.untrack(layer, weight)
        setattr(layer, name, None)
        switches = {switch: getattr(layer, switch) for switch in SWITCHES[name] if hasattr(layer, switch)}
        for switch in switches:
            setattr(layer, switch, SWITCHES[name][switch])
    dropped = {**getattr(layer, "_popup_without", {}), name: (weight, found, switches)}
    object.__setattr__(layer, "_popup_without", dropped)


def take_back(layer: Any) -> None:
    """Undoes `drop`. The weights get values with which they have no effect."""
    with _keras.unlocked(layer):
        for name, (weight, found, switches) in reversed(layer.__dict__.pop("_popup_without", {}).items()):
            weight.assign(keras.ops.full(weight.shape, _NEUTRAL[name], weight.dtype))
            weight.trainable = layer.trainable
            setattr(layer, name, weight)
            _keras.track(layer, _keras.TRAINABLE, weight, found[1])
            for switch, value in switches.items():
                setattr(layer, switch, value)


def freeze_layer(layer: Any, in_code: bool) -> None:
    """Freezes a layer and all its sublayers, like `trainable = False`, and makes sure that files record it.

    Args:
        layer: a built layer.
        in_code: bool, whether a layer or model made by code holds this layer. The config of that one then records it.
    """
    _keras.set_trainable(layer, False)
    if not (in_code or is_graph(layer) or stock_of(layer).__module__.startswith("keras.")):
        # Keras would load the weights of some of these layers as trainable ones.
        object.__setattr__(layer, "_popup_must_remember", True)
    for part in (layer, *(part for _, part in walk_parts(layer))):
        if isinstance(part, keras.layers.SpectralNormalization):  # it changes its kernel even if it is frozen
            object.__setattr__(part, "_popup_must_remember", True)


def freeze_weights(layer: Any) -> None:
    """Freezes a layer's own weights for good: setting `trainable` does not thaw them."""
    object.__setattr__(layer, "_popup_frozen", True)
    weights = list(_keras.own_variables(layer, _keras.TRAINABLE))
    for position, weight in enumerate(weights):
        weight.trainable = False
        _keras.track(layer, _keras.NON_TRAINABLE, weight, position)
    object.__setattr__(layer, "_popup_frozen_count", len(weights))
    object.__setattr__(layer, "load_own_variables", functools.partial(_load_all_or_unfrozen, layer))


def _load_all_or_unfrozen(layer: Any, store: Any) -> None:
    """Loads the weights of a layer. Files of earlier versions lack the weights of frozen normalizations."""
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
    for position, weight in enumerate(_keras.own_variables(layer, _keras.NON_TRAINABLE)[:count]):
        weight.trainable = layer.trainable
        _keras.track(layer, _keras.TRAINABLE, weight, position)


NORMS = (keras.layers.BatchNormalization, keras.layers.LayerNormalization, keras.layers.GroupNormalization)


def lacks_weight(layer: Any, name: str) -> bool:
    """Tells whether the attributes of a layer say that it has no such weight: "bias", "gamma" or "beta"."""
    return any(hasattr(layer, switch) and getattr(layer, switch) == off for switch, off in SWITCHES[name].items())
