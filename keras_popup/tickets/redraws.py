"""Kept weights that were drawn anew during training, in tickets: turned signs, or the numbers of their redraws.

The kernel of a seed has values at all places; `callbacks.IterativeRandomization` and `callbacks.Recycle` replace some.
Only kept weights matter. If all values of a kernel differ in sign only, a plane of bits says which signs have turned.
Otherwise planes say which weights are from redraw 0, the seed itself, then which of the rest are from the next redraw,
and so on.
"""

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_popup.initializers import FrozenInitializer
from keras_popup.tickets import mask_planes
from keras_popup.tickets.mask_coding import Bools, CodingError

_MOST_WITHOUT = 20  # redraws in a row that no weight is from, before the search ends
MOST_REDRAWS = 10_000


def encode(
    initializer: FrozenInitializer, drawn: NDArray[np.float32], frozen: NDArray[Any], kept: Bools, fans: tuple[int, int]
) -> tuple[dict[str, Any], bytes] | None:
    """Returns what a record says of redraws, and their bytes; None if the kept weights are not from redraws.

    Args:
        initializer: the kernel's initializer.
        drawn: its values.
        frozen: the kernel.
        kept: which weights the mask keeps.
        fans: (fan_in, fan_out) of the kernel.
    """
    original = drawn.astype(frozen.dtype, copy=False)
    if np.array_equal(np.abs(original[kept]), np.abs(frozen[kept])):
        turned = kept & (original != frozen)
        counts, content = mask_planes.pack([mask_planes.encode_bits(turned, kept)])
        return {"turned": True, "planes": counts}, content
    remaining, numbers, planes, without = kept, [], [], 0
    for number in range(MOST_REDRAWS + 1):
        values = initializer.of_redraw(number).values(frozen.shape, fans).astype(frozen.dtype, copy=False)
        found = remaining & (values == frozen)
        without = 0 if found.any() else without + 1
        if found.any():
            numbers.append(number)
            planes.append(mask_planes.encode_bits(found, remaining))
            remaining = remaining & ~found
        if not remaining.any():
            counts, content = mask_planes.pack(planes)
            return {"numbers": numbers, "planes": counts}, content
        if without == _MOST_WITHOUT:
            break
    return None


def decode(
    described: Any,
    content: bytes,
    initializer: FrozenInitializer,
    kernel: NDArray[Any],
    kept: Bools,
    fans: tuple[int, int],
) -> NDArray[Any]:
    """Returns a kernel with the values of redraws at the kept weights.

    Args:
        described: what `encode` has returned first.
        content: bytes, what it has returned second.
        initializer: the kernel's initializer.
        kernel: its values.
        kept: which weights the mask keeps.
        fans: (fan_in, fan_out) of the kernel.

    Raises:
        CodingError: if `encode` did not write this.
    """
    if not isinstance(described, dict):
        raise CodingError(f"its redraws are {str(described)[:60]}")
    planes = mask_planes.unpack(described.get("planes"), content)
    if described.get("turned") is True and len(planes) == 1:
        turned = mask_planes.decode_bits(planes[0], kept)
        return np.where(turned, -kernel, kernel)
    numbers = described.get("numbers")
    if (
        not isinstance(numbers, list)
        or len(numbers) != len(planes)
        or not all(type(number) is int and 0 <= number <= MOST_REDRAWS for number in numbers)
        or any(first >= second for first, second in itertools.pairwise(numbers))  # else there would be no end of them
    ):
        raise CodingError(f"its redraws are {str(described)[:60]}")
    redrawn = kernel.copy()
    for number, plane in zip(numbers, planes, strict=True):
        found = mask_planes.decode_bits(plane, kept)
        values = initializer.of_redraw(number).values(kernel.shape, fans).astype(kernel.dtype, copy=False)
        redrawn[found] = values[found]
        kept = kept & ~found
    if kept.any():
        raise CodingError("its redraws leave weights without a value")
    return redrawn
