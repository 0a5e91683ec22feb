"""Retrieves selectors by name or config."""

import ast
from typing import Any

import keras

from keras_popup.selectors.base import Selector
from keras_popup.selectors.bernoulli import Bernoulli
from keras_popup.selectors.block import Block
from keras_popup.selectors.global_top_k import GlobalTopK
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
    "global_top_k": GlobalTopK,
    "bernoulli": Bernoulli,
}


def get(identifier: Any) -> Selector:
    """Retrieves a selector.

    Args:
        identifier: a name (`"top_k"`, `"signed"`, `"multicoat"`, `"n_m"`, `"block"`, `"global_top_k"`,
            `"bernoulli"`), a serialized config, or a `Selector`. A name may have arguments: `"multicoat:coats=3"`,
            `"top_k:pruned=0.5:locked=0.1"`.

    Raises:
        ValueError: if there is no such selector, or if it has no such arguments.
        TypeError: if Keras does not know the class of a config.

    Example:

    >>> import keras_popup
    >>> type(keras_popup.selectors.get("top_k")).__name__
    'TopK'
    """
    if isinstance(identifier, dict):
        identifier = deserialize(identifier)
    if isinstance(identifier, str) and identifier.partition(":")[0] in _SELECTORS:
        return _parse(identifier)
    if isinstance(identifier, Selector):
        return identifier
    raise ValueError(
        f"Unknown selector. Expected one of {sorted(_SELECTORS)}, a Selector object or its config. "
        f"Received: {identifier!r}."
    )


def _parse(text: str) -> Selector:
    """Returns the selector of a name with arguments, such as "multicoat:coats=3"."""
    name, *arguments = text.split(":")
    expected = "A selector's arguments must be as in 'multicoat:coats=3' or 'top_k:pruned=0.5:locked=0.1'."
    how = f"{expected} Received: {text!r}."
    pairs = [argument.split("=") for argument in arguments]
    if wrong := [argument for argument, pair in zip(arguments, pairs, strict=True) if len(pair) != 2]:
        raise ValueError(f"{how} '{wrong[0]}' is not a name, an equals sign and a value.")
    try:
        values = {key: ast.literal_eval(value) for key, value in pairs}
    except (ValueError, SyntaxError):
        raise ValueError(f"{how} The values must be numbers.") from None
    try:
        return _SELECTORS[name](**values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{how} {error}") from None


def serialize(selector: Selector) -> dict[str, Any]:
    """Returns the config of a selector, for `deserialize`."""
    config: dict[str, Any] = keras.saving.serialize_keras_object(selector)
    return config


def deserialize(config: dict[str, Any]) -> Selector:
    """Returns the selector that a serialized config describes."""
    selector: Selector = keras.saving.deserialize_keras_object(config)
    return selector
