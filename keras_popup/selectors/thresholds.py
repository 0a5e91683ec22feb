"""The exact top-k mask: counts, ties, one implementation for eager, graph and XLA.

The threshold is searched for by counting. One pass over the scores counts how many lie below each of four
candidates, whose places are interpolated from the counts so far; a handful of passes pins the k-th largest
down among millions. There is no sort and nothing whose shape depends on the data, so XLA compiles all of it,
also as a small program of its own inside a graph that is not compiled. Everything is integer arithmetic on
the bit patterns of float32: kernels that flush subnormal floats to zero, as TensorFlow's own and XLA's do,
thus cannot change the mask.

docs/performance.md tells how it works and what it costs.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from keras_popup.selectors import programs

INFINITY_BITS = 0x7F800000
MAGNITUDE_BITS = 0x7FFFFFFF
RANK_END = INFINITY_BITS + 2
INDEX_BITS = 31
_PART = 1 << 20  # scores that NumPy looks at at once

# A pass counts for four candidates at once: four counters of 8 bits share an int32, which holds for the 128
# scores that are added into one. XLA keeps sums over at most 32 in one loop; longer ones go through memory.
_CANDIDATES = 4
_COUNTER_BITS = 8
_BLOCK_SHAPE = (4, 32, 32)
_BLOCK = math.prod(_BLOCK_SHAPE)

# From a sample of so many runs of so many neighbours, of which all pairs are compared, the first candidates are
# the scores at these distances from the expected place, in its standard deviations; then the wider ones.
_SAMPLE_RUNS, _SAMPLE_RUN = 64, 8
_SAMPLE_LEAST = 1 << 13  # for fewer scores it costs more than the passes it saves
_DEVIATIONS = (-2.0, -0.6, 0.6, 2.0, -6.0, 6.0)

# From a known threshold, they are so many square roots of n away, in scores, if there were n in its octave. A step
# of training moves the threshold past some 10 of 235,200 scores, 300 of 4,194,304.
_ROOTS = (-0.25, 0.0, 0.0, 0.25, -16.0, 16.0)

# Which of both are just above a rank: scores of one value are then between two neighbours.
_UPPER = (0, 0, 1, 1, 0, 1)

# The first passes interpolate, the others cut the bracket in five whatever the counts are: all ranks in 14.
_GUIDED_PASSES = 8
_SETTLING_PASS = 6
_PASSES = _GUIDED_PASSES + 14


def count_kept_tensor(k: tf.Tensor, n: int) -> tf.Tensor:
    """Returns the same as `count_kept` for a float64 scalar tensor: an int32 scalar."""
    exact = tf.cast(k, tf.float64) * n
    whole = tf.math.floor(exact)
    half_up = whole + tf.cast(exact - whole >= 0.5, tf.float64)
    return tf.cast(tf.minimum(half_up, n), tf.int32)


def choose(scores: tf.Tensor, kept: tf.Tensor) -> tf.Tensor:
    """Tells which are the `kept` scores of largest magnitude.

    Args:
        scores: float32 tensor of any shape with 1 to 2**31 - 1 elements.
        kept: int32 scalar, in [1, n].

    Returns:
        bool tensor of the shape of `scores`, true exactly `kept` times. Of equal magnitudes the lower flat
        index (C order) wins; NaN ranks below every number.
    """
    if programs.use_numpy():
        return tf.constant(_partitioned(scores.numpy(), int(kept))[1])
    return is_above(scores, find_threshold(scores, kept))


def is_above(scores: tf.Tensor, threshold: tf.Tensor) -> tf.Tensor:
    """Tells which scores are at or above a threshold: bool tensor of their shape.

    Args:
        scores: float32 tensor of any shape with 1 to 2**31 - 1 elements.
        threshold: int64 scalar `rank * 2**31 + end`. A score is above it that has a higher rank, or the same
            rank and a flat index below `end`.
    """
    rank = tf.cast(tf.bitwise.right_shift(threshold, INDEX_BITS), tf.int32)
    end = tf.cast(tf.bitwise.bitwise_and(threshold, 2**INDEX_BITS - 1), tf.int32)
    ranks = _ranks(tf.reshape(scores, [-1]))
    index = tf.range(programs.static_size(scores))
    return tf.reshape((ranks > rank) | (tf.equal(ranks, rank) & (index < end)), scores.shape)


def find_threshold(scores: tf.Tensor, kept: tf.Tensor, hint: tf.Tensor | None = None) -> tf.Tensor:
    """Finds a threshold, as in `above`, that exactly `kept` scores are above.

    Args:
        scores: float32 tensor of any shape with 1 to 2**31 - 1 elements.
        kept: int32 scalar, in [1, n].
        hint: int64 scalar, any threshold. The search takes one pass where it is right, few where it nearly is.
    """
    size = programs.static_size(scores)
    flat = tf.reshape(scores, [-1])
    if programs.use_numpy():
        return tf.constant(_partitioned(flat.numpy(), int(kept))[0], tf.int64)
    left_out = size - kept
    low, high = tf.unstack(_search(flat, left_out, _guess(flat, left_out, hint))[1])
    end = _end_of_ties(flat, low[0], (high - low)[2:], high[1] - left_out)
    end = tf.where(tf.equal(low[1], left_out), size, end)
    return tf.cast(low[0], tf.int64) * 2**INDEX_BITS + tf.cast(end, tf.int64)


def _partitioned(scores: Any, kept: int) -> tuple[int, Any]:
    """Returns the threshold of an array of scores and what is above it, a bool array, in little memory."""

    def ranks(part: Any) -> Any:  # as `_ranks`
        magnitudes = part.view(np.int32) & MAGNITUDE_BITS
        return np.where(magnitudes > INFINITY_BITS, 0, magnitudes + 1).astype(np.int32, copy=False)

    flat = scores.ravel()
    place = flat.size - kept
    ordered = ranks(flat)
    ordered.partition(place)
    lowest = int(ordered[place])
    wanted = kept - int(np.count_nonzero(ordered[place:] > lowest))  # of those that are equal to it
    del ordered
    mask = np.empty(flat.size, bool)
    end = 0
    for first in range(0, flat.size, _PART):
        part = ranks(flat[first : first + _PART])
        ties = np.flatnonzero(part == lowest)[:wanted]
        mask[first : first + _PART] = part > lowest
        mask[first + ties] = True
        if wanted and ties.size:
            wanted -= ties.size
            end = first + int(ties[-1]) + 1
    return lowest * 2**INDEX_BITS + end, mask.reshape(scores.shape)


def _guess(flat: tf.Tensor, left_out: tf.Tensor, hint: tf.Tensor | None) -> tf.Tensor | None:
    """Returns where to count first, as `near` does, or None to begin with all ranks."""
    if hint is not None:
        return near(hint, programs.static_size(flat))
    return _sampled(flat, left_out) if programs.static_size(flat) >= _SAMPLE_LEAST else None


def near(hint: tf.Tensor, size: int) -> tf.Tensor:
    """Returns ranks around that of a threshold, int32 `(6,)`: candidates for the first pass, two for the second."""
    around = [round(roots * 2**23 / math.sqrt(size)) for roots in _ROOTS]
    rank = tf.bitwise.right_shift(hint, INDEX_BITS)
    ranks = rank + tf.constant(around, tf.int64) + tf.constant(_UPPER, tf.int64)
    return tf.cast(tf.clip_by_value(ranks, 0, RANK_END), tf.int32)


def _sampled(flat: tf.Tensor, left_out: tf.Tensor) -> tf.Tensor:
    """Returns the same as `near` from a sample. Only time depends on how well the sample does."""
    size = programs.static_size(flat)
    stride = size // _SAMPLE_RUNS
    runs = tf.reshape(flat[: _SAMPLE_RUNS * stride], [_SAMPLE_RUNS, stride])[:, :_SAMPLE_RUN]
    sample = _ranks(runs)
    below = tf.reduce_sum(tf.cast(sample[:, None, None, :] < sample[None, :, :, None], tf.int32), [0, 3])
    sampled = _SAMPLE_RUNS * _SAMPLE_RUN
    expected = tf.cast(left_out, tf.float64) * (sampled / size)
    deviation = 0.5 + tf.sqrt(expected * (1.0 - expected / sampled))
    wanted = expected + deviation * tf.constant(_DEVIATIONS, tf.float64)
    at = tf.cast(below, tf.float64) <= wanted[:, None, None]
    return tf.reduce_max(tf.where(at, sample, 0), [1, 2]) + tf.constant(_UPPER)


def _search(flat: tf.Tensor, left_out: tf.Tensor, guess: tf.Tensor | None) -> tuple[tf.Tensor, tf.Tensor]:
    """Narrows a bracket of ranks around the lowest one that is kept.

    Returns:
        (passes, ends): how many passes it took, and int32 `(2, 2 + blocks)`, the lower and the upper end of the
        bracket: a rank, how many scores lie below it, and how many do in each block of scores. Either the lower
        end leaves out what is wanted, or it leaves out less, the upper end more, and no rank is between them.
    """
    size = programs.static_size(flat)
    parts = _parts(flat)
    blocks = -(-size // _BLOCK)
    sizes = [_BLOCK] * (blocks - 1) + [size - _BLOCK * (blocks - 1)]
    ends = tf.constant([[0] * (2 + blocks), [RANK_END, size, *sizes]])

    def count(candidates: tf.Tensor, number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        counts = _count(parts, candidates, number)
        return tf.reduce_sum(counts, axis=1), counts

    return narrow(count, ends, left_out, guess)


def narrow(
    count: Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]],
    ends: tf.Tensor,
    left_out: tf.Tensor,
    guess: tf.Tensor | None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Narrows a bracket of ranks, as `_search` does, by any count that does not fall with the rank.

    Args:
        count: function that takes four ranks and the number of the pass, and returns how many scores each of them
            leaves out, int32 `(4,)`, and what is kept of the counts at the ends of the bracket, int32 `(4, m)`.
        ends: int32 `(2, 2 + m)`, the bracket to begin with.
        left_out: int32 scalar, how many scores are to be left out.
        guess: where to count first, or None.
    """
    first = _candidates(tf.constant(0), ends, left_out, guess)
    early_end = not tf.config.get_visible_devices("GPU")  # where asking for it would make the host wait

    def unfinished(number: tf.Tensor, candidates: tf.Tensor, ends: tf.Tensor) -> tf.Tensor:
        unsure = (ends[1, 0] - ends[0, 0] > 1) & tf.not_equal(ends[0, 1], left_out)
        return unsure if early_end else number < _PASSES

    def count_once(number: tf.Tensor, candidates: tf.Tensor, ends: tf.Tensor) -> tuple[tf.Tensor, ...]:
        totals, counts = count(candidates, number)
        found = tf.concat([candidates[:, None], totals[:, None], counts], axis=1)
        under = tf.reduce_sum(tf.cast(totals <= left_out, tf.int32))
        # Not by slicing: XLA would compile the program anew for each place.
        ends = tf.gather(tf.concat([ends[:1], found, ends[1:]], axis=0), [under, under + 1])
        # Made here rather than in the pass that uses them, where XLA would do so for each score.
        return number + 1, _candidates(number + 1, ends, left_out, guess), ends

    passes, _, ends = tf.while_loop(unfinished, count_once, (tf.constant(0), first, ends))
    return passes, ends


