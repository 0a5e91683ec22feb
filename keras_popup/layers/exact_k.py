"""The fraction k as float32 numbers that add up to it exactly.

k is a Python float, and one float32 is too coarse for it: of 5 weights, 0.7 would keep 3 instead of 4. But a float64
weight is one that Keras expects in no layer of mixed precision, and that some accelerators do not have. Three float32
numbers hold the 53 bits of a Python float. Their sum in float64 is k, whatever k is.
"""

import math
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

PARTS = 3
_SMALLEST = 1e-20  # below it, some of the numbers would be subnormal, which TensorFlow takes for 0


def split(k: float) -> NDArray[np.float32]:
    """Returns float32 numbers, an array of shape `(PARTS,)`, that add up to `k`. The first is `k` rounded.

    Raises:
        ValueError: if `k` is below 1e-20. No such `k` keeps a weight of any kernel.
    """
    if k < _SMALLEST:
        raise ValueError(f"`k`, the fraction of weights kept, must be at least {_SMALLEST}. Received: k={k!r}.")
    parts, rest = np.zeros(PARTS, np.float32), float(k)
    for number in range(PARTS):
        parts[number] = rest
        rest -= float(parts[number])
    return parts


def join(parts: Any) -> tf.Tensor:
    """Returns the sum of the numbers of `split`, a float64 scalar tensor, in graphs and under XLA too."""
    high, middle, low = tf.unstack(tf.cast(tf.convert_to_tensor(parts), tf.float64))
    # In this order each sum is exact.
    return high + (middle + low)


def read(parts: Any) -> float:
    """Returns the sum of the numbers of `split` in an array."""
    return math.fsum(np.asarray(parts, np.float64))


def from_file(value: Any) -> NDArray[np.float32]:
    """Returns the numbers of `split` from what a file has: these, or in files of earlier versions a float64 scalar."""
    value = np.asarray(value)
    return value if value.ndim else split(float(value))
