"""The exact top-k choice in TensorFlow's own operations: nothing is compiled, so the first step comes at once.

`thresholds.py` finds the same threshold in fewer passes, as an XLA program that takes seconds to compile. Here scores
above a bracket of ranks are counted, and the few inside it are sorted. The bracket comes from the last threshold, or
else from a sample. Where many scores are equal, the ties of one rank are counted instead. If none of this finds the
threshold, three histograms of the bits find that of any scores.

All of it is integer arithmetic on the bits of the scores, as there. Shapes need not be known, so one trace serves all
kernels.
"""

import math
from collections.abc import Callable

import tensorflow as tf

from keras_popup.selectors.thresholds import INFINITY_BITS, MAGNITUDE_BITS

# A rank is the bits of a magnitude plus this: infinity has the largest int32, NaN wraps around and is negative.
_OFFSET = MAGNITUDE_BITS - INFINITY_BITS

# The bracket around a known threshold reaches this many square roots of n scores, if there were n in its octave. A step
# of training moves the threshold past some 10 of 235,200 scores, 300 of 4,194,304.
_ROOTS = 2.0

_SAMPLE = 8192
_MOST_SAMPLED = 8 * _SAMPLE
_SHARE_SAMPLED = 64  # of many scores, one in so many
_MOST_SORTED = 4 * _SAMPLE  # fewer scores are sorted at once
_SHARE_SORTED = 16  # of more scores, at most one in so many
_DEVIATIONS = 5.0  # of the sample's quantile, on either side

_SMALL = 2048  # so few scores are sorted sooner than a hint is looked up
_ROW = 4096  # scores whose ties are counted together

_Found = tuple[tf.Tensor, ...]


