"""How many weights a fraction k keeps, and what their choice says, in bits."""

import math
from typing import Any

from keras_popup._fractions import check_k as check_k


def check_kept(k: Any, size: int, where: str = "") -> int:
    """Returns how many of `size` weights `k` keeps: round-half-up(k * size).

    Raises:
        ValueError: if `k` is not in (0, 1] or none is kept. `where` names the layer in the message.
    """
    kept = count_kept(check_k(k), size)
    if kept == 0:
        raise ValueError(
            f"k={k} keeps none of the {size} weights{where}: round-half-up({k} * {size}) = 0. "
            f"Use a k of at least {0.5 / size:.3g} here, or more weights."
        )
    return kept


def count_kept(k: float, n: int) -> int:
    """Returns round-half-up(k * n), at most n, in float64 arithmetic."""
    exact = k * n
    whole = math.floor(exact)
    return min(n, whole + (exact - whole >= 0.5))


def entropy_bits(size: int, kept: int) -> float:
    """Returns log2 C(size, kept): the bits that a mask takes of which nothing else is known."""
    ways = math.lgamma(size + 1) - math.lgamma(kept + 1) - math.lgamma(size - kept + 1)
    return max(0.0, ways) / math.log(2)
