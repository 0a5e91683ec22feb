"""What a search chooses from: one value, several, or a range. Loads no TensorFlow."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

Space = Any
"""A value, which is fixed; a tuple of several; or a `Range`."""

_MOST_VALUES = 10_000


@dataclasses.dataclass(frozen=True)
class Range:
    """All numbers from `low` to `high`.

    Args:
        low: float, the least.
        high: float, the largest, more than `low`.
        sampling: "linear", or "log": every factor alike, for positive numbers.

    Raises:
        ValueError: if there is nothing between the ends.

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
        return f"{written(self.low)}:{written(self.high)}" + (":log" if self.sampling == "log" else "")


def parse_values(text: str, kind: type = float) -> Space:
    """Reads a value ("0.5"), several ("0.5,1,2") or a range ("0.1:0.9", "0.1:0.9:0.2" in steps, "1e-3:1:log").

    Args:
        text: what the user has written.
        kind: float, or str for names, of which there are no ranges.

    Raises:
        ValueError: if it is none of these.
    """
    if kind is str or ":" not in text:
        return several([_number(part, text) if kind is float else part.strip() for part in text.split(",")])
    first, last, *rest = text.split(":")
    low, high = _number(first, text), _number(last, text)
    if not rest:
        return Range(low, high)
    if len(rest) == 1 and rest[0] == "log":
        return Range(low, high, "log")
    step = _number(rest[0], text)
    Range(low, high)  # checked
    if len(rest) > 1 or not 0 < step <= high - low or (high - low) / step > _MOST_VALUES:
        raise ValueError(f"Expected a range such as 0.1:0.9, 0.1:0.9:0.2 in steps, or 1e-3:1:log. Received: {text!r}.")
    return several([round(low + index * step, 12) for index in range(math.floor((high - low) / step + 1e-9) + 1)])


def several(values: Sequence[Any]) -> Space:
    """Returns a tuple of values, or the one value if there is one.

    Raises:
        ValueError: if there is none, one twice, or neither only numbers nor only names.
    """
    names = [isinstance(value, str) for value in values]
    good = all(names) or all(type(value) in (int, float) for value in values)
    if not values or not good or "" in values or len(set(values)) < len(values):
        raise ValueError(f"Expected different values, one or more. Received: {', '.join(map(str, values)) or 'none'}.")
    return tuple(values) if len(values) > 1 else values[0]


def written(space: Space) -> str:
    """Returns the text that `parse` reads."""
    if isinstance(space, tuple):
        return ",".join(written(value) for value in space)
    return repr(space).removesuffix(".0") if isinstance(space, float) else str(space)


def ends(space: Space) -> tuple[Any, ...]:
    """Returns the values that are checked for all: the ends of a range, or every one of several."""
    if isinstance(space, Range):
        return space.low, space.high
    return space if isinstance(space, tuple) else (space,)


def declare(hp: Any, name: str, space: Space) -> Any:
    """Declares a hyperparameter, unless it is fixed, and returns its value.

    Args:
        hp: a `keras_tuner.HyperParameters`.
        name: of the hyperparameter.
        space: what it is chosen from.
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
