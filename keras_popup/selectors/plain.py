"""The exact top-k choice in TensorFlow's own operations: nothing is compiled, so the first step comes at once.

`thresholds.py` finds the same threshold in fewer passes, as an XLA program that takes seconds to compile. Here scores
above a bracket of ranks are counted, and the few inside it are sorted. The bracket comes from the last threshold, or
else from a sample. If neither has few scores inside, three histograms of the bits find the threshold of any scores.
All of it is integer arithmetic on the bits of the scores, as there. Shapes need not be known, so one trace serves all
kernels.
"""

from collections.abc import Callable

import tensorflow as tf

from keras_popup.selectors.thresholds import INDEX_BITS, INFINITY_BITS, MAGNITUDE_BITS

# A rank is the bits of a magnitude plus this: infinity has the largest int32, NaN wraps around and is negative.
_OFFSET = MAGNITUDE_BITS - INFINITY_BITS

# The bracket around a known threshold reaches this many square roots of n scores, if there were n in its octave. A step
# of training moves the threshold past some 10 of 235,200 scores, 300 of 4,194,304.
_ROOTS = 2.0

_SAMPLE = 8192
_MOST_SORTED = 4 * _SAMPLE  # fewer scores are sorted at once
_SHARE_SORTED = 16  # of more scores, at most one in so many
_DEVIATIONS = 5.0  # of the sample's quantile, on either side

_Found = tuple[tf.Tensor, ...]


class Threshold:
    """Where the choice ends.

    Attributes:
        rank: int32 scalar. Higher ranks are kept.
        end: int32 scalar. Scores of this rank are kept before this flat index.
        whole: bool scalar, whether all scores of this rank are kept.
    """

    def __init__(self, rank: tf.Tensor, end: tf.Tensor, whole: tf.Tensor) -> None:
        self.rank, self.end, self.whole = rank, end, whole

    def to_hint(self) -> tf.Tensor:
        """Returns the threshold as `thresholds.find_threshold` does, an int64 scalar."""
        rank = tf.maximum(self.rank - _OFFSET + 1, 0)
        return tf.cast(rank, tf.int64) * 2**INDEX_BITS + tf.cast(self.end, tf.int64)

    def is_above(self, ranks: tf.Tensor) -> tf.Tensor:
        """Tells which ranks are kept: a bool tensor."""

        def cut_ties() -> tf.Tensor:
            tied = tf.equal(tf.maximum(ranks, -1), self.rank)
            return (ranks > self.rank) | (tied & (tf.range(tf.size(ranks)) < self.end))

        return tf.cond(self.whole, lambda: ranks >= self.rank, cut_ties)


def rank_scores(scores: tf.Tensor) -> tf.Tensor:
    """Returns int32 that order like the magnitudes of float32 scores; those of NaN are negative."""
    return tf.bitwise.bitwise_and(tf.bitcast(scores, tf.int32), MAGNITUDE_BITS) + _OFFSET


def find_threshold(ranks: tf.Tensor, kept: tf.Tensor, hint: tf.Tensor | None = None) -> Threshold:
    """Finds the threshold that exactly `kept` scores are above.

    Args:
        ranks: int32 tensor of shape (n,), of `rank_scores`.
        kept: int32 scalar, in [1, n].
        hint: int64 scalar, any threshold as `Threshold.to_hint` gives it. Only time depends on it.
    """
    size = tf.size(ranks)

    def by_sorting() -> _Found:
        bounded = tf.maximum(ranks, -1)  # all NaN are equal
        return _find_among(bounded, tf.range(size), kept)

    def by_sample() -> _Found:
        return _look_inside(ranks, kept, *_bracket_by_sample(ranks, kept), lambda: _find_by_histograms(ranks, kept))

    def anew() -> _Found:
        threshold: _Found = tf.cond(size > _MOST_SORTED, by_sample, by_sorting)
        return threshold

    return Threshold(*(anew() if hint is None else _look_inside(ranks, kept, *_bracket_by_hint(hint, size), anew)))


