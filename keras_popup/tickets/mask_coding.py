"""The coding of masks: entropy coding that uses the initial scores and weights of a kernel.

Of a random mask, only its number of kept weights is known. So it takes log2 C(n, kept) bits. A trained mask takes less:
its scores started at values that follow from the seed, and training has changed most of them little. So weights with a
large initial score are mostly kept. How much training has changed the scores depends on the row, channel and position.
The coder gives every weight a context: its initial score, and labels of its indices along the axes of the kernel. It
codes the weights of each context with their own probability. docs/ticket-format.md describes the bytes.
"""

import math
import zlib
from collections.abc import Iterator
from typing import Any

import constriction
import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Codes = NDArray[np.int8]
Bools = NDArray[np.bool_]

BLOCK = 1 << 20  # the number of weights that are coded at once
START_BINS = 64  # bins of the magnitude of the initial score
WEIGHT_BINS = 32  # 16 bins of the magnitude of positive weights, then 16 of negative weights
LARGEST_LABEL = 7
GROUPS = 2 * LARGEST_LABEL + 1

ALL_DROPPED, ALL_KEPT = -128, 127
"""The codes of contexts whose weights are all dropped or all kept. Such weights take no bits."""

_ONE = 1 << 24  # a probability p is the integer p * _ONE
_CODES = np.arange(ALL_DROPPED + 1, ALL_KEPT)
PROBABILITIES = np.round(_ONE / (1.0 + np.exp(-_CODES / 12.0))).astype(np.int64)
"""For each code from -127 to 126, the probability that a weight is kept. Codes are logits in steps of 1/12."""

_NO_STARTS, _STARTS = b"\0", b"\1"

# Parameters of the encoder. A decoder does not need them. So a better model of masks does not change the format.
_LABEL_STEP = 0.5  # the step of labels: of the logarithm of a factor of the logits, or of the logits themselves
_LABEL_BITS = 4.0  # the bits that a label other than 0 must save
_CODE_BITS = 6.0  # the bits that a code other than its neighbour's must save


class CodingError(ValueError):
    """Bytes that no encoder has written."""


def start_bins(scores: NDArray[np.float32]) -> Bytes:
    """Returns the bins of initial scores, flat, in [0, START_BINS)."""
    return _find_magnitude_bins(scores.ravel(), START_BINS)


