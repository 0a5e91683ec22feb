"""The exact choice of the best scores of several kernels together: one threshold for each of them.

With scores s of G kernels, multipliers a, floors f and `kept` in all, the keys are |a_i * s| and

    kept_i = max(f_i, how many keys of kernel i are above T),  T such that the sum of all kept_i is `kept`

Each kernel keeps its `kept_i` largest keys. So every kernel keeps its f_i largest, and the rest goes to the largest of
all. The scores are never put together in one tensor: they are counted kernel by kernel, in one of three ways, as in
`plain.py`, in `thresholds.py` or by NumPy. All ways find the same T.

The threshold of most kernels is T. A kernel that keeps its floor, and one of whose keys at T only some are kept, has
one of its own, which is found as that of a single kernel.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from keras_popup.selectors import plain, programs, thresholds
from keras_popup.selectors.thresholds import INDEX_BITS, INFINITY_BITS, MAGNITUDE_BITS, RANK_END

_DIGIT = 16  # bits of a rank that NumPy counts at once

_Counts = tuple[tf.Tensor, tf.Tensor, tf.Tensor]
"""The rank of T, and for each kernel how many keys are above it and how many at it."""


def find_thresholds(
    scores: list[tf.Tensor], multipliers: tuple[float, ...], floors: tf.Tensor, kept: tf.Tensor, hints: tf.Tensor
) -> tuple[list[tf.Tensor], tf.Tensor]:
    """Finds the thresholds of kernels that exactly `kept` of all their scores are above.

    Args:
        scores: list of G float32 tensors, each of a known shape, with less than 2**31 elements in all.
        multipliers: G floats, each 1 or more, of which no product with a score is below that score.
        floors: int32 tensor of shape (G,), from 1 to the number of scores of a kernel; `kept` or less in all.
        kept: int32 scalar, how many scores are kept in all.
        hints: int64 tensor of shape (G + 1,), any numbers, best those of nearly the same scores. Only time depends on
            them.

    Returns:
        (thresholds, next hints). A threshold is an int64 scalar for `is_above`.
    """
    flat = [tf.reshape(each, [-1]) for each in scores]
    *found, next_hints = programs.trace_once(_find, multipliers)(*flat, floors, kept, hints)
    return found, next_hints


def choose_above(scores: tf.Tensor, threshold: tf.Tensor, hint: Any, multiplier: float) -> tuple[tf.Tensor, Any]:
    """Tells which of a kernel's scores are above its threshold.

    Args:
        scores: float32 tensor of shape (n,).
        threshold: int64 scalar, of `find_thresholds`.
        hint: returned as it is.
        multiplier: float, as there.

    Returns:
        (bool tensor, hint).
    """
    if programs.use_numpy() or programs.is_compiling():
        return thresholds.is_above(_make_keys(scores, multiplier), threshold), hint
    ranks = _rank(scores, multiplier)
    rank = tf.cast(tf.bitwise.right_shift(threshold, INDEX_BITS), tf.int32)
    end = tf.cast(tf.bitwise.bitwise_and(threshold, 2**INDEX_BITS - 1), tf.int32)
    # The lowest and the highest rank of `plain.py` that is this one: those of NaN are all negative numbers.
    lowest, highest = (tf.where(rank < 1, of_nan, rank + (plain.OFFSET - 1)) for of_nan in (tf.int32.min, -1))
    none, whole = end <= 0, end >= tf.size(ranks)

    def cut_ties() -> tf.Tensor:
        return tf.concat([ranks[:end] >= lowest, ranks[end:] > highest], 0)

    above = tf.cond(none | whole, lambda: ranks >= tf.where(none, highest + 1, lowest), cut_ties)
    return tf.ensure_shape(above, ranks.shape), hint


def _bits(scores: tf.Tensor, multiplier: float) -> tf.Tensor:
    """Returns the bits of keys, int32. What subnormal scores give counts as 0.

    Some programs flush subnormal numbers to zero, and others do not. So keys below that of the smallest normal score
    are all raised to it.
    """
    scaled = scores if multiplier == 1 else scores * np.float32(multiplier)
    least = (np.finfo(np.float32).tiny * np.float32(multiplier)).view(np.int32)
    return tf.maximum(tf.bitwise.bitwise_and(tf.bitcast(scaled, tf.int32), MAGNITUDE_BITS), least)


def _make_keys(scores: tf.Tensor, multiplier: float) -> tf.Tensor:
    return tf.bitcast(_bits(scores, multiplier), tf.float32)


def _rank(scores: tf.Tensor, multiplier: float) -> tf.Tensor:
    """Returns the ranks of keys as `plain.rank_scores` does."""
    return _bits(scores, multiplier) + plain.OFFSET


def _find(multipliers: tuple[float, ...], *tensors: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """Returns the thresholds of kernels, and then the next hints."""
    *scores, floors, kept, hints = tensors
    pairs = list(zip(scores, multipliers, strict=True))
    if programs.use_numpy() or programs.is_compiling():
        keys = [_make_keys(*pair) for pair in pairs]
        if programs.use_numpy():
            counts = _count_by_numpy(keys, floors.numpy(), int(kept))
        else:
            counts = _count_by_passes(keys, floors, kept, hints[0])
        of_each = _allot(floors, kept, *counts[1:])
        rank = tf.cast(counts[0], tf.int64)

        def find_own(number: int) -> tuple[tf.Tensor, tf.Tensor]:
            found = thresholds.find_threshold(keys[number], of_each[number], hints[number + 1])
            return found, found

        return _list_thresholds(keys, rank, rank * 2**INDEX_BITS, of_each, *counts[1:], find_own)
    ranks = [_rank(*pair) for pair in pairs]
    counts = _count_by_brackets(ranks, floors, kept, hints[0])
    of_each = _allot(floors, kept, *counts[1:])
    rank = tf.cast(counts[0], tf.int64)

    def find_plainly(number: int) -> tuple[tf.Tensor, tf.Tensor]:
        # One function for all kernels: a copy for each would take long to prepare.
        own: tuple[tf.Tensor, tf.Tensor] = programs.trace_once(_find_of_one)(
            ranks[number], of_each[number], hints[number + 1]
        )
        return own

    tied = tf.reduce_sum(counts[2]) > plain.count_sorted(tf.add_n([tf.size(each) for each in ranks]))
    hint = tf.where(tied, tf.cast(plain.TIED, tf.int64), rank)
    return _list_thresholds(ranks, _convert_rank(rank), hint, of_each, *counts[1:], find_plainly)


def _find_of_one(ranks: tf.Tensor, kept: tf.Tensor, hint: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the threshold of one kernel and the next hint, by plain operations."""
    found = plain.find_threshold(ranks, kept, hint)
    end = tf.where(found.whole, tf.size(ranks), found.end)
    return _convert_rank(tf.cast(found.rank, tf.int64)) * 2**INDEX_BITS + tf.cast(end, tf.int64), found.hint


