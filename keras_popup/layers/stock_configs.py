"""Configs of masked layers as configs of the stock ones."""

from typing import Any

import keras

from keras_popup.layers.masked_layer import MaskedLayer

# What of a serialized layer says which class it is of. The rest says where it stands in a model.
_OF_CLASS = ("module", "class_name", "config", "registered_name")


def to_stock(value: Any) -> Any:
    """Returns a serialized config in which stock layers stand in the place of masked ones."""
    if isinstance(value, (list, tuple)):
        return type(value)(to_stock(each) for each in value) if type(value) in (list, tuple) else value
    if not isinstance(value, dict):
        return value
    if {"class_name", "config"} <= set(value):
        name = value.get("registered_name")
        if name == "keras_popup>MaskedComposite" and "layer" in value["config"]:
            others = {key: to_stock(each) for key, each in value.items() if key not in _OF_CLASS}
            return {**others, **to_stock(value["config"]["layer"])}
        kind = keras.saving.get_registered_object(name) if name else None
        if isinstance(kind, type) and issubclass(kind, MaskedLayer):
            others = {key: to_stock(each) for key, each in value.items() if key not in _OF_CLASS}
            return {**others, **kind.to_stock_serialized(value["config"])}
    return {key: to_stock(each) for key, each in value.items()}