class Threshold:
    """Where the choice ends.

    Attributes:
        rank: int32 scalar. Higher ranks are kept.
        end: int32 scalar. Unless `whole`, scores of this rank are kept before this flat index.
        whole: bool scalar, whether all scores of this rank are kept.
        hint: int64 scalar, where to look next time: the rank, or -2 - rank if its many ties are better counted.
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
    return tf.bitwise.bitwise_and(tf.bitcast(scores, tf.int32), MAGNITUDE_BITS) + _OFFSET


def is_small(size: int) -> bool:
    """Tells whether so few scores are sorted, as `find_threshold` does without a hint."""
    return size <= _SMALL


def reach_of(size: int) -> int:
    """Returns how far from the rank of a hint `find_threshold` looks, for `size` scores."""
    return int(_ROOTS * 2**23 / math.sqrt(size))


def find_threshold(
    ranks: tf.Tensor, kept: tf.Tensor, hint: tf.Tensor | None = None, reach: tf.Tensor | None = None
) -> Threshold:
    """Finds the threshold that exactly `kept` scores are above.

    Args:
        ranks: int32 tensor of shape (n,), of `rank_scores`.
        kept: int32 scalar, in [1, n].
        hint: int64 scalar, any number, best `Threshold.hint` of nearly the same scores. Only time depends on it.
        reach: int32 scalar, `reach_of(n)`; needed with a hint.
    """
    if hint is None:
        return Threshold(*_find_anew(ranks, kept))
    assert reach is not None

    def near_hint() -> _Found:
        rank = tf.cast(tf.minimum(hint, MAGNITUDE_BITS), tf.int32)
        low = tf.clip_by_value(rank - reach, 0, MAGNITUDE_BITS - 2 * reach)
        return _look_inside(ranks, kept, low, 2 * reach, lambda: _find_anew(ranks, kept))

    return Threshold(*_choose_path(hint >= 0, near_hint, lambda: _find_at_hint(ranks, kept, hint)))


def _apart(function: Callable[..., _Found]) -> Callable[..., _Found]:
    """Returns a function of (ranks, kept, other scalars) that is one operation where it is called.

    What a branch holds takes time even if it is not taken: TensorFlow visits each of its operations.
    """
    traced: Callable[..., _Found] = tf.function(
        function, autograph=False, reduce_retracing=True, experimental_attributes={"_noinline": True}
    )
    return traced


@_apart
def _find_anew(ranks: tf.Tensor, kept: tf.Tensor) -> _Found:
    """Returns the arguments of the `Threshold` of any scores, without a hint."""

    def by_sorting() -> _Found:
        bounded = tf.maximum(ranks, -1)  # all NaN are equal
        return _find_among(bounded, tf.range(tf.size(ranks), dtype=tf.int64), kept)

    def by_sample() -> _Found:
        low, high, crowded = _bracket_by_sample(ranks, kept)

        def by_histograms() -> _Found:
            return _find_by_histograms(ranks, kept)

        return _choose_path(
            crowded,
            lambda: _look_at(ranks, kept, low, lambda: _look_at(ranks, kept, high, by_histograms)),
            lambda: _look_inside(ranks, kept, low, high - low, by_histograms),
        )

    return _choose_path(tf.size(ranks) > _MOST_SORTED, by_sample, by_sorting)


@_apart
def _find_at_hint(ranks: tf.Tensor, kept: tf.Tensor, hint: tf.Tensor) -> _Found:
    """Returns the arguments of a `Threshold` that is expected to have the rank of a hint, and many ties."""
    rank = tf.cast(tf.minimum(-2 - hint, MAGNITUDE_BITS), tf.int32)
    return _look_at(ranks, kept, rank, lambda: _find_anew(ranks, kept))


def _choose_path(condition: tf.Tensor, one: Callable[[], _Found], other: Callable[[], _Found]) -> _Found:
    found: _Found = tf.cond(condition, one, other)
    return found


def _look_inside(
    ranks: tf.Tensor, kept: tf.Tensor, low: tf.Tensor, width: tf.Tensor, otherwise: Callable[[], _Found]
) -> _Found:
    """Returns the arguments of a `Threshold` that is one of few in [low, low + width], else `otherwise()`."""
    wanted = kept - _count(ranks > low + width)
    # As unsigned numbers, those below the bracket are above it too.
    inside = tf.where(tf.bitcast(ranks - low, tf.uint32) <= tf.bitcast(width, tf.uint32))[:, 0]
    size = tf.size(inside)
    found = (wanted >= 1) & (wanted <= size) & (size <= _count_sorted(tf.size(ranks)))
    return _choose_path(found, lambda: _find_among(tf.gather(ranks, inside), inside, wanted), otherwise)


def _find_among(ranks: tf.Tensor, index: tf.Tensor, wanted: tf.Tensor) -> _Found:
    """Returns the arguments of the `Threshold` that `wanted` of some ranks are above. `index`: their flat indices."""
    ordered = tf.sort(ranks)
    place = tf.size(ranks) - wanted
    rank = ordered[place]
    hint = tf.cast(rank, tf.int64)
    # Nearly always the next one is lower, so no ties are cut.
    end, whole = tf.cond(
        ((place > 0) & tf.equal(ordered[tf.maximum(place - 1, 0)], rank)) | (rank < 0),
        lambda: _cut_ties(ranks, wanted, index, rank),
        lambda: (tf.constant(0), tf.constant(True)),
    )
    return rank, end, whole, hint


@_apart
def _cut_ties(ranks: tf.Tensor, wanted: tf.Tensor, index: tf.Tensor, rank: tf.Tensor) -> _Found:
    """Returns the end of the ties that are kept, and whether they all are."""
    ties = tf.boolean_mask(index, tf.equal(ranks, rank))
    of_ties = wanted - _count(ranks > rank)
    return tf.cast(ties[of_ties - 1], tf.int32) + 1, (rank >= 0) & tf.equal(tf.size(ties), of_ties)


def _look_at(ranks: tf.Tensor, kept: tf.Tensor, rank: tf.Tensor, otherwise: Callable[[], _Found]) -> _Found:
    """Returns the arguments of a `Threshold` if it has this rank, else what `otherwise` returns."""
    above = ranks > rank
    wanted = kept - _count(above)
    tied = tf.not_equal(ranks >= _lower(rank), above)
    # How many ties each row has, and the rest after the last whole row.
    rows = tf.size(ranks) // _ROW
    ties = tf.reduce_sum(tf.cast(tf.reshape(tied[: rows * _ROW], [rows, _ROW]), tf.int32), 1)
    until = tf.cumsum(tf.concat([ties, [_count(tied[rows * _ROW :])]], 0))

    def find_end() -> _Found:
        row = _count(until < wanted)
        before = tf.where(row > 0, until[tf.maximum(row - 1, 0)], 0)
        inside = tf.cumsum(tf.cast(tied[row * _ROW :][:_ROW], tf.int32))
        end = row * _ROW + _count(inside < wanted - before) + 1
        return rank, end, (rank >= 0) & tf.equal(until[-1], wanted), -2 - tf.cast(rank, tf.int64)

    return _choose_path((wanted >= 1) & (wanted <= until[-1]), find_end, otherwise)


def _lower(rank: tf.Tensor) -> tf.Tensor:
    """Returns the least int32 that has a rank: those of NaN are all negative ones."""
    return tf.where(rank < 0, tf.int32.min, rank)


@_apart
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
    whole = (rank >= 0) & tf.equal(tf.size(ties), wanted)
    many = tf.size(ties) > _count_sorted(tf.size(ranks))
    hint = tf.cast(rank, tf.int64)
    return rank, tf.cast(ties[wanted - 1], tf.int32) + 1, whole, tf.where(many, -2 - hint, hint)


def _find_digit(digits: tf.Tensor, number: int, wanted: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the digit that the `wanted`-th largest has, and which largest of those with this digit it is."""
    counts = tf.math.bincount(digits, minlength=number, maxlength=number, dtype=tf.int32)
    higher = tf.cumsum(counts, exclusive=True, reverse=True)
    digit = tf.reduce_sum(tf.cast(higher >= wanted, tf.int32))
    return digit, wanted - higher[digit]