def _look_inside(
    ranks: tf.Tensor, kept: tf.Tensor, low: tf.Tensor, high: tf.Tensor, otherwise: Callable[[], _Found]
) -> _Found:
    """Returns the arguments of a `Threshold` if it is one of few in [low, high], else what `otherwise` returns."""
    wanted = kept - _count(ranks > high)
    # As unsigned numbers, those below the bracket are above it too.
    width = tf.bitcast(high - low, tf.uint32)
    inside = tf.where(tf.bitcast(ranks - low, tf.uint32) <= width)[:, 0]
    most = tf.maximum(tf.size(ranks) // _SHARE_SORTED, _MOST_SORTED)
    found = (wanted >= 1) & (wanted <= tf.size(inside)) & (tf.size(inside) <= most)
    threshold: _Found = tf.cond(found, lambda: _find_among(tf.gather(ranks, inside), inside, wanted), otherwise)
    return threshold


def _find_among(ranks: tf.Tensor, index: tf.Tensor, wanted: tf.Tensor) -> _Found:
    """Returns the arguments of the `Threshold` that `wanted` of some ranks are above. `index`: their flat indices."""
    rank = tf.sort(ranks)[tf.size(ranks) - wanted]
    ties = tf.boolean_mask(index, tf.equal(ranks, rank))
    of_ties = wanted - _count(ranks > rank)
    return rank, tf.cast(ties[of_ties - 1], tf.int32) + 1, (rank >= 0) & tf.equal(tf.size(ties), of_ties)


def _find_by_histograms(ranks: tf.Tensor, kept: tf.Tensor) -> _Found:
    """Returns the arguments of a `Threshold` of any scores: the bits of its rank, eleven, ten and ten."""
    bounded = tf.maximum(ranks, -1)  # all NaN are equal
    digits = tf.bitwise.right_shift(bounded, 20) + 1
    digit, wanted = _find_digit(digits, 2**11 + 1, kept)
    rank, alike = (digit - 1) * 2**20, tf.equal(digits, digit)
    for shift in (10, 0):
        digits = tf.bitwise.bitwise_and(tf.bitwise.right_shift(bounded, shift), 2**10 - 1)
        digits = tf.where(alike, digits, 2**10)  # which is not counted
        digit, wanted = _find_digit(digits, 2**10, wanted)
        rank, alike = rank + digit * 2**shift, tf.equal(digits, digit)
    ties = tf.where(alike)[:, 0]
    return rank, tf.cast(ties[wanted - 1], tf.int32) + 1, (rank >= 0) & tf.equal(tf.size(ties), wanted)


def _find_digit(digits: tf.Tensor, number: int, wanted: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the digit that the `wanted`-th largest has, and which largest of those with this digit it is."""
    counts = tf.math.bincount(digits, minlength=number, maxlength=number, dtype=tf.int32)
    higher = tf.cumsum(counts, exclusive=True, reverse=True)
    digit = tf.reduce_sum(tf.cast(higher >= wanted, tf.int32))
    return digit, wanted - higher[digit]


def _count(condition: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(condition, tf.int32))


def _bracket_by_hint(hint: tf.Tensor, size: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    middle = tf.bitwise.right_shift(hint, INDEX_BITS) - 1 + _OFFSET
    reach = tf.cast(_ROOTS * 2**23 / tf.sqrt(tf.cast(size, tf.float64)), tf.int64)
    return _clip(middle - reach), _clip(middle + reach)


def _bracket_by_sample(ranks: tf.Tensor, kept: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    size = tf.size(ranks)
    stride = tf.maximum(size // _SAMPLE, 1)  # the graph is checked for small sizes too
    sample = tf.sort(ranks[::stride][:_SAMPLE])
    share = tf.cast(size - kept, tf.float64) / tf.cast(size, tf.float64)
    reach = _DEVIATIONS * (0.5 + tf.sqrt(share * (1 - share) * _SAMPLE))
    low = tf.cast(tf.math.floor(share * _SAMPLE - reach), tf.int32)
    high = tf.cast(tf.math.ceil(share * _SAMPLE + reach), tf.int32)
    low_rank = tf.where(low < 0, 0, sample[tf.maximum(low, 0)])
    high_rank = tf.where(high >= _SAMPLE, MAGNITUDE_BITS, sample[tf.minimum(high, _SAMPLE - 1)])
    return _clip(tf.cast(low_rank, tf.int64)), _clip(tf.cast(high_rank, tf.int64))


def _clip(rank: tf.Tensor) -> tf.Tensor:
    """Returns an int64 rank as that of a number, an int32 in [0, infinity's]: NaN is found by sorting only."""
    return tf.cast(tf.clip_by_value(rank, 0, MAGNITUDE_BITS), tf.int32)
