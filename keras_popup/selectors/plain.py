"""The exact top-k choice in TensorFlow's own operations: nothing is compiled, so the first step comes at once.

`thresholds.py` finds the same threshold in fewer passes, as an XLA program that takes seconds to compile. Here scores
above a bracket of ranks are counted, and the few inside it are sorted. The bracket comes from the last threshold, or
else from a sample. If neither has few scores inside, as where many are equal, three histograms of the bits find the
threshold of any scores.

All of it is integer arithmetic on the bits of the scores, as there. Shapes need not be known, so one trace serves all
kernels.
"""

from collections.abc import Callable

import tensorflow as tf

from keras_popup.selectors.thresholds import INFINITY_BITS, MAGNITUDE_BITS

# A rank is the bits of a magnitude plus this: infinity has the largest int32, NaN wraps around and is negative.
OFFSET = MAGNITUDE_BITS - INFINITY_BITS

# The bracket around a known threshold reaches this many square roots of n scores, if there were n in its octave. A step
# of training moves the threshold past some 10 of 235,200 scores, 300 of 4,194,304.
_ROOTS = 2.0

SAMPLE = 8192
MOST_SAMPLED = 8 * SAMPLE
SHARE_SAMPLED = 64  # of many scores, one in so many
MOST_SORTED = 4 * SAMPLE  # fewer scores are sorted at once
SHARE_SORTED = 16  # of more scores, at most one in so many
DEVIATIONS = 5.0  # of the sample's quantile, on either side

_ROW = 4096  # scores whose ties are counted together

# Few operations matter here, in branches too, taken or not: each takes time, and is prepared before the first step.

_Found = tuple[tf.Tensor, ...]


class Threshold:
    """Where the choice ends.

    Attributes:
        rank: int32 scalar. Higher ranks are kept.
        end: int32 scalar. Unless `whole`, scores of this rank are kept before this flat index.
        whole: bool scalar, whether all scores of this rank are kept.
        hint: int64 scalar, where to look next time: the rank, or `TIED`.
    """

    def __init__(self, rank: tf.Tensor, end: tf.Tensor, whole: tf.Tensor, hint: tf.Tensor) -> None:
        self.rank, self.end, self.whole, self.hint = rank, end, whole, hint

    def is_above(self, ranks: tf.Tensor) -> tf.Tensor:
        """Tells which ranks are kept: a bool tensor."""

        def cut_ties() -> tf.Tensor:
            lowest = _lower(self.rank)
            return tf.concat([ranks[: self.end] >= lowest, ranks[self.end :] > self.rank], 0)

        above = tf.cond(self.whole, lambda: ranks >= self.rank, cut_ties)
        return tf.ensure_shape(above, ranks.shape)


def rank_scores(scores: tf.Tensor) -> tf.Tensor:
    """Returns int32 that order like the magnitudes of float32 scores; those of NaN are negative."""
    return tf.bitwise.bitwise_and(tf.bitcast(scores, tf.int32), MAGNITUDE_BITS) + OFFSET


def find_threshold(ranks: tf.Tensor, kept: tf.Tensor, hint: tf.Tensor | None = None) -> Threshold:
    """Finds the threshold that exactly `kept` scores are above.

    Args:
        ranks: int32 tensor of shape (n,), of `rank_scores`.
        kept: int32 scalar, in [1, n].
        hint: int64 scalar, any number, best `Threshold.hint` of nearly the same scores. Only time depends on it.
    """
    size = tf.size(ranks)

    def by_sorting() -> _Found:
        bounded = tf.maximum(ranks, -1)  # all NaN are equal
        return _find_among(bounded, tf.range(size, dtype=tf.int64), kept)

    def by_sample() -> _Found:
        return _look_inside(ranks, kept, *_bracket_by_sample(ranks, kept), lambda: _find_by_histograms(ranks, kept))

    def anew() -> _Found:
        found: _Found = tf.cond(size > MOST_SORTED, by_sample, by_sorting)
        return found

    return Threshold(*(anew() if hint is None else _look_inside(ranks, kept, *bracket_by_hint(hint, size), anew)))


def _look_inside(
    ranks: tf.Tensor, kept: tf.Tensor, low: tf.Tensor, width: tf.Tensor, otherwise: Callable[[], _Found]
) -> _Found:
    """Returns the arguments of a `Threshold` that is one of few in [low, low + width], else `otherwise()`."""
    wanted = kept - count(ranks > low + width)
    # As unsigned numbers, those below the bracket are above it too.
    inside = tf.where(tf.bitcast(ranks - low, tf.uint32) <= tf.bitcast(width, tf.uint32))[:, 0]
    size = tf.size(inside)
    found = (wanted >= 1) & (wanted <= size) & (size <= count_sorted(tf.size(ranks)))
    threshold: _Found = tf.cond(found, lambda: _find_among(tf.gather(ranks, inside), inside, wanted), otherwise)
    return threshold


