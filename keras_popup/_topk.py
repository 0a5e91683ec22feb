"""The exact top-k mask: counts, ties, one implementation for eager, graph and XLA.

The k-th largest magnitude is found by bisection over the bit patterns of float32, one counting pass over
the scores per bit: linear in n, no sort, and nothing whose shape depends on the data, so that XLA compiles
it. Everything is integer arithmetic. Kernels that flush subnormal floats to zero, as TensorFlow's own and
XLA's do, thus cannot change the mask.
"""

import math
from collections.abc import Callable

import tensorflow as tf

_INFINITY_BITS = 0x7F800000
_MAGNITUDE_BITS = 0x7FFFFFFF


def count_kept(k: float, n: int) -> int:
    """Returns round-half-up(k * n), at most n, in float64 arithmetic."""
    exact = k * n
    whole = math.floor(exact)
    return min(n, whole + (exact - whole >= 0.5))


def count_kept_tensor(k: tf.Tensor, n: int) -> tf.Tensor:
    """Returns the same as `count_kept` for a float64 scalar tensor: an int32 scalar."""
    exact = tf.cast(k, tf.float64) * n
    whole = tf.math.floor(exact)
    half_up = whole + tf.cast(exact - whole >= 0.5, tf.float64)
    return tf.cast(tf.minimum(half_up, n), tf.int32)


def topk_mask(scores: tf.Tensor, kept: tf.Tensor) -> tf.Tensor:
    """Marks the `kept` scores of largest magnitude.

    Args:
        scores: float32 tensor of any shape with 1 to 2**31 - 1 elements.
        kept: int32 scalar, in [0, n].

    Returns:
        float32 tensor of the shape of `scores` with exactly `kept` ones, the rest zeros. Of equal
        magnitudes the lower flat index (C order) wins; NaN ranks below every number.
    """
    flat = tf.reshape(scores, [-1])
    ranks = _ranks(flat)
    threshold = _largest(lambda rank: _count(ranks >= rank) >= kept, bits=31)
    chosen = ranks >= threshold
    surplus = _count(chosen) - kept
    chosen = tf.cond(
        surplus > 0,
        lambda: _without_last_ties(ranks, threshold, surplus),
        lambda: chosen,
    )
    return tf.reshape(tf.cast(chosen, tf.float32), tf.shape(scores))


def _ranks(flat: tf.Tensor) -> tf.Tensor:
    """Returns int32 in [0, 2**31) that order like the magnitudes: NaN 0, zero 1, infinity the largest."""
    magnitude = tf.bitwise.bitwise_and(tf.bitcast(flat, tf.int32), _MAGNITUDE_BITS)
    return tf.where(magnitude > _INFINITY_BITS, 0, magnitude + 1)


def _without_last_ties(ranks: tf.Tensor, threshold: tf.Tensor, surplus: tf.Tensor) -> tf.Tensor:
    """Returns `ranks >= threshold` without the `surplus` last ones that equal the threshold."""
    ties = tf.equal(ranks, threshold)
    wanted = _count(ties) - surplus
    size = flat_size(ranks)
    index = tf.range(size)
    end = _largest(lambda stop: _count(ties & (index < stop)) <= wanted, bits=size.bit_length())
    return (ranks > threshold) | (ties & (index < end))


def _largest(holds: Callable[[tf.Tensor], tf.Tensor], bits: int) -> tf.Tensor:
    """Returns the largest int32 in [0, 2**bits) for which `holds`, true up to some point and false beyond."""

    def set_bit(step: tf.Tensor, value: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        candidate = value + tf.bitwise.left_shift(1, bits - 1 - step)
        return step + 1, tf.where(holds(candidate), candidate, value)

    _, value = tf.while_loop(lambda step, _: step < bits, set_bit, (0, 0), maximum_iterations=bits)
    return value


def _count(flags: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(flags, tf.int32))


def flat_size(tensor: tf.Tensor) -> int:
    """Returns the static number of elements, which every weight of a layer has.

    Raises:
        ValueError: if the shape is not fully known, is empty or has 2**31 elements or more.
    """
    size = tensor.shape.num_elements()
    if size is None or not 0 < size < 2**31:
        raise ValueError(
            "Scores must have a fully known shape of 1 to 2**31 - 1 elements. "
            f"Received: shape={tensor.shape}. Split the layer or give its input shape."
        )
    return int(size)
