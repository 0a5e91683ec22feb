"""Makes the plain model of a ticket's content, and checks all its weights."""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import rich.console
import rich.progress

from keras_popup import _keras
from keras_popup.tickets import allowlist, architecture, file_format, limits, mask_record
from keras_popup.tickets.base import Base
from keras_popup.tickets.file_format import Ticket, TicketError

Masks = dict[tuple[str, str], Any]
"""Masks as packed bits, by (path of the layer, key of the kernel)."""

_SHOW_PROGRESS_FROM = 20_000_000  # weights; they take about a second


def unpack(
    ticket: Ticket,
    base: Base | None,
    custom_objects: dict[str, Any] | None,
    trust: Sequence[str],
    max_bytes: int,
    advance: Callable[[int], Any] = lambda done: None,
    *,
    masked: bool = False,
) -> tuple[keras.Model, Masks]:
    """Returns the plain model of a ticket, with its weights, and its masks.

    Args:
        ticket: the ticket.
        base: the base model; None if there is none.
        custom_objects, trust, max_bytes: as in `load_ticket`.
        advance: function that is called with the number of weights after each kernel.
        masked: bool, whether the model will be masked again, which takes more memory.

    Raises:
        TicketError: as in `load_ticket`.
    """
    limits.check(ticket, max_bytes, masked=masked)
    trusted = allowlist.import_trusted(trust)
    plain = architecture.build_plain(ticket, custom_objects, max_bytes, trust=trusted)
    stores = read_stores(ticket, base)
    files = read_files(ticket)
    records: dict[str, list[file_format.Mask]] = {}
    for record in ticket.masks:
        records.setdefault(record.layer, []).append(record)
    masks: Masks = {}
    for path, layer in architecture.list_layers(plain):
        store = {name: np.asarray(value) for name, value in stores.pop(path, {}).items()}
        for record in records.get(path, ()):
            mask, store[record.key] = mask_record.decode_kernel(record, base)
            masks[path, record.key] = mask_record.pack_mask(mask)
            del mask
            advance(record.size)
        architecture.load(layer, path, store, files.pop(path, {}))
        _keras.set_trainable(layer, path not in ticket.untrainable)
    if files:
        raise TicketError(f"it has files of layers that are not in its model: {sorted(files)}")
    return plain, masks


def read_stores(ticket: Ticket, base: Base | None) -> dict[str, dict[str, Any]]:
    """Returns the weights that are not masked kernels, by the path of the layer and the key: those of the base too.

    Raises:
        TicketError: if one is damaged, or is not in the base.
    """
    if ticket.base and base is None:
        raise TicketError(mask_record.NEEDS_BASE)
    stores: dict[str, dict[str, Any]] = {}
    if ticket.base and base:
        for item in ticket.base.tensors:
            stores.setdefault(item.layer, {})[item.name] = base.read_tensor(item)
    for tensor in ticket.tensors:
        stores.setdefault(tensor.layer, {})[tensor.name] = file_format.array(tensor)
    return stores


def read_files(ticket: Ticket) -> dict[str, dict[str, bytes]]:
    """Returns the files of layers by the path of the layer and the name. Raises TicketError if one is damaged."""
    files: dict[str, dict[str, bytes]] = {}
    for asset in ticket.assets:
        files.setdefault(asset.layer, {})[asset.name] = file_format.content(asset)
    return files


@contextlib.contextmanager
def add_path(path: str | os.PathLike[str], what: str = "Ticket") -> Iterator[None]:
    """Adds the path of the file to the message of a TicketError."""
    try:
        yield
    except TicketError as error:
        raise TicketError(f"{what} '{path}' cannot be used: {file_format.printable(str(error))}.") from error.__cause__


@contextlib.contextmanager
def show_progress(task_name: str, weights: int) -> Iterator[Callable[[int], Any]]:
    """Shows a progress bar on a terminal, if there are enough weights to take seconds."""
    console = rich.console.Console(stderr=True)
    hidden = weights < _SHOW_PROGRESS_FROM or not console.is_terminal
    with rich.progress.Progress(console=console, transient=True, disable=hidden) as progress:
        task = progress.add_task(task_name, total=weights)
        yield lambda done: progress.advance(task, done)