def _find_among(ranks: tf.Tensor, index: tf.Tensor, wanted: tf.Tensor) -> _Found:
    """Returns the arguments of the `Threshold` that `wanted` of some ranks are above. `index`: their flat indices."""
    rank = tf.sort(ranks)[tf.size(ranks) - wanted]
    ties = tf.boolean_mask(index, tf.equal(ranks, rank))
    of_ties = wanted - count(ranks > rank)
    whole = (rank >= 0) & tf.equal(tf.size(ties), of_ties)
    return rank, tf.cast(ties[of_ties - 1], tf.int32) + 1, whole, tf.cast(rank, tf.int64)


def _find_tie(tied: tf.Tensor, wanted: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the flat index after the `wanted`-th tie, and how many there are."""
    # How many ties each row has, and the rest after the last whole row.
    rows = tf.size(tied) // _ROW
    ties = tf.reduce_sum(tf.cast(tf.reshape(tied[: rows * _ROW], [rows, _ROW]), tf.int32), 1)
    until = tf.cumsum(tf.concat([ties, [count(tied[rows * _ROW :])]], 0))
    row = count(until < wanted)
    before = tf.where(row > 0, until[tf.maximum(row - 1, 0)], 0)
    inside = tf.cumsum(tf.cast(tied[row * _ROW :][:_ROW], tf.int32))
    return row * _ROW + count(inside < wanted - before) + 1, until[-1]


def _lower(rank: tf.Tensor) -> tf.Tensor:
    """Returns the least int32 that has a rank: those of NaN are all negative ones."""
    return tf.where(rank < 0, tf.int32.min, rank)


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
    end, ties = _find_tie(alike, wanted)
    whole = (rank >= 0) & tf.equal(ties, wanted)
    hint = tf.cast(tf.where(ties > count_sorted(tf.size(ranks)), TIED, rank), tf.int64)
    return rank, end, whole, hint


def _find_digit(digits: tf.Tensor, number: int, wanted: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the digit that the `wanted`-th largest has, and which largest of those with this digit it is."""
    counts = tf.math.bincount(digits, minlength=number, maxlength=number, dtype=tf.int32)
    higher = tf.cumsum(counts, exclusive=True, reverse=True)
    digit = tf.reduce_sum(tf.cast(higher >= wanted, tf.int32))
    return digit, wanted - higher[digit]


def count_sorted(size: tf.Tensor) -> tf.Tensor:
    """Returns how many of `size` scores are sorted at most."""
    return tf.maximum(size // SHARE_SORTED, MOST_SORTED)


def count(condition: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(condition, tf.int32))


# Brackets of scores that are mostly ties would have too many scores to sort, and to write them down takes long. They
# are replaced by one that holds none, so that the histograms follow at once.
TIED = -2  # the hint of such scores


def bracket_by_hint(hint: tf.Tensor, size: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns (low, width) of the ranks around that of a hint."""
    # Computed here and not passed in: TensorFlow would prepare a function of its own for each kernel with a constant.
    reach = tf.cast(_ROOTS * 2**23 / tf.sqrt(tf.cast(size, tf.float64)), tf.int32)
    rank = tf.cast(tf.clip_by_value(hint, -1, MAGNITUDE_BITS), tf.int32)
    low = tf.clip_by_value(rank - reach, 0, MAGNITUDE_BITS - 2 * reach)
    is_tied = rank < 0
    return tf.where(is_tied, MAGNITUDE_BITS, low), tf.where(is_tied, 0, 2 * reach)


def _bracket_by_sample(ranks: tf.Tensor, kept: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns (low, width) of the ranks that the threshold is likely between."""
    size = tf.size(ranks)
    number = tf.clip_by_value(size // SHARE_SAMPLED, SAMPLE, MOST_SAMPLED)
    stride = tf.maximum(size // number, 1)  # the graph is checked for small sizes too
    sample = tf.sort(ranks[::stride][:number])
    share = tf.cast(size - kept, tf.float64) / tf.cast(size, tf.float64)
    sampled = tf.cast(number, tf.float64)
    reach = DEVIATIONS * (0.5 + tf.sqrt(share * (1 - share) * sampled))
    low = tf.cast(tf.math.floor(share * sampled - reach), tf.int32)
    high = tf.cast(tf.math.ceil(share * sampled + reach), tf.int32)
    low_rank = tf.where(low < 0, 0, sample[tf.maximum(low, 0)])
    high_rank = tf.where(high >= number, MAGNITUDE_BITS, sample[tf.minimum(high, number - 1)])
    low_rank, high_rank = clip_rank(tf.cast(low_rank, tf.int64)), clip_rank(tf.cast(high_rank, tf.int64))
    is_tied = count((sample >= low_rank) & (sample <= high_rank)) > number // SHARE_SORTED
    return tf.where(is_tied, MAGNITUDE_BITS, low_rank), tf.where(is_tied, 0, high_rank - low_rank)


def clip_rank(rank: tf.Tensor) -> tf.Tensor:
    """Returns an int64 rank as that of a number, an int32 in [0, infinity's]: NaN is found by sorting only."""
    return tf.cast(tf.clip_by_value(rank, 0, MAGNITUDE_BITS), tf.int32)
