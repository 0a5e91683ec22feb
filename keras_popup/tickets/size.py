"""The size of a ticket in bytes for a given k, and the k whose ticket fits into a given number of bytes.

A mask that keeps `kept` of n weights is one of C(n, kept) masks. So log2 C(n, kept) bits are enough for each of them,
and the coder takes hardly more. It takes less if training has left a pattern in the mask. The size is small for k near
0 or 1, and largest at k = 0.5. So for a budget below the size at 0.5, there are two values of k: one below 0.5 and one
above.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from keras_popup import selectors
from keras_popup.tickets import mask_coding

SPARSE, DENSE = "sparse", "dense"
"""The two branches: the largest k up to 0.5 that fits, and the smallest k from 0.5 up that fits."""

_DIGITS = 6  # of k

# By how much the coder may exceed log2 C(n, kept): its probabilities are rounded, it could also code masks with another
# count, and its streams consist of whole words.
_CODER_SHARE = 1e-4
_CODER_BITS = 64

# By how many bytes manifests may differ between values of k and metrics, because their digits compress differently.
_MANIFEST = 32
_MANIFEST_OF_LAYER = 8
_MANIFEST_OF_PLANE = 24


class BudgetError(ValueError):
    """No ticket fits into the budget.

    Attributes:
        smallest: int, the size of the smallest possible ticket in bytes.
    """

    def __init__(self, message: str, smallest: int) -> None:
        super().__init__(message)
        self.smallest = smallest


@dataclasses.dataclass(frozen=True)
class TicketSize:
    """Everything that determines the size of a network's ticket, except k.

    Attributes:
        sizes: sequence of ints, the number of weights of each masked kernel.
        others: int, an upper limit in bytes for everything in the ticket except the masks.
        selector: str, the selector as a name with arguments.
        shapes: sequence of tuples, the shapes of the kernels; needed by selectors whose masks depend on them.
        axes: sequence of pairs, the axes of inputs and outputs of each kernel, as `shapes`.

    Raises:
        ValueError: if `sizes` is empty.
    """

    sizes: Sequence[int]
    others: int
    selector: str = "top_k"
    shapes: Sequence[tuple[int, ...]] = ()
    axes: Sequence[Any] = ()

    def __post_init__(self) -> None:
        if not self.sizes:
            raise ValueError("A ticket needs at least one masked layer. Received: sizes=().")

    def ticket_bytes(self, k: float) -> int:
        """Returns an upper limit for the size of a ticket in bytes, from the number of weights that k keeps."""
        if self._together:
            # The limit is that of one mask over all of them: no other split takes more.
            size = sum(self.sizes)
            limit = selectors.entropy_bits(size, selectors.count_kept(k, size))
            return self._bound_manifest() + _bound_mask_bytes(size, limit, 1, len(self.sizes))
        return self.bytes_of([selectors.count_kept(k, size) for size in self.sizes])

    def bytes_of(self, kept: Sequence[int]) -> int:
        """Returns an upper limit for the size of a ticket in bytes, from the number of kept weights of each kernel."""
        selector = selectors.get(self.selector)
        return self._bound_manifest() + sum(
            _bound_mask_bytes(size, self._count_bits(selector, number, kept[number]), self._planes)
            for number, size in enumerate(self.sizes)
        )

    def _count_bits(self, selector: selectors.Selector, number: int, kept: int) -> float:
        """Returns the bits of a mask that keeps `kept` weights of a kernel, of which nothing else is known."""
        size = self.sizes[number]
        if not kept or selector.draws:
            return selectors.entropy_bits(size, kept)
        shape = self.shapes[number] if self.shapes else (size,)
        takes = {"axes": self.axes[number]} if "axes" in selector.takes else {}
        return selector.mask_bits(shape, kept / size, **takes)

    def _bound_manifest(self) -> int:
        return (
            self.others + _MANIFEST + (_MANIFEST_OF_LAYER + _MANIFEST_OF_PLANE * (self._planes - 1)) * len(self.sizes)
        )

    @property
    def _planes(self) -> int:
        return len(selectors.get(self.selector).levels) - 1

    @property
    def _together(self) -> bool:
        """Whether k is for all kernels together. The scores then decide how many weights each kernel keeps."""
        return isinstance(selectors.get(self.selector), selectors.GlobalTopK)

    def fitting_k(self, budget: int, branch: str, low: float = 0.0, high: float = 1.0) -> float:
        """Returns the k in [low, high] with the largest ticket that fits into the budget.

        Args:
            budget: int, the number of bytes.
            branch: SPARSE for the largest k up to 0.5, DENSE for the smallest k from 0.5 up.
            low: float, the smallest k allowed.
            high: float, the largest k allowed.

        Raises:
            ValueError: if `high` keeps no weight of the smallest kernel.
            BudgetError: if no ticket fits.
        """
        # The smallest k that keeps a weight of every kernel, for each of several coats.
        needed, size = (len(self.sizes), sum(self.sizes)) if self._together else (1, min(self.sizes))
        least = (needed - 0.5) / size * self._planes
        while selectors.count_kept(least / self._planes, size) < needed:
            least = math.nextafter(least, 1.0)
        if least > high:
            raise ValueError(
                f"`k` must be {least:.{_DIGITS}g} or more to keep a weight of every layer. Received: high={high}."
            )
        best, worst = (max(low, least), max(min(high, 0.5), least)) if branch == SPARSE else (high, max(low, 0.5))
        smallest = self.ticket_bytes(best)
        if smallest > budget:
            raise BudgetError(
                f"No ticket fits into {budget:,} bytes: the smallest one, at k = {best:.{_DIGITS}g}, takes "
                f"{smallest:,} bytes.",
                smallest,
            )
        if self.ticket_bytes(worst) <= budget:
            return worst
        unit = 10**-_DIGITS
        while abs(worst - best) > unit / 4:
            middle = (best + worst) / 2
            if self.ticket_bytes(middle) <= budget:
                best = middle
            else:
                worst = middle
        # Round to few digits, to the side that fits.
        rounded = (math.floor if branch == SPARSE else math.ceil)(best / unit) * unit
        is_in_range = max(low, least) <= rounded <= high
        return round(rounded, _DIGITS) if self.ticket_bytes(rounded) <= budget and is_in_range else best


def _bound_mask_bytes(size: int, limit: float, planes: int, kernels: int = 1) -> int:
    """Returns an upper limit for the bytes of a mask, or of the masks of several kernels that have `size` weights."""
    blocks = -(-size // mask_coding.BLOCK) + kernels - 1
    return math.ceil((limit * (1 + _CODER_SHARE) + _CODER_BITS * blocks * planes) / 8) + kernels - 1
