"""The coding of masks: entropy coding with what is known of a layer without its mask.

Nothing but k is known of a mask that was drawn at random, so it takes log2 C(n, kept) bits. A trained mask takes
less: the scores that it was found by started at values that follow from the seed, and training moved most of
them little, so weights of a large initial score are mostly kept. How far it moved them depends on the row,
channel and position. The coder gives every weight a context, made of its initial score and of labels of the
indices along the axes of its kernel, and codes the weights of each context with their own probability.
docs/tickets.md describes the bytes.
"""

import math
import zlib
from collections.abc import Iterator
from typing import Any

import constriction
import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

BLOCK = 1 << 20  # weights that are coded at once
START_BINS = 64  # of the magnitude of the initial score
WEIGHT_BINS = 32  # 16 of the magnitude of positive weights, then 16 of negative ones
LARGEST_LABEL = 7
GROUPS = 2 * LARGEST_LABEL + 1

ALL_DROPPED, ALL_KEPT = -128, 127
"""The codes of contexts whose weights are all alike, and take no bits."""

_ONE = 1 << 24  # probabilities are integers of this unit
_CODES = np.arange(ALL_DROPPED + 1, ALL_KEPT)
PROBABILITIES = np.round(_ONE / (1.0 + np.exp(-_CODES / 12.0))).astype(np.int64)
"""The probability to be kept of the codes -127 to 126, which are logits in steps of 1/12."""

_NO_STARTS, _STARTS = b"\0", b"\1"

# What the encoder's choices are made by; a decoder needs none of it.
# So a better model of masks needs no new version of the format.
_LABEL_STEP = 0.5  # of logits, or of the factor of their logarithm
_LABEL_BITS = 4.0  # what a label that is not 0 must save
_CODE_BITS = 6.0  # likewise a code unlike its neighbour's


class CodingError(ValueError):
    """Coded bytes that no encoder wrote."""


def start_bins(scores: NDArray[np.float32]) -> Bytes:
    """Returns the contexts that initial scores give their weights, in [0, START_BINS)."""
    return _magnitude_bins(scores.ravel(), START_BINS)


