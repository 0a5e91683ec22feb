"""The exact top-k mask: counts, ties, one implementation for eager, graph and XLA.

The threshold is searched for by counting. One pass over the scores counts how many lie below each of a few
candidates, whose places are interpolated from the counts so far; a handful of passes pins the k-th largest
down among millions. There is no sort and nothing whose shape depends on the data, so XLA compiles all of it,
also as a small program of its own inside a graph that is not compiled. Everything is integer arithmetic on
the bit patterns of float32: kernels that flush subnormal floats to zero, as TensorFlow's own and XLA's do,
thus cannot change the mask.
"""

import functools
import math
from collections.abc import Callable, Hashable
from typing import Any

import tensorflow as tf

_INFINITY_BITS = 0x7F800000
_MAGNITUDE_BITS = 0x7FFFFFFF
_RANK_END = 2**31 - 1

# A pass counts for three candidates at once: three counters of 10 bits share an int32, which holds for the
# 256 rows that the scores are folded into.
_CANDIDATES = 3
_COUNTER_BITS = 10
_ROWS = 256

# After so many passes the search no longer trusts the interpolation and cuts the rest in four: no input takes
# more than 16 further passes.
_INTERPOLATED_PASSES = 4

# Where a sample of this size shows where to look first.
_SAMPLE = 1 << 16


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


@functools.cache
def compiled(function: Callable[..., tf.Tensor], *key: Hashable) -> Callable[..., Any]:
    """Returns `function` as a small XLA program, which may run inside a graph that is not compiled.

    Args:
        function: a function of tensors at the top of a module.
        key: what the program depends on, such as shapes: each gets its own. One tf.function for all would
            trace anew for every layer.
    """
    # TensorFlow counts traces, to warn of many, by the code of the function; a partial object has none.
    return tf.function(functools.partial(function), jit_compile=True, autograph=False)


def chosen(scores: tf.Tensor, kept: tf.Tensor) -> tf.Tensor:
    """Tells which are the `kept` scores of largest magnitude.

    Args:
        scores: float32 tensor of any shape with 1 to 2**31 - 1 elements.
        kept: int32 scalar, in [1, n].

    Returns:
        bool tensor of the shape of `scores`, true exactly `kept` times. Of equal magnitudes the lower flat
        index (C order) wins; NaN ranks below every number.
    """
    size = static_size(scores)
    left_out = size - kept
    flat = tf.reshape(scores, [-1])
    ranks = _ranks(flat)
    folded = _fold(ranks)
    index = tf.reshape(tf.range(tf.size(folded)), tf.shape(folded))

    rank, smaller, up_to_rank = _search(
        lambda candidate: folded < candidate, _RANK_END, size, left_out, _guess(flat, left_out)
    )
    index_end = tf.cond(
        smaller == left_out,
        lambda: tf.constant(size),
        lambda: _search(
            lambda end: tf.equal(folded, rank) & (index < end), size, up_to_rank - smaller, up_to_rank - left_out
        )[0],
    )
    flags = (ranks > rank) | (tf.equal(ranks, rank) & (tf.range(size) < index_end))
    return tf.reshape(flags, scores.shape)


def _ranks(flat: tf.Tensor) -> tf.Tensor:
    """Returns int32 in [0, 2**31 - 1) that order like the magnitudes: NaN 0, zero 1, infinity the largest."""
    magnitude = tf.bitwise.bitwise_and(tf.bitcast(flat, tf.int32), _MAGNITUDE_BITS)
    return tf.where(magnitude > _INFINITY_BITS, 0, magnitude + 1)


def _fold(ranks: tf.Tensor) -> tf.Tensor:
    """Returns the ranks in rows, filled up with a rank that is below no candidate."""
    rest = -static_size(ranks) % _ROWS
    if rest:
        ranks = tf.pad(ranks, [[0, rest]], constant_values=_RANK_END)
    return tf.reshape(ranks, [_ROWS, -1])