def weight_bins(weights: NDArray[np.float32]) -> Bytes:
    """Returns the bins of the values of weights, flat, in [0, WEIGHT_BINS)."""
    flat = weights.ravel()
    bins = _find_magnitude_bins(flat, WEIGHT_BINS // 2)
    bins += (flat < 0).astype(np.uint8) * np.uint8(WEIGHT_BINS // 2)
    return bins


def _find_magnitude_bins(values: NDArray[np.float32], bins: int) -> Bytes:
    """Returns min(floor(bins * |v| / max |v|), bins - 1) for each value v, computed in float32."""
    result = np.zeros(values.size, np.uint8)
    largest = np.float32(max(values.max(initial=0), -values.min(initial=0)))
    if largest > 1e-30:
        scale = np.float32(bins) / largest
        for block in _split_into_blocks(values.size):
            result[block] = np.minimum(np.abs(values[block]) * scale, np.float32(bins - 1)).astype(np.uint8)
    return result


def encode(
    mask: Bytes, starts: Bytes | None = None, weights: Bytes | None = None, free: Bools | None = None
) -> tuple[bytes, bytes]:
    """Encodes a mask. It tries several models of the mask, and uses the one with the fewest bytes.

    Args:
        mask: uint8 array of the kernel's shape, 0 or 1.
        starts: the result of `start_bins`, or None if the initial scores are not known.
        weights: the result of `weight_bins`, or None if the weights are not known.
        free: bool array, flat: which weights are coded, at least one; the mask must be 0 for the others. None: all.

    Returns:
        (tables, stream). `tables` is the model of the mask, or b"" if one probability serves all weights. `stream`
        is the coded mask.
    """
    flat, kept = mask.ravel(), int(mask.sum(dtype=np.int64))
    size = _count_free(mask.size, free)
    shortest, tables, groups = _compute_entropy(size, kept), b"", None
    if 0 < kept < size:
        choices = [starts, None] if starts is not None else [None]
        for bins in choices:
            counts = _count(flat, bins, None, free)
            no_labels = [np.zeros(size, np.int8) for size in _list_label_sizes(mask.shape, weights)]
            for labels in (no_labels, _choose_labels(mask, bins, weights, counts, free)):
                candidate = _find_groups(mask.shape, labels, weights)
                table, bits = _choose_codes(_count(flat, bins, candidate, free))
                packed = deflate((_NO_STARTS if bins is None else _STARTS) + _join_tables(*labels, table))
                if bits + 8 * len(packed) < shortest:
                    shortest, tables, groups = bits + 8 * len(packed), packed, candidate
            if tables:
                break  # a model without initial scores would not be shorter
    codes: Codes | None = None
    if tables:
        starts, _, codes = _read_tables(tables, mask.shape, starts, weights)
    else:
        starts = None
    coder = constriction.stream.stack.AnsCoder()
    for block in reversed([*_split_into_blocks(mask.size)]):
        order, runs = _sort_block(block, starts, groups, codes, free)
        ordered = flat[block] if order is None else flat[block][order]
        end = ordered.size
        for code, count in reversed(runs):
            model = _make_model(code, kept, size)
            if model is not None:
                coder.encode_reverse(ordered[end - count : end].astype(np.int32), model)
            end -= count
    return tables, coder.get_compressed().astype("<u4").tobytes()


def decode(
    tables: bytes,
    stream: bytes,
    shape: tuple[int, ...],
    kept: int,
    starts: Bytes | None,
    weights: Bytes | None,
    free: Bools | None = None,
) -> Bytes:
    """Decodes a mask: the inverse of `encode`.

    Args:
        tables: bytes from `encode`.
        stream: bytes from `encode`.
        shape: the shape of the mask.
        kept: int, the number of weights that the mask keeps.
        starts: as for `encode`.
        weights: as for `encode`.
        free: as for `encode`.

    Returns:
        uint8 array of the shape, 0 or 1.

    Raises:
        CodingError: if `encode` did not write these bytes, for this shape and number.
    """
    size = math.prod(shape)
    codes: Codes | None = None
    groups: Bytes | None = None
    if tables:
        starts, labels, codes = _read_tables(tables, shape, starts, weights)
        groups = _find_groups(shape, labels, weights)
    else:
        starts = None
    if len(stream) % 4:
        raise CodingError(f"its stream has {len(stream)} bytes, which is not a multiple of 4")
    try:
        coder = constriction.stream.stack.AnsCoder(np.frombuffer(stream, "<u4").astype(np.uint32))
    except ValueError as error:
        raise CodingError(f"its stream cannot be read: {error}") from None
    mask = np.zeros(size, np.uint8)
    free_size = _count_free(size, free)
    for block in _split_into_blocks(size):
        order, runs = _sort_block(block, starts, groups, codes, free)
        parts: list[Any] = []
        for code, count in runs:
            model = _make_model(code, kept, free_size)
            all_kept = kept > 0 if code is None else code == ALL_KEPT
            parts.append(np.full(count, all_kept, np.uint8) if model is None else coder.decode(model, count))
        if order is None:
            mask[block] = parts[0]
        elif parts:
            mask[block][order] = np.concatenate(parts)
    if not coder.is_empty():
        raise CodingError("its stream has more data than its mask needs")
    if (count := int(mask.sum(dtype=np.int64))) != kept:
        raise CodingError(f"its mask keeps {count:,} weights, not {kept:,}")
    return mask.reshape(shape)


def _count_free(size: int, free: Bools | None) -> int:
    return size if free is None else int(np.count_nonzero(free))


def deflate(content: bytes) -> bytes:
    """Compresses bytes to a raw deflate stream (RFC 1951)."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15, 9)
    return compressor.compress(content) + compressor.flush()


def inflate(compressed: bytes, size: int) -> bytes:
    """Decompresses a raw deflate stream (RFC 1951) to exactly `size` bytes. It takes no memory for more.

    Raises:
        CodingError: if the bytes are not such a stream.
    """
    decompressor = zlib.decompressobj(-15)
    try:
        content = decompressor.decompress(compressed, size + 1)
    except zlib.error as error:
        raise CodingError(f"it cannot be decompressed: {error}") from None
    if len(content) != size or not decompressor.eof or decompressor.unused_data:
        raise CodingError(f"it does not decompress to {size:,} bytes")
    return content


def _split_into_blocks(size: int) -> Iterator[slice]:
    return (slice(first, min(first + BLOCK, size)) for first in range(0, size, BLOCK))


def _compute_entropy(size: int, kept: int) -> float:
    """Returns the number of bits of `size` weights if each is coded with the probability kept / size."""
    if not 0 < kept < size:
        return 0.0
    return -(kept * math.log2(kept / size) + (size - kept) * math.log2(1 - kept / size))


def _list_label_sizes(shape: tuple[int, ...], weights: Bytes | None) -> list[int]:
    """Returns the number of labels in each table: one table per axis, and one for the bins of weights if known."""
    return [*shape] + ([WEIGHT_BINS] if weights is not None else [])


def _join_tables(*tables: Codes) -> bytes:
    return b"".join(table.astype(np.int8).tobytes() for table in tables)


def _read_tables(
    tables: bytes, shape: tuple[int, ...], starts: Bytes | None, weights: Bytes | None
) -> tuple[Bytes | None, list[Codes], Codes]:
    """Returns (starts, or None if they are not used; tables of labels; codes of contexts)."""
    sizes = _list_label_sizes(shape, weights)
    lengths = [1 + sum(sizes) + GROUPS * bins for bins in (1, START_BINS)]
    decompressor = zlib.decompressobj(-15)
    try:
        first = decompressor.decompress(tables, 1)
    except zlib.error as error:
        raise CodingError(f"its tables cannot be decompressed: {error}") from None
    if first not in (_NO_STARTS, _STARTS) or (first == _STARTS and starts is None):
        raise CodingError(f"its tables begin with {first!r}, which is not valid here")
    content = np.frombuffer(inflate(tables, lengths[first == _STARTS]), np.int8)
    labels = np.split(content[1 : 1 + sum(sizes)], np.cumsum(sizes)[:-1])
    if any(np.abs(table.astype(int)).max(initial=0) > LARGEST_LABEL for table in labels):
        raise CodingError(f"its tables have labels outside [-{LARGEST_LABEL}, {LARGEST_LABEL}]")
    return starts if first == _STARTS else None, labels, content[1 + sum(sizes) :]


def _find_groups(shape: tuple[int, ...], labels: list[Codes], weights: Bytes | None) -> Bytes | None:
    """Returns the group of each weight, flat, in [0, GROUPS). None if all labels are 0.

    The group is the sum of the weight's labels, clipped to [-LARGEST_LABEL, LARGEST_LABEL], plus LARGEST_LABEL.
    """
    if not any(table.any() for table in labels):
        return None
    total = np.zeros(shape, np.int8)
    for axis in range(len(shape)):
        total += labels[axis].reshape([-1 if other == axis else 1 for other in range(len(shape))])
    flat = total.ravel()
    if weights is not None:
        flat += labels[-1][weights]
    np.clip(flat, -LARGEST_LABEL, LARGEST_LABEL, out=flat)
    flat += LARGEST_LABEL
    return flat.view(np.uint8)


def _find_contexts(block: slice, starts: Bytes | None, groups: Bytes | None) -> Any:
    """Returns the contexts of the weights of a block: group * bins + start."""
    bins = 1 if starts is None else START_BINS
    contexts = LARGEST_LABEL * bins if groups is None else groups[block].astype(np.uint16) * np.uint16(bins)
    return contexts if starts is None else starts[block] + np.uint16(contexts)


def _sort_block(
    block: slice, starts: Bytes | None, groups: Bytes | None, codes: Codes | None, free: Bools | None
) -> tuple[NDArray[np.intp] | None, list[tuple[int | None, int]]]:
    """Sorts the weights of a block that are coded by their codes.

    constriction codes many symbols with the same probability several times faster than symbols with different ones.

    Returns:
        (order, runs). `order` has the indices of the weights in sorted order, or is None for the original order.
        `runs` has (code, number of weights) in this order.
    """
    coded = None if free is None else np.flatnonzero(free[block])
    if codes is None:
        return coded, [(None, block.stop - block.start if coded is None else coded.size)]
    shifted = (codes.astype(np.int16) - ALL_DROPPED).astype(np.uint8)  # the same order, as uint8 for a radix sort
    weight_codes = shifted[np.broadcast_to(_find_contexts(block, starts, groups), block.stop - block.start)]
    if coded is not None:
        weight_codes = weight_codes[coded]
    counts = np.bincount(weight_codes)
    order = np.argsort(weight_codes, kind="stable")
    return order if coded is None else coded[order], [
        (int(code) + ALL_DROPPED, int(counts[code])) for code in np.flatnonzero(counts)
    ]


def _make_model(code: int | None, kept: int, size: int) -> Any:
    """Returns the coder's model for the weights of one code, or None if they are all dropped or all kept.

    Without a code, the model is for all `size` weights, of which `kept` are kept.
    """
    if code in (ALL_DROPPED, ALL_KEPT) or (code is None and kept in (0, size)):
        return None
    units = max(kept * _ONE // size, 1) if code is None else int(PROBABILITIES[code - _CODES[0]])
    return constriction.stream.model.Bernoulli(units / _ONE, perfect=False)


def _count(flat: Bytes, starts: Bytes | None, groups: Bytes | None, free: Bools | None) -> NDArray[np.int64]:
    """Returns the numbers of dropped and kept weights of each context, of shape (groups, bins, 2)."""
    bins = 1 if starts is None else START_BINS
    counts = np.zeros(GROUPS * bins * 2, np.int64)
    for block in _split_into_blocks(flat.size):
        contexts = _find_contexts(block, starts, groups)
        kinds = contexts * np.uint16(2) + flat[block]
        counts += np.bincount(kinds if free is None else kinds[free[block]], minlength=counts.size)
    return counts.reshape(GROUPS, bins, 2)


def _choose_labels(
    mask: Bytes, starts: Bytes | None, weights: Bytes | None, counts: NDArray[np.int64], free: Bools | None
) -> list[Codes]:
    """Returns labels for the indices along each axis, and for the bins of weights if these are known.

    Training has changed the scores of some channels more than those of others. The masks of these channels depend less
    on the initial scores: the logits of all their weights are smaller by a factor. A label estimates the logarithm of
    that factor, with one step of Newton's method from the factor 1. The estimate is shrunk towards 0 by the share that
    chance explains. If the initial scores are not known, the label is added to the logits instead.
    """
    dropped, kept = counts.sum(0).T
    p = (kept + 0.5) / (dropped + kept + 1.0)
    slopes = np.log(p / (1 - p)) if starts is not None else np.ones(1)
    table = np.stack([-p * slopes, (1 - p) * slopes], axis=-1).astype(np.float32).ravel()
    # The same for all indices except for chance, because initial scores are random.
    size = _count_free(mask.size, free)
    curvature = float(((dropped + kept) @ (p * (1 - p) * slopes**2)) / size)
    flat = mask.ravel()
    gradients = np.empty(mask.size, np.float32)
    for block in _split_into_blocks(mask.size):
        gradients[block] = table[flat[block] if starts is None else starts[block] * np.uint8(2) + flat[block]]
    if free is not None:
        gradients *= free
    shaped = gradients.reshape(mask.shape)
    by_axis = [
        (shaped.sum(tuple(other for other in range(mask.ndim) if other != axis), dtype=np.float64), size / length)
        for axis, length in enumerate(mask.shape)
    ]
    labels = []
    for gradient, weights_per_index in by_axis:
        precision = max(curvature * weights_per_index, 1e-9)  # 1 / variance of the estimate
        steps = np.clip(gradient / precision, -3.0, 3.0)
        spread = max(0.0, float(np.mean(steps**2)) - 1 / precision)
        labels.append(_round_labels(steps * spread / (spread + 1 / precision), precision))
    if weights is not None:
        sample = slice(0, BLOCK)  # enough for the few bins
        precisions = np.maximum(curvature * np.bincount(weights[sample], minlength=WEIGHT_BINS), 1e-9)
        gradient = np.bincount(weights[sample], gradients[sample], WEIGHT_BINS)
        labels.append(_round_labels(np.clip(gradient / precisions, -3.0, 3.0), precisions))
    return labels


def _round_labels(steps: NDArray[np.float64], precision: float | NDArray[np.float64]) -> Codes:
    """Returns the labels nearest to `steps`, but 0 for labels that save too few bits."""
    is_worth_it = 0.5 * precision * steps**2 / math.log(2) > _LABEL_BITS
    labels: Codes = (np.round(steps / _LABEL_STEP) * is_worth_it).clip(-LARGEST_LABEL, LARGEST_LABEL).astype(np.int8)
    return labels


def _choose_codes(counts: NDArray[np.int64]) -> tuple[Codes, float]:
    """Returns the code of each context, flat, and the number of bits that all weights then take.

    A context gets the code of a neighbour if its best code would save too few bits, because tables with few different
    codes compress well.
    """
    codes = np.zeros(counts.shape[:2], np.int8)
    total = 0.0
    before = 0
    for group, start in zip(*np.nonzero(counts.sum(2)), strict=True):
        dropped, kept = map(int, counts[group, start])
        if kept and dropped:
            code = min(max(round(12 * math.log(kept / dropped)), ALL_DROPPED + 1), ALL_KEPT - 1)
        else:
            code = ALL_KEPT if kept else ALL_DROPPED
        bits = _count_bits(code, dropped, kept)
        for neighbour in (before, int(codes[group - 1, start])):
            neighbour_bits = _count_bits(neighbour, dropped, kept)
            if neighbour_bits <= bits + _CODE_BITS and code != neighbour:
                code, bits = neighbour, neighbour_bits
                break
        codes[group, start] = before = code
        total += bits
    # Contexts without weights repeat the code before them.
    used = counts.sum(2).ravel() > 0
    flat = codes.ravel()
    latest = np.maximum.accumulate(np.where(used, np.arange(flat.size), 0))
    return flat[latest], total


def _count_bits(code: int, dropped: int, kept: int) -> float:
    """Returns the number of bits that weights of one code take, infinity if the code cannot represent them."""
    if code in (ALL_DROPPED, ALL_KEPT):
        return 0.0 if not (kept if code == ALL_DROPPED else dropped) else math.inf
    probability = int(PROBABILITIES[code - _CODES[0]]) / _ONE
    return -(kept * math.log2(probability) + dropped * math.log2(1 - probability))
