"""Turns configs of masked layers into configs of stock layers."""

from typing import Any

import keras

from keras_popup.layers.masked_layer import MaskedLayer

# The keys of a serialized layer that describe the layer. Its other keys describe its position in a model.
_LAYER_KEYS = ("module", "class_name", "config", "registered_name")


def to_stock(value: Any) -> Any:
    """Returns a serialized config in which every masked layer is replaced by its stock layer."""
    if isinstance(value, (list, tuple)):
        return type(value)(to_stock(item) for item in value) if type(value) in (list, tuple) else value
    if not isinstance(value, dict):
        return value
    if {"class_name", "config"} <= set(value):
        name = value.get("registered_name")
        others = {key: to_stock(item) for key, item in value.items() if key not in _LAYER_KEYS}
        if name == "keras_popup>MaskedComposite" and "layer" in value["config"]:
            return {**others, **to_stock(value["config"]["layer"])}
        kind = keras.saving.get_registered_object(name) if name else None
        if isinstance(kind, type) and issubclass(kind, MaskedLayer):
            return {**others, **kind.to_stock_serialized(value["config"])}
    return {key: to_stock(item) for key, item in value.items()}