def _guess(flat: tf.Tensor, left_out: tf.Tensor) -> tf.Tensor | None:
    """Returns three ranks around the threshold as an evenly spaced sample shows it, None for few scores.

    Only time depends on how well the sample does.
    """
    size = static_size(flat)
    stride = size // _SAMPLE
    if stride < 2:
        return None
    sample = _ranks(flat[::stride])
    sampled = static_size(sample)
    folded = _fold(sample)
    expected = tf.cast(left_out, tf.float64) * (sampled / size)
    margin = 1.0 + 1.5 * tf.sqrt(expected * (1.0 - expected / sampled))
    wanted = tf.cast(tf.stack([expected - margin, expected + margin]), tf.int32)
    wanted = tf.clip_by_value(wanted, 0, sampled - 1)
    # A loop of two, as a program with two searches takes longer to compile.
    _, low, high = tf.while_loop(
        lambda number, low, high: number < 2,
        lambda number, low, high: (
            number + 1,
            high,
            _search(lambda candidate: folded < candidate, _RANK_END, sampled, wanted[number])[0],
        ),
        (0, 0, 0),
    )
    return tf.stack([low, low + (high - low) // 2, high + 1])


def _search(
    flags: Callable[[tf.Tensor], tf.Tensor],
    end: int,
    total: int | tf.Tensor,
    target: tf.Tensor,
    first: tf.Tensor | None = None,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Finds an int32 `low` in [0, end) with `count(low) == target`, by narrowing a bracket.

    Args:
        flags: function of a candidate in (0, end) to bools of shape `(_ROWS, columns)`, the true ones of
            which are counted. The count rises with the candidate, from 0 at 0 to `total` at `end`.
        end: int.
        total: int or int32 scalar.
        target: int32 scalar in [0, total).
        first: int32 `(3,)`, the candidates to begin with.

    Returns:
        (low, count(low), count(high)). Where no candidate counts the target, `low` is the last one that
        counts less, and `high` is `low + 1`.
    """

    def unfinished(
        number: tf.Tensor, low: tf.Tensor, high: tf.Tensor, low_count: tf.Tensor, high_count: tf.Tensor
    ) -> tf.Tensor:
        return (high - low > 1) & (low_count != target)

    def narrow(
        number: tf.Tensor, low: tf.Tensor, high: tf.Tensor, low_count: tf.Tensor, high_count: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        inside = tf.cast(high_count - low_count, tf.float64)
        # Of numbers spread evenly the wanted one is here, give or take the deviation of an order statistic.
        place = tf.minimum((tf.cast(target - low_count, tf.float64) + 0.5) / inside, 1.0)
        deviation = tf.sqrt(place * (1.0 - place) / inside + 0.1 / (inside * inside))
        interpolated = tf.stack([place - deviation, place, place + deviation])
        quarters = tf.constant([0.25, 0.5, 0.75], tf.float64)
        places = tf.where(number < _INTERPOLATED_PASSES, interpolated, quarters)
        candidates = low + tf.cast(places * tf.cast(high - low, tf.float64), tf.int32)
        if first is not None:
            candidates = tf.where(number == 0, first, candidates)
        candidates = tf.clip_by_value(candidates, low + 1, high - 1)
        counts = _count(flags, candidates)
        under = counts <= target
        return (
            number + 1,
            tf.reduce_max(tf.where(under, candidates, low)),
            tf.reduce_min(tf.where(under, high, candidates)),
            tf.reduce_max(tf.where(under, counts, low_count)),
            tf.reduce_min(tf.where(under, high_count, counts)),
        )

    start = (tf.constant(0), tf.constant(0), tf.constant(end), tf.constant(0), tf.convert_to_tensor(total))
    _, low, _, low_count, high_count = tf.while_loop(unfinished, narrow, start)
    return low, low_count, high_count


def _count(flags: Callable[[tf.Tensor], tf.Tensor], candidates: tf.Tensor) -> tf.Tensor:
    """Returns how many flags each of the three candidates has, int32 `(3,)`, in one pass."""
    places = [1 << (_COUNTER_BITS * place) for place in range(_CANDIDATES)]
    packed = tf.add_n(
        [tf.cast(flags(c), tf.int32) * place for c, place in zip(tf.unstack(candidates), places, strict=True)]
    )
    columns = tf.reduce_sum(packed, axis=0)
    return tf.reduce_sum(columns // tf.constant(places)[:, None] % (1 << _COUNTER_BITS), axis=1)


def static_size(tensor: tf.Tensor) -> int:
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
