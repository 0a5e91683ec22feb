"""How many bytes a ticket takes for a given k, and the k that fits into given bytes.

A mask that keeps `kept` of n weights is one of C(n, kept), so log2 C(n, kept) bits are enough for any, and the
coder takes hardly more; less, where training has left a pattern. That is least for k near 0 or near 1 and most at
0.5: a budget below the size at 0.5 leaves two values of k, one on either side.
"""

import dataclasses
import math
from collections.abc import Sequence

from keras_popup import selectors
from keras_popup.tickets import mask_coding

SPARSE, DENSE = "sparse", "dense"
"""The branches: k up to 0.5, of which the largest that fits is taken, and k from 0.5 on, of which the smallest is."""

_DIGITS = 6  # of k

# By how much the coder may exceed the limit: probabilities are rounded and do not add up over all masks of a count,
# which are C(n, kept); streams are whole words.
_CODER_SHARE = 1e-4
_CODER_BITS = 64

# What a manifest may take more than that of another k and other metrics, in bytes: digits compress by chance.
_MANIFEST = 32
_MANIFEST_OF_LAYER = 8


class BudgetError(ValueError):
    """No ticket fits.

    Attributes:
        smallest: int, the bytes that the smallest one takes.
    """

    def __init__(self, message: str, smallest: int) -> None:
        super().__init__(message)
        self.smallest = smallest


@dataclasses.dataclass(frozen=True)
class TicketSize:
    """What the size of a network's ticket depends on beside k.

    Attributes:
        sizes: int, the weights of each masked layer.
        others: int, the most bytes that a ticket takes beside its masks.
    """

    sizes: Sequence[int]
    others: int

    def __post_init__(self) -> None:
        if not self.sizes:
            raise ValueError("There is no masked layer.")

    def ticket_bytes(self, k: float) -> int:
        """Returns what a ticket takes at most: the exact limit of its counts, and all the rest of the file."""
        return self.bytes_of([selectors.count_kept(k, size) for size in self.sizes])

    def bytes_of(self, kept: Sequence[int]) -> int:
        """Returns the same for the counts of each layer."""
        manifest = self.others + _MANIFEST + _MANIFEST_OF_LAYER * len(self.sizes)
        return manifest + sum(map(_mask_bytes, self.sizes, kept))

    def fitting_k(self, budget: int, branch: str, low: float = 0.0, high: float = 1.0) -> float:
        """Returns the k in [low, high] whose ticket fits into the budget and is the largest of those that fit.

        Args:
            budget: bytes.
            branch: SPARSE for the largest k up to 0.5, DENSE for the smallest from 0.5 on.

        Raises:
            BudgetError: if none fits, saying what the smallest takes.
        """
        least = 0.5 / min(self.sizes)  # what keeps a weight of every layer
        while not selectors.count_kept(least, min(self.sizes)):
            least = math.nextafter(least, 1.0)
        if least > high:
            raise ValueError(
                f"`k` must be {least:.{_DIGITS}g} or more to keep a weight of every layer. Received: {high}."
            )
        best, worst = (max(low, least), max(min(high, 0.5), least)) if branch == SPARSE else (high, max(low, 0.5))
        smallest = self.ticket_bytes(best)
        if smallest > budget:
            raise BudgetError(
                f"No ticket fits into {budget:,} bytes: the smallest, at k = {best:.{_DIGITS}g}, takes {smallest:,}.",
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
        # Few digits, on the side that fits.
        rounded = (math.floor if branch == SPARSE else math.ceil)(best / unit) * unit
        inside = max(low, least) <= rounded <= high
        return round(rounded, _DIGITS) if self.ticket_bytes(rounded) <= budget and inside else best


def _mask_bytes(size: int, kept: int) -> int:
    blocks = -(-size // mask_coding.BLOCK)
    bits = selectors.entropy_bits(size, kept) * (1 + _CODER_SHARE) + _CODER_BITS * blocks
    return math.ceil(bits / 8)
