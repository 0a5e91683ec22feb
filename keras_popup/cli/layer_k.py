"""The text of the flag --layer_k: fractions of layers, such as 'conv*=0.3;dense*=0.5'."""

from collections.abc import Callable, Mapping
from typing import Any

LAYER_K_HELP = "Per-layer k: 'PATTERN=K;...', such as 'conv*=0.3;dense*=0.5'. The first pattern that matches wins."


def parse_layer_k(text: str | None, read: Callable[[str], Any] = float) -> dict[str, Any]:
    """Returns the fractions by pattern.

    Args:
        text: the value of the flag; None if it was not given.
        read: function that reads the text behind "=".

    Raises:
        ValueError: if the text cannot be read.
    """
    fractions: dict[str, Any] = {}
    for entry in text.split(";") if text is not None else ():
        pattern, _, value = (part.strip() for part in entry.partition("="))
        try:
            k = read(value)
        except ValueError:
            k = None
        if not pattern or k is None or pattern in fractions:
            raise ValueError(f"`layer_k` must be such as 'conv*=0.3;dense*=0.5'. Received: layer_k={text!r}.")
        fractions[pattern] = k
    return fractions


def merge_k(k: float, of_layers: Mapping[str, float]) -> float | dict[str, float]:
    """Returns `RunConfig.k`: `k` is for the layers that no pattern matches."""
    if not of_layers:
        return k
    return dict(of_layers) if "*" in of_layers else {**of_layers, "*": k}