def _convert_rank(rank: tf.Tensor) -> tf.Tensor:
    """Returns the rank of `thresholds.py` for one of `plain.py`."""
    return tf.where(rank < 0, tf.zeros_like(rank), rank - (plain.OFFSET - 1))


def _list_thresholds(
    keys: list[tf.Tensor],
    rank: tf.Tensor,
    hint: tf.Tensor,
    of_each: tf.Tensor,
    above: tf.Tensor,
    ties: tf.Tensor,
    find: Callable[[int], tuple[tf.Tensor, tf.Tensor]],
) -> tuple[tf.Tensor, ...]:
    """Returns the thresholds of kernels, at `rank` or else of `find`, and then the next hints."""
    found, hints = [], [hint]
    for number, each in enumerate(keys):
        kept, until = of_each[number], above[number] + ties[number]

        def at_rank(each: tf.Tensor = each, kept: tf.Tensor = kept, until: tf.Tensor = until) -> Any:
            end = tf.where(tf.equal(kept, until), tf.size(each), 0)
            return rank * 2**INDEX_BITS + tf.cast(end, tf.int64), hint

        own, next_hint = tf.cond(
            tf.equal(kept, until) | tf.equal(kept, above[number]), at_rank, lambda number=number: find(number)
        )
        found.append(own)
        hints.append(next_hint)
    return *found, tf.stack(hints)


def _allot(floors: tf.Tensor, kept: tf.Tensor, above: tf.Tensor, ties: tf.Tensor) -> tf.Tensor:
    """Returns how many scores each kernel keeps. Of equal keys, those of earlier kernels are kept."""
    sure = tf.maximum(floors, above)
    spare = tf.maximum(above + ties - sure, 0)
    wanted = kept - tf.reduce_sum(sure)
    return sure + tf.clip_by_value(wanted - tf.cumsum(spare, exclusive=True), 0, spare)


# By counting, for XLA