def weight_bins(weights: NDArray[np.float32]) -> Bytes:
    """Returns the label indices of weights by their values, in [0, WEIGHT_BINS)."""
    flat = weights.ravel()
    bins = _magnitude_bins(flat, WEIGHT_BINS // 2)
    bins += (flat < 0).astype(np.uint8) * np.uint8(WEIGHT_BINS // 2)
    return bins


def _magnitude_bins(values: NDArray[np.float32], bins: int) -> Bytes:
    """Returns floor(bins * |v| / max |v|), in float32, for each value; the last bin for the largest."""
    result = np.zeros(values.size, np.uint8)
    largest = np.float32(max(values.max(initial=0), -values.min(initial=0)))
    if largest > 1e-30:
        scale = np.float32(bins) / largest
        for block in _blocks(values.size):
            result[block] = np.minimum(np.abs(values[block]) * scale, np.float32(bins - 1)).astype(np.uint8)
    return result


def encode(mask: Bytes, starts: Bytes | None = None, weights: Bytes | None = None) -> tuple[bytes, bytes]:
    """Encodes a mask, as short as one of several models of it makes it.

    Args:
        mask: array of the kernel's shape, 0 or 1.
        starts: flat, as `start_bins` gives it, or None if the initial scores are not known.
        weights: flat, as `weight_bins` gives it, or None if the weights are not known.

    Returns:
        (tables, stream): the model of the mask, empty for one probability, and the bits coded by it.
    """
    flat, kept = mask.ravel(), int(mask.sum(dtype=np.int64))
    shortest, tables, groups = _entropy(mask.size, kept), b"", None
    if 0 < kept < mask.size:
        kinds = [starts, None] if starts is not None else [None]
        for bins in kinds:
            counts = _counts(flat, bins, None)
            candidates: list[Any] = [[np.zeros(size, np.int8) for size in _label_sizes(mask.shape, weights)]]
            candidates.append(_labels(mask, bins, weights, counts))
            for labels in candidates:
                grouped = _grouped(mask.shape, labels, weights)
                codes, bits = _codes(_counts(flat, bins, grouped))
                packed = deflate((_NO_STARTS if bins is None else _STARTS) + _bytes(*labels, codes))
                if bits + 8 * len(packed) < shortest:
                    shortest, tables, groups = bits + 8 * len(packed), packed, grouped
            if tables:
                break  # without initial scores it would not be shorter
    starts, codes = _read_tables(tables, mask.shape, starts, weights)[::2] if tables else (None, None)
    coder = constriction.stream.stack.AnsCoder()
    for block in reversed([*_blocks(mask.size)]):
        order, runs = _ordered(block, starts, groups, codes)
        ordered = flat[block] if order is None else flat[block][order]
        end = ordered.size
        for code, count in reversed(runs):
            model = _model(code, kept, mask.size)
            if model is not None:
                coder.encode_reverse(ordered[end - count : end].astype(np.int32), model)
            end -= count
    return tables, coder.get_compressed().astype("<u4").tobytes()


def decode(
    tables: bytes, stream: bytes, shape: tuple[int, ...], kept: int, starts: Bytes | None, weights: Bytes | None
) -> Bytes:
    """Decodes a mask: the inverse of `encode`, given the same `starts` and `weights`.

    Args:
        kept: int, how many weights the mask keeps.

    Raises:
        CodingError: if the bytes were not written by `encode` for this shape and count.
    """
    size = math.prod(shape)
    codes = groups = None
    if tables:
        starts, labels, codes = _read_tables(tables, shape, starts, weights)
        groups = _grouped(shape, labels, weights)
    else:
        starts = None
    if len(stream) % 4:
        raise CodingError(f"its stream has {len(stream)} bytes, not whole words of 4")
    try:
        coder = constriction.stream.stack.AnsCoder(np.frombuffer(stream, "<u4").astype(np.uint32))
    except ValueError as error:
        raise CodingError(f"its stream cannot be read: {error}") from None
    mask = np.empty(size, np.uint8)
    for block in _blocks(size):
        order, runs = _ordered(block, starts, groups, codes)
        parts: list[Any] = []
        for code, count in runs:
            model = _model(code, kept, size)
            alike = kept > 0 if code is None else code == ALL_KEPT
            parts.append(np.full(count, alike, np.uint8) if model is None else coder.decode(model, count))
        if order is None:
            mask[block] = parts[0]
        else:
            mask[block][order] = np.concatenate(parts)
    if not coder.is_empty():
        raise CodingError("its stream does not end where its mask does")
    if (found := int(mask.sum(dtype=np.int64))) != kept:
        raise CodingError(f"its mask keeps {found:,} weights, not {kept:,}")
    return mask.reshape(shape)


def deflate(content: bytes) -> bytes:
    """Compresses to a raw deflate stream (RFC 1951)."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15, 9)
    return compressor.compress(content) + compressor.flush()


def inflate(compressed: bytes, size: int) -> bytes:
    """Reads a raw deflate stream of exactly `size` bytes, and takes memory for no more.

    Raises:
        CodingError: if it is none.
    """
    decompressor = zlib.decompressobj(-15)
    try:
        content = decompressor.decompress(compressed, size + 1)
    except zlib.error as error:
        raise CodingError(f"it cannot be decompressed: {error}") from None
    if len(content) != size or not decompressor.eof or decompressor.unused_data:
        raise CodingError(f"it does not decompress to {size:,} bytes")
    return content


def _blocks(size: int) -> Iterator[slice]:
    return (slice(first, min(first + BLOCK, size)) for first in range(0, size, BLOCK))


def _entropy(size: Any, kept: Any) -> float:
    """Returns the bits of `size` weights, coded each by the probability kept / size."""
    if not 0 < kept < size:
        return 0.0
    return -(kept * math.log2(kept / size) + (size - kept) * math.log2(1 - kept / size))


def _label_sizes(shape: tuple[int, ...], weights: Bytes | None) -> list[int]:
    return [*shape] + ([WEIGHT_BINS] if weights is not None else [])


def _bytes(*tables: Any) -> bytes:
    return b"".join(table.astype(np.int8).tobytes() for table in tables)


def _read_tables(
    tables: bytes, shape: tuple[int, ...], starts: Bytes | None, weights: Bytes | None
) -> tuple[Bytes | None, list[Any], Any]:
    """Returns (starts or None if unused, labels per axis, codes per context)."""
    sizes = _label_sizes(shape, weights)
    lengths = [1 + sum(sizes) + GROUPS * bins for bins in (1, START_BINS)]
    decompressor = zlib.decompressobj(-15)
    try:
        first = decompressor.decompress(tables, 1)
    except zlib.error as error:
        raise CodingError(f"its tables cannot be decompressed: {error}") from None
    if first not in (_NO_STARTS, _STARTS) or (first == _STARTS and starts is None):
        raise CodingError(f"its tables begin with {first!r}, which has no meaning here")
    content = np.frombuffer(inflate(tables, lengths[first == _STARTS]), np.int8)
    labels = np.split(content[1 : 1 + sum(sizes)], np.cumsum(sizes)[:-1])
    if any(np.abs(table.astype(int)).max(initial=0) > LARGEST_LABEL for table in labels):
        raise CodingError(f"its tables hold labels beyond {LARGEST_LABEL}")
    return starts if first == _STARTS else None, labels, content[1 + sum(sizes) :]


def _grouped(shape: tuple[int, ...], labels: list[Any], weights: Bytes | None) -> Bytes | None:
    """Returns the group of each weight, flat: the sum of its labels, limited, counted from 0. None if all are alike."""
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


def _contexts(block: slice, starts: Bytes | None, groups: Bytes | None) -> Any:
    """Returns group * bins + start for the weights of a block."""
    bins = 1 if starts is None else START_BINS
    contexts = LARGEST_LABEL * bins if groups is None else groups[block].astype(np.uint16) * np.uint16(bins)
    return contexts if starts is None else starts[block] + np.uint16(contexts)


def _ordered(block: slice, starts: Bytes | None, groups: Bytes | None, codes: Any) -> tuple[Any, list[Any]]:
    """Returns the order in which a block's weights are coded, None for theirs, and (code, weights) in that order."""
    if codes is None:
        return None, [(None, block.stop - block.start)]
    # Weights are sorted by their codes: constriction takes many symbols of one probability several times as quickly as
    # symbols with a probability each.
    shifted = (codes.astype(np.int16) - ALL_DROPPED).astype(np.uint8)  # of the same order, to be sorted by radix
    of_weights = shifted[np.broadcast_to(_contexts(block, starts, groups), block.stop - block.start)]
    counts = np.bincount(of_weights)
    order = np.argsort(of_weights, kind="stable")
    return order, [(int(each) + ALL_DROPPED, int(counts[each])) for each in np.flatnonzero(counts)]


def _model(code: int | None, kept: int, size: int) -> Any:
    """Returns the coder's model of weights of one code, None if they are all alike. Without codes, that of all."""
    if code in (ALL_DROPPED, ALL_KEPT) or (code is None and kept in (0, size)):
        return None
    units = max(kept * _ONE // size, 1) if code is None else int(PROBABILITIES[code - _CODES[0]])
    return constriction.stream.model.Bernoulli(units / _ONE, perfect=False)


def _counts(flat: Bytes, starts: Bytes | None, groups: Bytes | None) -> Any:
    """Returns how many weights of each (group, start) are dropped and kept."""
    bins = 1 if starts is None else START_BINS
    counts = np.zeros(GROUPS * bins * 2, np.int64)
    for block in _blocks(flat.size):
        contexts = _contexts(block, starts, groups)
        counts += np.bincount(contexts * np.uint16(2) + flat[block], minlength=counts.size)
    return counts.reshape(GROUPS, bins, 2)


def _labels(mask: Bytes, starts: Bytes | None, weights: Bytes | None, counts: Any) -> list[Any]:
    """Returns labels for the indices along each axis, and for the weights' values.

    Training has moved the scores of some channels more than those of others, by which their masks follow the
    initial scores less: the logits of all their weights are smaller by some factor. A label is the logarithm of
    that factor, by one step of Newton's method from 1, shrunk towards 0 as far as chance explains it. Where no
    initial scores are known, it is what is added to the logits instead.
    """
    dropped, kept = counts.sum(0).T
    p = (kept + 0.5) / (dropped + kept + 1.0)
    slopes = np.log(p / (1 - p)) if starts is not None else np.ones(1)
    table = np.stack([-p * slopes, (1 - p) * slopes], axis=-1).astype(np.float32).ravel()
    # The same everywhere but for chance, as initial scores are.
    curvature = float(((dropped + kept) @ (p * (1 - p) * slopes**2)) / mask.size)
    flat = mask.ravel()
    gradients = np.empty(mask.size, np.float32)
    for block in _blocks(mask.size):
        gradients[block] = table[flat[block] if starts is None else starts[block] * np.uint8(2) + flat[block]]
    shaped = gradients.reshape(mask.shape)
    by_axis = [
        (shaped.sum(tuple(other for other in range(mask.ndim) if other != axis), dtype=np.float64), mask.size / length)
        for axis, length in enumerate(mask.shape)
    ]
    labels = []
    for gradient, weights_of_each in by_axis:
        certain = max(curvature * weights_of_each, 1e-9)  # one over the variance of the estimate
        steps = np.clip(gradient / certain, -3.0, 3.0)
        spread = max(0.0, float(np.mean(steps**2)) - 1 / certain)
        labels.append(_label(steps * spread / (spread + 1 / certain), certain))
    if weights is not None:
        few = slice(0, BLOCK)  # enough for so few labels
        certain = np.maximum(curvature * np.bincount(weights[few], minlength=WEIGHT_BINS), 1e-9)
        gradient = np.bincount(weights[few], gradients[few], WEIGHT_BINS)
        labels.append(_label(np.clip(gradient / certain, -3.0, 3.0), certain))
    return labels


def _label(steps: Any, certain: Any) -> Any:
    worth = 0.5 * certain * steps**2 / math.log(2) > _LABEL_BITS
    return (np.round(steps / _LABEL_STEP) * worth).clip(-LARGEST_LABEL, LARGEST_LABEL).astype(np.int8)


def _codes(counts: Any) -> tuple[Any, float]:
    """Returns the code of each context's probability, and the bits that all weights then take.

    A context has the code of a neighbour where its own would save too little: tables of few different codes
    compress well.
    """
    codes = np.zeros(counts.shape[:2], np.int8)
    total = 0.0
    before = 0
    for group, start in zip(*np.nonzero(counts.sum(2)), strict=True):
        dropped, kept = map(int, counts[group, start])
        if kept and dropped:
            own = min(max(round(12 * math.log(kept / dropped)), ALL_DROPPED + 1), ALL_KEPT - 1)
        else:
            own = ALL_KEPT if kept else ALL_DROPPED
        bits = _bits(own, dropped, kept)
        for other in (before, int(codes[group - 1, start])):
            if (others := _bits(other, dropped, kept)) <= bits + _CODE_BITS and own != other:
                own, bits = other, others
                break
        codes[group, start] = before = own
        total += bits
    # What no weight uses repeats what stands before it.
    used = counts.sum(2).ravel() > 0
    flat = codes.ravel()
    latest = np.maximum.accumulate(np.where(used, np.arange(flat.size), 0))
    return flat[latest], total


def _bits(code: int, dropped: int, kept: int) -> float:
    if code in (ALL_DROPPED, ALL_KEPT):
        return 0.0 if not (kept if code == ALL_DROPPED else dropped) else math.inf
    probability = int(PROBABILITIES[code - _CODES[0]]) / _ONE
    return -(kept * math.log2(probability) + dropped * math.log2(1 - probability))
