"""The exact top-k choice in TensorFlow's own operations: nothing is compiled, so the first step comes at once.

`thresholds.py` finds the same threshold in fewer passes, as an XLA program that takes seconds to compile. Here scores
above a bracket of ranks are counted, and the few inside it are sorted. The bracket comes from the last threshold,
then from a sample, then it is everything. All of it is integer arithmetic on the bits of the scores, as there.
"""

import math
from collections.abc import Callable

import tensorflow as tf

from keras_popup.selectors import programs

Branch = Callable[[], tuple[tf.Tensor, ...]]

_INFINITY_BITS = 0x7F800000
_MAGNITUDE_BITS = 0x7FFFFFFF
_INDEX_BITS = 31

# A rank is the bits of a magnitude plus this: infinity has the largest int32, NaN wraps around and is negative.
_OFFSET = _MAGNITUDE_BITS - _INFINITY_BITS

# The bracket around a known threshold reaches this many square roots of n scores, if there were n in its octave. A step
# of training moves the threshold past some 10 of 235,200 scores, 300 of 4,194,304.
_ROOTS = 2.0

_SAMPLE = 8192
_DEVIATIONS = 5.0  # of the sample's quantile, on either side


class Threshold:
    """Where the choice ends: ranks above `rank` are kept, and those equal to it before the flat index `end`."""

    def __init__(self, rank: tf.Tensor, end: tf.Tensor, whole: tf.Tensor) -> None:
        self.rank, self.end, self.whole = rank, end, whole

    def to_hint(self) -> tf.Tensor:
        """Returns the threshold as `thresholds.find_threshold` does, an int64 scalar."""
        rank = tf.maximum(self.rank - _OFFSET + 1, 0)
        return tf.cast(rank, tf.int64) * 2**_INDEX_BITS + tf.cast(self.end, tf.int64)

    def is_above(self, ranks: tf.Tensor) -> tf.Tensor:
        """Tells which ranks are kept: a bool tensor."""

        def cut_ties() -> tf.Tensor:
            index = tf.range(programs.static_size(ranks))
            tied = tf.equal(tf.maximum(ranks, -1), self.rank)
            return (ranks > self.rank) | (tied & (index < self.end))

        return tf.cond(self.whole, lambda: ranks >= self.rank, cut_ties)


def rank_scores(scores: tf.Tensor) -> tf.Tensor:
    """Returns int32 that order like the magnitudes of float32 scores; those of NaN are negative."""
    return tf.bitwise.bitwise_and(tf.bitcast(scores, tf.int32), _MAGNITUDE_BITS) + _OFFSET


def find_threshold(ranks: tf.Tensor, kept: tf.Tensor, hint: tf.Tensor | None = None) -> Threshold:
    """Finds the threshold that exactly `kept` scores are above.

    Args:
        ranks: int32 tensor of shape (n,), of `rank_scores`.
        kept: int32 scalar, in [1, n].
        hint: int64 scalar, any threshold as `Threshold.to_hint` gives it. Only time depends on it.
    """
    size = programs.static_size(ranks)

    def by_sorting() -> tuple[tf.Tensor, ...]:
        bounded = tf.maximum(ranks, -1)  # all NaN are equal
        rank = tf.sort(bounded)[size - kept]
        ties = tf.where(tf.equal(bounded, rank))[:, 0]
        wanted = kept - _count(bounded > rank)
        return rank, tf.cast(ties[wanted - 1], tf.int32) + 1, (rank >= 0) & tf.equal(tf.size(ties), wanted)

    def by_sample() -> tuple[tf.Tensor, ...]:
        return _look_inside(ranks, kept, *_bracket_by_sample(ranks, kept), by_sorting)

    otherwise = by_sample if size > 4 * _SAMPLE else by_sorting
    if hint is None:
        return Threshold(*otherwise())
    return Threshold(*_look_inside(ranks, kept, *_bracket_by_hint(hint, size), otherwise))


def _look_inside(
    ranks: tf.Tensor, kept: tf.Tensor, low: tf.Tensor, high: tf.Tensor, otherwise: Branch
) -> tuple[tf.Tensor, ...]:
    """Returns the arguments of a `Threshold` if it lies in [low, high], else what `otherwise` returns."""
    wanted = kept - _count(ranks > high)
    # As unsigned numbers, those below the bracket are above it too.
    width = tf.bitcast(high - low, tf.uint32)
    inside = tf.where(tf.bitcast(ranks - low, tf.uint32) <= width)[:, 0]
    number = tf.size(inside)

    def by_bracket() -> tuple[tf.Tensor, ...]:
        found = tf.gather(ranks, inside)
        rank = tf.sort(found)[number - wanted]
        ties = tf.boolean_mask(inside, tf.equal(found, rank))
        of_ties = wanted - _count(found > rank)
        return rank, tf.cast(ties[of_ties - 1], tf.int32) + 1, tf.equal(tf.size(ties), of_ties)

    return tf.cond((wanted >= 1) & (wanted <= number), by_bracket, otherwise)


def _count(condition: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(condition, tf.int32))


def _bracket_by_hint(hint: tf.Tensor, size: int) -> tuple[tf.Tensor, tf.Tensor]:
    middle = tf.bitwise.right_shift(hint, _INDEX_BITS) - 1 + _OFFSET
    reach = round(_ROOTS * 2**23 / math.sqrt(size))
    return _clip(middle - reach), _clip(middle + reach)


def _bracket_by_sample(ranks: tf.Tensor, kept: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    size = programs.static_size(ranks)
    sample = tf.sort(ranks[:: size // _SAMPLE][:_SAMPLE])
    share = tf.cast(size - kept, tf.float64) / size
    reach = _DEVIATIONS * (0.5 + tf.sqrt(share * (1 - share) * _SAMPLE))
    place = share * _SAMPLE
    low = tf.cast(tf.math.floor(place - reach), tf.int32)
    high = tf.cast(tf.math.ceil(place + reach), tf.int32)
    low_rank = tf.where(low < 0, 0, sample[tf.maximum(low, 0)])
    high_rank = tf.where(high >= _SAMPLE, _MAGNITUDE_BITS, sample[tf.minimum(high, _SAMPLE - 1)])
    return _clip(tf.cast(low_rank, tf.int64)), _clip(tf.cast(high_rank, tf.int64))


def _clip(rank: tf.Tensor) -> tf.Tensor:
    """Returns an int64 rank as that of a number, an int32 in [0, infinity's]: NaN is found by sorting only."""
    return tf.cast(tf.clip_by_value(rank, 0, _MAGNITUDE_BITS), tf.int32)