def _count_by_passes(keys: list[tf.Tensor], floors: tf.Tensor, kept: tf.Tensor, hint: tf.Tensor) -> _Counts:
    sizes = [programs.static_size(each) for each in keys]
    size = sum(sizes)
    counters = [thresholds.make_counter(each) for each in keys]

    def count(candidates: tf.Tensor, number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        below = tf.stack([counter(candidates, number) for counter in counters], axis=1)
        return size - tf.reduce_sum(tf.maximum(floors, tf.constant(sizes) - below), axis=1), below

    most = size - tf.reduce_sum(floors)
    ends = tf.stack([tf.zeros(2 + len(sizes), tf.int32), tf.concat([[RANK_END, most], tf.constant(sizes)], 0)])
    left_out = size - kept
    low, high = tf.unstack(thresholds.narrow(count, ends, left_out, thresholds.near(hint, size))[1])
    # If the lower end leaves out what is wanted, T is right below it, where no key need be.
    exact = tf.equal(low[1], left_out)
    rank = tf.where(exact, tf.maximum(low[0] - 1, 0), low[0])
    ties = tf.where(exact, tf.zeros_like(floors), high[2:] - low[2:])
    return rank, tf.constant(sizes) - tf.where(exact, low[2:], high[2:]), ties


# By NumPy


def _count_by_numpy(keys: list[tf.Tensor], floors: NDArray[np.int32], kept: int) -> _Counts:
    bits = [each.numpy().view(np.int32) for each in keys]
    ranks = [np.where(each > INFINITY_BITS, 0, each + 1).astype(np.int32, copy=False) for each in bits]
    above, rank, ties = np.zeros(len(keys), np.int64), 0, np.zeros(len(keys), np.int64)
    for shift, bins in ((_DIGIT, 2 ** (31 - _DIGIT)), (0, 2**_DIGIT)):
        digits = [each >> shift for each in ranks]
        counts = np.stack([np.bincount(each, minlength=bins) for each in digits])
        higher = above[:, None] + counts[:, ::-1].cumsum(1)[:, ::-1] - counts
        # If the floors are all that is kept, T is above everything.
        digit = min(int(np.count_nonzero(np.maximum(floors[:, None], higher).sum(0) >= kept)), bins - 1)
        above, ties, rank = higher[:, digit], counts[:, digit], rank * 2**_DIGIT + digit
        ranks = [each[high == digit] & (2**_DIGIT - 1) for each, high in zip(ranks, digits, strict=True)]
    return tf.constant(rank), tf.constant(above, tf.int32), tf.constant(ties, tf.int32)


# By TensorFlow's own operations


def _count_by_brackets(ranks: list[tf.Tensor], floors: tf.Tensor, kept: tf.Tensor, hint: tf.Tensor) -> _Counts:
    size = tf.add_n([tf.size(each) for each in ranks])

    def by_sorting() -> _Counts:
        bounded = [tf.maximum(each, -1) for each in ranks]  # all NaN are equal
        above = tf.zeros_like(floors)
        pool, wanted = _sort_pool(bounded, above, floors, kept)
        return _count_at(bounded, above, _pick(pool, wanted))

    def by_sample() -> _Counts:
        bracket = _bracket_by_sample(ranks, floors, kept)
        return _look_inside(ranks, floors, kept, *bracket, lambda: _count_by_histograms(ranks, floors, kept))

    def anew() -> _Counts:
        found: _Counts = tf.cond(size > plain.MOST_SORTED, by_sample, by_sorting)
        return found

    return _look_inside(ranks, floors, kept, *plain.bracket_by_hint(hint, size), anew)


def _look_inside(
    ranks: list[tf.Tensor],
    floors: tf.Tensor,
    kept: tf.Tensor,
    low: tf.Tensor,
    width: tf.Tensor,
    otherwise: Callable[[], _Counts],
) -> _Counts:
    """Returns the counts at a T that is one of few ranks in [low, low + width], else `otherwise()`."""
    above = tf.stack([plain.count(each > low + width) for each in ranks])
    places = [tf.where(tf.bitcast(each - low, tf.uint32) <= tf.bitcast(width, tf.uint32))[:, 0] for each in ranks]
    number = tf.add_n([tf.size(each) for each in places])
    few = number <= plain.count_sorted(tf.add_n([tf.size(each) for each in ranks]))
    wanted = kept - tf.reduce_sum(tf.maximum(floors, above))

    def inside() -> tuple[tf.Tensor, ...]:
        chosen = [tf.gather(each, place) for each, place in zip(ranks, places, strict=True)]
        pool, _ = _sort_pool(chosen, above, floors, kept)
        found = wanted <= tf.size(pool)
        return found, *_count_at(chosen, above, _pick(pool, tf.where(found, wanted, 0)))

    def outside() -> tuple[tf.Tensor, ...]:
        return tf.constant(False), tf.constant(0), tf.zeros_like(above), tf.zeros_like(above)

    found, *counts = tf.cond(few & (wanted >= 1) & (wanted <= number), inside, outside)
    result: _Counts = tf.cond(found, lambda: tuple(counts), otherwise)
    return result


def _sort_pool(
    ranks: list[tf.Tensor], above: tf.Tensor, floors: tf.Tensor, kept: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the ranks that compete, sorted from the largest, and which of them is wanted.

    A kernel with too few ranks above all these keeps its largest of these in any case: they do not compete.
    """
    sure = tf.maximum(floors, above)
    competing = [
        tf.sort(each, direction="DESCENDING")[first:]
        for each, first in zip(ranks, tf.unstack(sure - above, len(ranks)), strict=True)
    ]
    return tf.sort(tf.concat(competing, 0), direction="DESCENDING"), kept - tf.reduce_sum(sure)


def _pick(pool: tf.Tensor, wanted: tf.Tensor) -> tf.Tensor:
    """Returns the rank that is the `wanted`-th largest, and the largest there is for 0: floors are all that is kept."""
    return tf.concat([[tf.int32.max], pool], 0)[tf.maximum(wanted, 0)]


def _count_at(ranks: list[tf.Tensor], above: tf.Tensor, rank: tf.Tensor) -> _Counts:
    higher = tf.stack([plain.count(each > rank) for each in ranks])
    return rank, above + higher, tf.stack([plain.count(tf.equal(each, rank)) for each in ranks])


def _bracket_by_sample(ranks: list[tf.Tensor], floors: tf.Tensor, kept: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns (low, width) of the ranks that T is likely between."""
    size = tf.add_n([tf.size(each) for each in ranks])
    number = tf.clip_by_value(size // plain.SHARE_SAMPLED, plain.SAMPLE, plain.MOST_SAMPLED)
    stride = tf.maximum(size // number, 1)
    samples = [tf.maximum(each[::stride], -1) for each in ranks]
    zeros = tf.zeros_like(floors)
    pool, wanted = _sort_pool(samples, zeros, floors // stride, kept // stride)
    sampled, share = tf.cast(size // stride, tf.float64), tf.cast(kept, tf.float64) / tf.cast(size, tf.float64)
    reach = plain.DEVIATIONS * (0.5 + tf.sqrt(share * (1 - share) * sampled))
    # A floor is rounded by up to 1, in each kernel.
    reach = tf.cast(tf.math.ceil(reach), tf.int32) + len(ranks)
    low, high, last = wanted + reach, wanted - reach, tf.size(pool) - 1
    padded = tf.concat([pool, [0]], 0)
    low_rank = tf.where(low > last, 0, padded[tf.clip_by_value(low, 0, last + 1)])
    high_rank = tf.where(high < 0, MAGNITUDE_BITS, padded[tf.clip_by_value(high, 0, last + 1)])
    low_rank, high_rank = (plain.clip_rank(tf.cast(each, tf.int64)) for each in (low_rank, high_rank))
    is_tied = plain.count((pool >= low_rank) & (pool <= high_rank)) > number // plain.SHARE_SORTED
    return tf.where(is_tied, MAGNITUDE_BITS, low_rank), tf.where(is_tied, 0, tf.maximum(high_rank - low_rank, 0))


def _count_by_histograms(ranks: list[tf.Tensor], floors: tf.Tensor, kept: tf.Tensor) -> _Counts:
    """Returns the counts at T for any scores: the bits of its rank, eleven, ten and ten."""
    bounded = [tf.maximum(each, -1) for each in ranks]  # all NaN are equal
    digits = [tf.bitwise.right_shift(each, 20) + 1 for each in bounded]
    above, rank, bins = tf.zeros_like(floors), tf.constant(-(2**20)), 2**11 + 1
    for shift in (20, 10, 0):
        counts = [tf.math.bincount(each, minlength=bins, maxlength=bins, dtype=tf.int32) for each in digits]
        table = tf.stack(counts)
        higher = above[:, None] + tf.cumsum(table, axis=1, exclusive=True, reverse=True)
        digit = plain.count(tf.reduce_sum(tf.maximum(floors[:, None], higher), axis=0) >= kept)
        digit = tf.minimum(digit, bins - 1)  # if the floors are all that is kept, T is above everything
        above, ties, rank, bins = higher[:, digit], table[:, digit], rank + digit * 2**shift, 2**10
        if shift:
            # 2**10 is not counted.
            digits = [
                tf.where(tf.equal(last, digit), _get_digit(each, shift - 10), 2**10)
                for each, last in zip(bounded, digits, strict=True)
            ]
    return rank, above, ties


def _get_digit(ranks: tf.Tensor, shift: int) -> tf.Tensor:
    return tf.bitwise.bitwise_and(tf.bitwise.right_shift(ranks, shift), 2**10 - 1)
