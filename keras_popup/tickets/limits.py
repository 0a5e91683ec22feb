"""What it takes to load a ticket: memory at the peak, and steps of decoding. Both are known before either is spent.

The bytes were measured, for one kernel of each kind of mask (`python benchmarks/ticket_memory.py`), and rounded up.
"""

from typing import Any

from keras_popup.tickets.file_format import BaseTensor, Mask, Tensor, Ticket, TicketError, bytes_of

_PLAIN = 12  # bytes a weight of the kernel that is decoded, in addition to its variable
_IN_PLANES = 16  # if its mask is coded in planes of bits
_FIXED = 28  # if parts of it are fixed, which are drawn from a seed and sorted
_MASKED = 28  # for `masked=True`: while scores for its mask are made and the mask is chosen again
_SCORES = 4

_STEPS_PER_BYTE = 1  # of some 10 ns: `python benchmarks/ticket_time.py`


def check(ticket: Ticket, max_bytes: int, *, masked: bool = False) -> None:
    """Raises TicketError if loading a ticket takes more memory or more steps than `max_bytes` allows.

    Args:
        ticket: the ticket.
        max_bytes: as in `load_ticket`.
        masked: as in `load_ticket`.
    """
    if (peak := compute_peak(ticket, masked=masked)) > max_bytes:
        raise TicketError(
            f"loading it would take some {peak:,} bytes at the peak, more than max_bytes={max_bytes:,}. Raise "
            "max_bytes if you trust the file"
        )
    if (steps := count_steps(ticket)) > (limit := _STEPS_PER_BYTE * max_bytes):
        raise TicketError(
            f"decoding it would take {steps:,} steps, more than the {limit:,} that max_bytes={max_bytes:,} allows. "
            "Raise max_bytes if you trust the file"
        )


def compute_peak(ticket: Ticket, *, masked: bool = False) -> int:
    """Returns the bytes that loading a ticket takes at the peak, a little more than it does.

    Kernels are decoded one after the other. So the largest one counts several times, the others by what stays of them.
    """
    stays = sum(bytes_of(mask.shape, mask.dtype) + (1 + _SCORES * int(masked)) * mask.size for mask in ticket.masks)
    # Arrays of the file, or of the base, are all there before the first variable gets its values.
    tensors: list[Tensor | BaseTensor] = [*ticket.tensors, *(ticket.base.tensors if ticket.base else ())]
    stays += sum(2 * bytes_of(tensor.shape, tensor.dtype) for tensor in tensors)
    stays += sum(asset.size for asset in ticket.assets)
    read = sum(len(getattr(part, name)) for part in _list_parts(ticket) for name in part.DATA)
    return int(stays + read + max((_count_working(mask, masked) for mask in ticket.masks), default=0))


def count_steps(ticket: Ticket) -> int:
    """Returns how often decoding passes over a weight: once for each kernel, and once for each plane or redraw."""
    return sum(mask.size * (1 + sum(map(len, _list_passes(mask.arguments)))) for mask in ticket.masks)


def _list_parts(ticket: Ticket) -> list[Any]:
    return [*ticket.masks, *ticket.tensors, *ticket.assets]


def _count_working(mask: Mask, masked: bool) -> int:
    coding = mask.arguments.get("coding")
    fixed = isinstance(coding, dict) and "pruned" in coding
    each = _FIXED if fixed else _IN_PLANES if coding is not None else _PLAIN
    # Kernels of more than four bytes a weight are there several times, like those of four.
    wider = 3 * max(0, bytes_of(mask.shape, mask.dtype) - 4 * mask.size)
    return mask.size * max(each, _MASKED * int(masked)) + wider


def _list_passes(arguments: dict[str, Any]) -> list[list[Any]]:
    """Returns the lists of a record's arguments that have an item for each pass, as far as they are lists."""
    described = [arguments.get("coding"), arguments.get("redraws")]
    lists = [each.get(name) for each in described if isinstance(each, dict) for name in ("planes", "numbers")]
    return [each for each in lists if isinstance(each, list)]