def _candidates(number: tf.Tensor, ends: tf.Tensor, left_out: tf.Tensor, guess: tf.Tensor | None) -> tf.Tensor:
    """Returns the ranks to count for in a pass, int32 `(4,)`, ascending, inside the bracket if it has an inside."""
    low, high = ends[0, 0], ends[1, 0]
    inside = tf.cast(ends[1, 1] - ends[0, 1], tf.float64)
    # Of numbers spread evenly the wanted one is here, give or take the deviation of an order statistic. As they
    # are not spread evenly, the outer candidates leave more room.
    place = tf.minimum((tf.cast(left_out - ends[0, 1], tf.float64) + 0.5) / inside, 1.0)
    deviation = tf.sqrt(place * (1.0 - place) / inside + 0.1 / (inside * inside))
    room = 2.0 * deviation + 0.02
    places = tf.stack([place - room, place - 0.6 * deviation, place + 0.6 * deviation, place + room])
    places = tf.clip_by_value(places, 0.0, 1.0)
    # Scores are spread more evenly than the logarithms that their ranks are.
    bits = tf.clip_by_value(ends[:, 0] - 1, 0, INFINITY_BITS - 1)
    values = tf.cast(tf.bitcast(bits, tf.float32), tf.float64)
    values = tf.cast(values[0] + places * (values[1] - values[0]), tf.float32)
    candidates = tf.bitcast(values, tf.int32) + 1
    fifths = low + tf.cast(tf.constant([0.2, 0.4, 0.6, 0.8], tf.float64) * tf.cast(high - low, tf.float64), tf.int32)
    candidates = tf.where((number < _GUIDED_PASSES) & (high < RANK_END), candidates, fifths)
    if guess is not None:
        missed = (low < guess[0]) | (high > guess[3])
        wider = tf.concat([guess[4:5], tf.clip_by_value(candidates[1:3], guess[4], guess[5]), guess[5:]], axis=0)
        candidates = tf.where(tf.equal(number, 1) & missed, wider, candidates)
        candidates = tf.where(tf.equal(number, 0), guess[:4], candidates)
    # Scores of few values, or with a gap here, are settled by the neighbours of the bracket's ends.
    settling = tf.concat([[low + 1], candidates[1:3], [high - 1]], axis=0)
    candidates = tf.where(tf.equal(number, _SETTLING_PASS), settling, candidates)
    # Below the end, as what fills the last block up is infinite.
    return tf.minimum(tf.clip_by_value(candidates, low + 1, tf.maximum(high - 1, low + 1)), RANK_END - 1)


