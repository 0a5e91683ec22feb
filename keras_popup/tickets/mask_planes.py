"""Masks that are more than zeros and ones at free places, as planes of bits.

A plane has a bit for some places of the kernel, which the planes before it determine. `mask_coding` codes its bits. So
a mask takes the bits that its kind leaves open, and no more:

- levels, such as -1, 0, 1: a plane for each size of levels, among the weights that have at least the size before; then
  one of signs, among the weights that are kept.
- fixed parts: one plane, of the weights that are not fixed.
- N of each M: a plane for each place in a group, and each number of weights that the group still has to keep.
- blocks: one plane, with one bit for each block.

docs/ticket-format.md describes the bytes.
"""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_popup.selectors import NM, Block, Selector, TopK, find_layout
from keras_popup.tickets import mask_coding
from keras_popup.tickets.mask_coding import Bools, Bytes, CodingError

MOST_LEVELS = 128

# Codes one plane, or decodes it: takes the bits (None if they are decoded) and the places, and returns the bits.
_Code = Callable[..., Bools]


@dataclasses.dataclass(frozen=True)
class Plane:
    """Bits of a mask, coded.

    Attributes:
        size: int, the number of bits.
        kept: int, how many of them are 1.
        tables: bytes, as of `mask_coding.encode`.
        stream: bytes, as of `mask_coding.encode`.
    """

    size: int
    kept: int
    tables: bytes
    stream: bytes


def describe(selector: Selector, shape: tuple[int, ...], k: float, seed: int, takes: dict[str, Any]) -> Any:
    """Returns how the masks of a selector are coded, as JSON, or None for zeros and ones at free places.

    Args:
        selector: the selector.
        shape: the shape of the kernel.
        k: the fraction that the kernel keeps.
        seed: the seed of what is fixed.
        takes: what the selector takes, as of `MaskedKernel.takes`.
    """
    axes = [list(group) for group in takes.get("axes", ())]
    if type(selector) is TopK and selector.takes:
        return {"pruned": selector.pruned, "locked": selector.locked, "seed": seed}
    if type(selector) is NM:
        return {"n": selector.count_in_group(k), "m": selector.m, "axes": axes}
    if type(selector) is Block:
        return {"block": selector.size, "axes": axes}
    return None if selector.levels == (0, 1) else {"levels": list(selector.levels)}


def encode(mask: NDArray[Any], coding: dict[str, Any], starts: Bytes | None, weights: Bytes | None) -> list[Plane]:
    """Encodes a mask as planes.

    Args:
        mask: integer array of the kernel's shape.
        coding: as of `describe`.
        starts: as for `mask_coding.encode`.
        weights: as for `mask_coding.encode`.

    Raises:
        CodingError: if the mask is not of the kind that `coding` says.
    """
    planes = []

    def code(bits: Bools | None, free: Bools, with_contexts: bool = True) -> Bools:
        assert bits is not None
        planes.append(encode_bits(bits, free, *((starts, weights) if with_contexts else ())))
        return bits & free

    if not np.array_equal(_walk(code, mask.shape, coding, mask), mask):
        raise CodingError(f"its mask is not of the kind {coding}")
    return planes


def decode(
    planes: Iterable[Plane],
    coding: dict[str, Any],
    shape: tuple[int, ...],
    starts: Bytes | None,
    weights: Bytes | None,
) -> NDArray[np.int8]:
    """Decodes a mask: the inverse of `encode`.

    Returns:
        int8 array of the shape.

    Raises:
        CodingError: if `encode` did not write these planes.
    """
    remaining = list(planes)

    def code(bits: Bools | None, free: Bools, with_contexts: bool = True) -> Bools:
        if not remaining:
            raise CodingError("it has fewer planes of bits than its mask needs")
        return decode_bits(remaining.pop(0), free, *((starts, weights) if with_contexts else ()))

    mask = _walk(code, shape, coding, None)
    if remaining:
        raise CodingError("it has more planes of bits than its mask needs")
    return mask


def encode_bits(bits: Bools, free: Bools, starts: Bytes | None = None, weights: Bytes | None = None) -> Plane:
    """Returns the plane of the bits at some places of a kernel, with `mask_coding.encode`."""
    plane = (bits & free).astype(np.uint8)
    tables, stream = mask_coding.encode(plane, starts, weights, free.ravel()) if free.any() else (b"", b"")
    return Plane(int(np.count_nonzero(free)), int(plane.sum(dtype=np.int64)), tables, stream)


def decode_bits(plane: Plane, free: Bools, starts: Bytes | None = None, weights: Bytes | None = None) -> Bools:
    """Returns the bits of a plane, of the shape of `free`: the inverse of `encode_bits`. Raises CodingError."""
    if plane.size != (size := int(np.count_nonzero(free))):
        raise CodingError(f"a plane has {plane.size:,} bits, not {size:,}")
    bits = mask_coding.decode(plane.tables, plane.stream, free.shape, plane.kept, starts, weights, free.ravel())
    return bits.astype(bool)


def pack(planes: list[Plane]) -> tuple[list[list[int]], bytes]:
    """Returns the numbers and the bytes of planes, as a ticket has them."""
    counts = [[plane.size, plane.kept, len(plane.tables), len(plane.stream)] for plane in planes]
    return counts, b"".join(plane.tables + plane.stream for plane in planes)


