"""The scales of axes: from numbers to places, and round numbers between two ends."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence

_STEPS = (1.0, 2.0, 5.0)


@dataclasses.dataclass(frozen=True)
class Scale:
    """Maps numbers between two ends to [0, 1].

    Args:
        low, high: float, the ends, `low` below `high`.
        log: whether the logarithm is mapped. The ends must be positive then.
    """

    low: float
    high: float
    log: bool = False

    def place(self, value: float) -> float:
        """Returns the place of a number: 0 at the low end, 1 at the high one."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self, most: int = 6) -> list[float]:
        """Returns round numbers between the ends, at most `most` of them where that is possible."""
        return _log_ticks(self.low, self.high, most) if self.log else _linear_ticks(self.low, self.high, most)


def _linear_ticks(low: float, high: float, most: int) -> list[float]:
    exponent = math.floor(math.log10((high - low) / most))
    for step in (base * 10**power for power in (exponent, exponent + 1, exponent + 2) for base in _STEPS):
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first < most:
            return [round(number * step, 12) for number in range(first, last + 1)]
    raise AssertionError("some step of a power of ten is large enough")


def _log_ticks(low: float, high: float, most: int) -> list[float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for bases in ((1.0, 2.0, 3.0, 5.0, 7.0), _STEPS, (1.0, 3.0), (1.0,)):
        ticks = [float(f"{base * 10.0**power:.12g}") for power in range(first, last + 1) for base in bases]
        ticks = [tick for tick in ticks if low * (1 - 1e-9) <= tick <= high * (1 + 1e-9)]
        if len(ticks) <= most:
            break
    if len(ticks) >= 2:
        return ticks
    return [tick for tick in _linear_ticks(low, high, most) if tick > 0]


def make_scale(values: Sequence[float], log: bool = False, margin: float = 0.05, least: float = 1e-6) -> Scale:
    """Returns a scale on which all numbers lie, with a margin at both ends.

    Args:
        values: one number or more.
        log: whether their logarithm is mapped.
        margin: float, the margin as a share of the distance between them.
        least: float, the least distance between the ends, as numbers that are all equal need one too.
    """
    low, high = min(values), max(values)
    if log:
        space = max(math.log(high / low) * margin, 0.05)
        return Scale(low * math.exp(-space), high * math.exp(space), log=True)
    space = max((high - low) * margin, (least - (high - low)) / 2, abs(high) * 1e-9)
    return Scale(low - space, high + space)


def percent_format(scale: Scale) -> Callable[[float], str]:
    """Returns how numbers on a scale are written as percentages, with the digits that tell its ticks apart."""
    ticks = scale.ticks()
    step = min((b - a for a, b in itertools.pairwise(ticks)), default=0.01)
    digits = max(0, -math.floor(math.log10(step * 100) + 1e-9))
    return lambda value: f"{100 * value:.{digits}f} %"


def number_format(value: float) -> str:
    """Returns a number of an axis as short text: 0.05, 20, 1.5k, 2M."""
    for least, unit, letter in ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if abs(value) >= least:
            return f"{value / unit:g}{letter}"
    return f"{value:g}"
