"""Retrieves selectors by name or config."""

from typing import Any

import keras

from keras_popup.selectors.base import Selector
from keras_popup.selectors.bernoulli import Bernoulli
from keras_popup.selectors.block import Block
from keras_popup.selectors.multicoat import MultiCoat
from keras_popup.selectors.n_m import NM
from keras_popup.selectors.signed import Signed
from keras_popup.selectors.top_k import TopK

_SELECTORS: dict[str, type[Selector]] = {
    "top_k": TopK,
    "signed": Signed,
    "multicoat": MultiCoat,
    "n_m": NM,
    "block": Block,
    "bernoulli": Bernoulli,
}


def get(identifier: Any) -> Selector:
    """Retrieves a selector.

    Args:
        identifier: a name (`"top_k"`, `"signed"`, `"multicoat"`, `"n_m"`, `"block"`, `"bernoulli"`), a serialized
            config, or a `Selector`.

    Raises:
        ValueError: if there is no such selector.
        TypeError: if Keras does not know the class of a config.

    Example:

    >>> import keras_popup
    >>> type(keras_popup.selectors.get("top_k")).__name__
    'TopK'
    """
    if isinstance(identifier, dict):
        identifier = deserialize(identifier)
    if isinstance(identifier, str) and identifier in _SELECTORS:
        return _SELECTORS[identifier]()
    if isinstance(identifier, Selector):
        return identifier
    raise ValueError(
        f"Unknown selector. Expected one of {sorted(_SELECTORS)}, a Selector object or its config. "
        f"Received: {identifier!r}."
    )


def serialize(selector: Selector) -> dict[str, Any]:
    """Returns the config of a selector, for `deserialize`."""
    config: dict[str, Any] = keras.saving.serialize_keras_object(selector)
    return config


def deserialize(config: dict[str, Any]) -> Selector:
    """Returns the selector that a serialized config describes."""
    selector: Selector = keras.saving.deserialize_keras_object(config)
    return selector
