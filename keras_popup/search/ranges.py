"""The values that a search chooses from: one value, several values, or a range. Loads no TensorFlow."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

Space = Any
"""One value, which is fixed; a tuple of values; or a `Range`."""

_MOST_VALUES = 10_000


@dataclasses.dataclass(frozen=True)
class Range:
    """All numbers from `low` to `high`.

    Args:
        low: float, the smallest number.
        high: float, the largest number, more than `low`.
        sampling: "linear" or "log". "log" needs positive numbers, and samples their logarithms evenly.

    Raises:
        ValueError: if no number lies between the ends.

    Example:

    >>> from keras_popup.search import Range
    >>> str(Range(0.001, 1.0, "log"))
    '0.001:1:log'
    """

    low: float
    high: float
    sampling: str = "linear"

    def __post_init__(self) -> None:
        if self.sampling not in ("linear", "log"):
            raise ValueError(f"`sampling` must be 'linear' or 'log'. Received: sampling={self.sampling!r}.")
        for end in (self.low, self.high):
            if isinstance(end, bool) or not isinstance(end, (int, float)) or not math.isfinite(end):
                raise ValueError(f"The ends of a range must be numbers. Received: {self.low!r} to {self.high!r}.")
        if not self.low < self.high:
            raise ValueError(f"A range goes from the smaller to the larger number. Received: {self}.")
        if self.sampling == "log" and self.low <= 0:
            raise ValueError(f"A logarithmic range must begin above 0. Received: {self}.")

    def __str__(self) -> str:
        return f"{format_space(self.low)}:{format_space(self.high)}" + (":log" if self.sampling == "log" else "")


def parse_values(text: str, kind: type = float) -> Space:
    """Reads one value ("0.5"), several ("0.5,1,2") or a range ("0.1:0.9", "0.1:0.9:0.2" in steps, "1e-3:1:log").

    Args:
        text: the text of the user.
        kind: float, or str for names, which have no ranges.

    Raises:
        ValueError: if the text is none of these.
    """
    if kind is str or ":" not in text:
        return normalise_values([_number(part, text) if kind is float else part.strip() for part in text.split(",")])
    first, last, *rest = text.split(":")
    low, high = _number(first, text), _number(last, text)
    if not rest:
        return Range(low, high)
    if len(rest) == 1 and rest[0] == "log":
        return Range(low, high, "log")
    step = _number(rest[0], text)
    Range(low, high)  # checks the ends
    if len(rest) > 1 or not 0 < step <= high - low or (high - low) / step > _MOST_VALUES:
        raise ValueError(f"Expected a range such as 0.1:0.9, 0.1:0.9:0.2 in steps, or 1e-3:1:log. Received: {text!r}.")
    count = math.floor((high - low) / step + 1e-9) + 1
    return normalise_values([round(low + index * step, 12) for index in range(count)])


def normalise_values(values: Sequence[Any]) -> Space:
    """Returns a tuple of the values, or the value itself if there is only one.

    Raises:
        ValueError: if there is no value, if one occurs twice, or if numbers and names are mixed.
    """
    names = [isinstance(value, str) for value in values]
    good = all(names) or all(type(value) in (int, float) for value in values)
    if not values or not good or "" in values or len(set(values)) < len(values):
        raise ValueError(f"Expected different values, one or more. Received: {', '.join(map(str, values)) or 'none'}.")
    return tuple(values) if len(values) > 1 else values[0]


def format_space(space: Space) -> str:
    """Returns the text that `parse_values` reads as this space. No digit is lost."""
    if isinstance(space, tuple):
        return ",".join(format_space(value) for value in space)
    return repr(space).removesuffix(".0") if isinstance(space, float) else str(space)


def format_values(values: Mapping[str, Any]) -> str:
    """Returns the hyperparameters of a trial as short text for people, such as "k 0.3142, width 2"."""
    texts = {name: f"{value:.4g}" if isinstance(value, float) else str(value) for name, value in values.items()}
    return ", ".join(f"{name} {text}" for name, text in texts.items())


def endpoints(space: Space) -> tuple[Any, ...]:
    """Returns the values that stand for all in a check: the ends of a range, or each of several values."""
    if isinstance(space, Range):
        return space.low, space.high
    return space if isinstance(space, tuple) else (space,)


def add_hyperparameter(hp: Any, name: str, space: Space) -> Any:
    """Adds a hyperparameter, unless it is fixed, and returns its value.

    Args:
        hp: a `keras_tuner.HyperParameters`.
        name: the name of the hyperparameter.
        space: the values that it is chosen from.
    """
    if isinstance(space, Range):
        return hp.Float(name, float(space.low), float(space.high), sampling=space.sampling)
    if isinstance(space, tuple):
        if any(isinstance(value, str) for value in space):
            return hp.Choice(name, list(space), ordered=False)
        whole = all(isinstance(value, int) for value in space)
        return hp.Choice(name, list(space) if whole else [float(value) for value in space], ordered=True)
    return space


def _number(part: str, text: str) -> float:
    try:
        number = float(part)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"Expected numbers, as in 0.5 or 0.5,1,2 or 0.1:0.9. Received: {text!r}.")
    return number