def unpack(counts: Any, content: bytes) -> list[Plane]:
    """Returns planes: the inverse of `pack`.

    Raises:
        CodingError: if the numbers are not those of planes with this content.
    """
    if not isinstance(counts, list) or not all(
        isinstance(entry, list) and len(entry) == 4 and all(type(count) is int and count >= 0 for count in entry)
        for entry in counts
    ):
        raise CodingError(f"its planes are {str(counts)[:60]}")
    planes, place = [], 0
    for size, kept, of_tables, of_stream in counts:
        middle, end = place + of_tables, place + of_tables + of_stream
        if end > len(content) or kept > size:
            raise CodingError("a plane of its mask is longer than its data")
        planes.append(Plane(size, kept, content[place:middle], content[middle:end]))
        place = end
    if place != len(content):
        raise CodingError("its mask has data after its last plane")
    return planes


def _walk(code: _Code, shape: tuple[int, ...], coding: dict[str, Any], mask: NDArray[Any] | None) -> NDArray[np.int8]:
    """Returns a mask, of which `code` encodes or decodes one plane after the other."""
    kinds: dict[frozenset[str], Any] = {
        frozenset({"levels"}): _walk_levels,
        frozenset({"pruned", "locked", "seed"}): _walk_fixed,
        frozenset({"n", "m", "axes"}): _walk_groups,
        frozenset({"block", "axes"}): _walk_blocks,
    }
    walk = kinds.get(frozenset(coding))
    if walk is None:
        raise CodingError(f"its mask is coded as {str(coding)[:80]}, which this version does not know")
    try:
        walked: NDArray[np.int8] = walk(code, shape, mask, **coding)
    except (TypeError, AttributeError) as error:  # values of other types
        raise CodingError(f"its mask is coded as {str(coding)[:80]}: {error}") from None
    return walked


def _walk_levels(code: _Code, shape: tuple[int, ...], mask: NDArray[Any] | None, levels: list[int]) -> Any:
    if not 1 <= len(levels) <= MOST_LEVELS or not all(type(level) is int and abs(level) < 128 for level in levels):
        raise CodingError(f"its levels are {str(levels)[:60]}")
    result = np.zeros(shape, np.int8)
    free = np.ones(shape, bool)
    for size in sorted({abs(level) for level in levels if level}):
        if not free.any():
            break
        free = code(None if mask is None else np.abs(mask) >= size, free)
        result[free] = size
    if (kept := result != 0).any() and any(level < 0 for level in levels):
        result[code(None if mask is None else mask < 0, kept)] *= -1
    if not set(np.unique(result).tolist()) <= {0, *levels}:
        raise CodingError(f"its mask has other levels than {levels}")
    return result


def _walk_fixed(
    code: _Code, shape: tuple[int, ...], mask: NDArray[Any] | None, pruned: float, locked: float, seed: int
) -> Any:
    fixed = TopK(pruned, locked).draw_fixed(shape, seed)
    free = fixed == 0
    chosen = code(None if mask is None else mask != 0, free) if free.any() else free
    return (chosen | (fixed > 0)).astype(np.int8)


def _walk_groups(
    code: _Code, shape: tuple[int, ...], mask: NDArray[Any] | None, n: int, m: int, axes: list[list[int]]
) -> Any:
    layout = find_layout(shape, _check_axes(axes, len(shape)))
    matrices, rows, columns = layout.matrices
    if type(n) is not int or not 1 <= n <= NM(m).m or rows % m:
        raise CodingError(f"its mask has {n} of each {m} along {rows} inputs")
    grouped = (matrices, rows // m, m, columns)
    result = np.zeros(grouped, np.int8)
    needed = np.full((matrices, rows // m, columns), n)
    bits = None if mask is None else mask != 0
    for place in range(m):
        left = m - place
        chosen = needed == left
        for open_places in range(1, left):
            if not (coded := needed == open_places).any():
                continue
            free = np.zeros(grouped, bool)
            free[:, :, place] = coded
            plane = code(bits, layout.unstack(free.reshape(layout.matrices)))
            chosen |= layout.stack(plane).reshape(grouped)[:, :, place]
        result[:, :, place] = chosen
        needed = needed - chosen
    return layout.unstack(result.reshape(layout.matrices))


def _walk_blocks(
    code: _Code, shape: tuple[int, ...], mask: NDArray[Any] | None, block: int, axes: list[list[int]]
) -> Any:
    grid = Block(block).grid(shape, _check_axes(axes, len(shape)))
    _, rows, columns = grid.layout.matrices
    firsts = (np.arange(rows) % block == 0)[:, None] & (np.arange(columns) % block == 0)
    free = grid.layout.unstack(np.broadcast_to(firsts, grid.layout.matrices))
    chosen = code(None if mask is None else mask != 0, free, with_contexts=False)
    return grid.repeat(grid.first(chosen)).astype(np.int8)


def _check_axes(axes: Any, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Returns the axes of inputs and outputs in a file."""
    groups: list[Any] = axes if isinstance(axes, list) and len(axes) == 2 else [None]
    if not all(
        isinstance(group, list) and all(type(axis) is int and 0 <= axis < rank for axis in group) for group in groups
    ) or any(len(set(group)) != len(group) for group in groups):
        raise CodingError(f"its mask has the axes {str(axes)[:60]}")
    return tuple(groups[0]), tuple(groups[1])