def _count_sorted(size: tf.Tensor) -> tf.Tensor:
    """Returns how many of `size` scores are sorted at most."""
    return tf.maximum(size // _SHARE_SORTED, _MOST_SORTED)


def _count(condition: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(condition, tf.int32))


def _bracket_by_sample(ranks: tf.Tensor, kept: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns two ranks that the threshold is likely between, and whether many scores are."""
    size = tf.size(ranks)
    number = tf.clip_by_value(size // _SHARE_SAMPLED, _SAMPLE, _MOST_SAMPLED)
    stride = tf.maximum(size // number, 1)  # the graph is checked for small sizes too
    sample = tf.sort(ranks[::stride][:number])
    share = tf.cast(size - kept, tf.float64) / tf.cast(size, tf.float64)
    sampled = tf.cast(number, tf.float64)
    reach = _DEVIATIONS * (0.5 + tf.sqrt(share * (1 - share) * sampled))
    low = tf.cast(tf.math.floor(share * sampled - reach), tf.int32)
    high = tf.cast(tf.math.ceil(share * sampled + reach), tf.int32)
    low_rank = tf.where(low < 0, 0, sample[tf.maximum(low, 0)])
    high_rank = tf.where(high >= number, MAGNITUDE_BITS, sample[tf.minimum(high, number - 1)])
    low_rank, high_rank = _clip(tf.cast(low_rank, tf.int64)), _clip(tf.cast(high_rank, tf.int64))
    between = _count((sample >= low_rank) & (sample <= high_rank))
    return low_rank, high_rank, between > number // _SHARE_SORTED


def _clip(rank: tf.Tensor) -> tf.Tensor:
    """Returns an int64 rank as that of a number, an int32 in [0, infinity's]: NaN is found by sorting only."""
    return tf.cast(tf.clip_by_value(rank, 0, MAGNITUDE_BITS), tf.int32)