def _end_of_ties(flat: tf.Tensor, rank: tf.Tensor, ties: tf.Tensor, kept: tf.Tensor) -> tf.Tensor:
    """Returns the flat index before which `kept` scores have this rank; `ties` tells how many in each block."""
    size = programs.static_size(flat)
    block, before = _locate(ties, kept)
    start = block * _BLOCK
    places = tf.range(min(_BLOCK, size))
    ranks = _ranks(tf.gather(flat, start + tf.minimum(places, size - 1 - start)))
    flags = tf.cast(tf.equal(ranks, rank) & (places < size - start), tf.int32)
    return start + _locate(flags, kept - before)[0] + 1


def _locate(counts: tf.Tensor, wanted: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns where the running sum of `counts` reaches `wanted`, and the sum before it.

    In two steps over rows of a square, as a running sum takes XLA the square of the length.
    """

    def step(counts: tf.Tensor, wanted: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        index = tf.range(side)
        sums = tf.reduce_sum(tf.where(index[None, :] <= index[:, None], counts[None, :], 0), axis=1)
        at = tf.minimum(tf.reduce_sum(tf.cast(sums < wanted, tf.int32)), side - 1)
        return at, tf.reduce_sum(tf.where(index < at, counts, 0))

    length = programs.static_size(counts)
    side = math.isqrt(length - 1) + 1
    square = tf.reshape(tf.pad(counts, [[0, side * side - length]]), [side, side])
    row, before_row = step(tf.reduce_sum(square, axis=1), wanted)
    column, before = step(tf.gather(square, row), wanted - before_row)
    return tf.minimum(row * side + column, length - 1), before_row + before


def _count(parts: list[tf.Tensor], candidates: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
    """Returns how many scores rank below each of the four candidates, int32 `(4, blocks)`, in one pass."""
    shifts = range(0, _CANDIDATES * _COUNTER_BITS, _COUNTER_BITS)
    counts = []
    for part in parts:
        # Always the scores themselves, but XLA cannot know: it would store all ranks before the loop.
        ranks = _ranks(tf.where(number < 0, 0.0, part))
        each = zip(shifts, tf.unstack(candidates), strict=True)
        packed = tf.add_n([tf.where(ranks < candidate, 1 << shift, 0) for shift, candidate in each])
        columns = tf.bitwise.right_shift(tf.reduce_sum(packed, axis=[1, 2]), tf.constant(list(shifts))[:, None, None])
        counts.append(tf.reduce_sum(columns & (2**_COUNTER_BITS - 1), axis=2))
    return tf.concat(counts, axis=1)


def make_counter(flat: tf.Tensor) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """Returns a function that takes four ranks and the number of a pass, and counts the scores below: int32 `(4,)`."""
    parts = _parts(flat)
    return lambda candidates, number: tf.reduce_sum(_count(parts, candidates, number), axis=1)


def _parts(flat: tf.Tensor) -> list[tf.Tensor]:
    """Returns the elements in blocks `(blocks, 4, 32, 32)`: all whole ones, and the rest filled up with infinity."""
    size = programs.static_size(flat)
    rest = size % _BLOCK
    parts = []
    if size > rest:
        parts.append(tf.reshape(flat[: size - rest], [-1, *_BLOCK_SHAPE]))
    if rest:
        last = tf.pad(flat[size - rest :], [[0, _BLOCK - rest]], constant_values=math.inf)
        parts.append(tf.reshape(last, [1, *_BLOCK_SHAPE]))
    return parts


def _ranks(scores: tf.Tensor) -> tf.Tensor:
    """Returns int32 in [0, RANK_END) that order like the magnitudes: NaN 0, zero 1, infinity the largest."""
    magnitude = tf.bitwise.bitwise_and(tf.bitcast(scores, tf.int32), MAGNITUDE_BITS)
    return tf.where(magnitude > INFINITY_BITS, 0, magnitude + 1)
