"""The bytes of a pack: a header, a manifest in JSON, complete tickets, and a checksum.

A pack may come from a stranger, as a ticket may. docs/ticket-format.md describes the bytes.
"""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from keras_popup._files import PACK_MAGIC
from keras_popup.tickets import file_format, mask_coding
from keras_popup.tickets.file_format import DIGEST, HEADER, Ticket, TicketError

_MOST_MANIFEST = 1 << 24


@dataclasses.dataclass(frozen=True)
class PackedTask:
    """A task in a pack.

    Attributes:
        name: str, the name of the task.
        inputs: the shapes and dtypes of its inputs, as JSON; None if its model does not tell.
        ticket: its ticket.
        bytes: int, the size of the ticket.
    """

    name: str
    inputs: list[Any] | None
    ticket: Ticket
    bytes: int = 0


@dataclasses.dataclass(frozen=True)
class Pack:
    """The content of a pack.

    Attributes:
        base_name: str, the name of the base that the tasks need.
        base: a ticket without masks that holds the base; None if the pack does not hold it.
        tasks: tuple of `PackedTask`.
        base_bytes: int, the size of the base.
    """

    base_name: str
    base: Ticket | None
    tasks: tuple[PackedTask, ...]
    base_bytes: int = 0


def write(path: Path, pack: Pack) -> int:
    """Writes a pack, completely or not at all, and returns its size in bytes."""
    base = b"" if pack.base is None else file_format.to_bytes(pack.base)
    tickets = [file_format.to_bytes(task.ticket) for task in pack.tasks]
    manifest = {
        "base": {"name": pack.base_name, "bytes": len(base)},
        "tasks": [
            {"name": task.name, "bytes": len(ticket), "inputs": task.inputs, "k": _list_fractions(task.ticket)}
            for task, ticket in zip(pack.tasks, tickets, strict=True)
        ],
    }
    content = file_format.seal(PACK_MAGIC, manifest, [base, *tickets])
    file_format.write(path, content)
    return len(content)


def read(path: Path, max_bytes: int) -> Pack:
    """Reads a pack, and makes all checks that are possible without unpacking weights.

    Args:
        path: the file.
        max_bytes: int, the limit for the size of the file, and for the unpacked weights of each ticket in it.

    Raises:
        OSError: if the file cannot be read.
        TicketError: if the file is not a complete pack, or if it or a ticket in it exceeds `max_bytes`.
    """
    file_format.check_max_bytes(max_bytes)
    size = path.stat().st_size
    with open(path, "rb") as file:
        header = file.read(HEADER.size)
        if not header.startswith(PACK_MAGIC):
            raise TicketError(f"not a pack of tickets: wrong magic bytes {header[:8]!r}, expected {PACK_MAGIC!r}")
        file_format.check_start(header, size, max_bytes)
        *_, expected, packed_size, text_size = HEADER.unpack(header)
        if size != expected:
            raise TicketError(f"it is damaged: it has {size:,} bytes, and should have {expected:,}")
        content = header + file.read(size - len(header))
    if hashlib.sha256(content[:-DIGEST]).digest() != content[-DIGEST:]:
        raise TicketError("it is damaged: it was changed after it was written, as its checksum does not match")
    try:
        return _parse(content, packed_size, text_size, max_bytes)
    except RecursionError:
        raise TicketError("its manifest is nested too deeply") from None
    except ValueError as error:
        raise TicketError(str(error)) from None


def _parse(content: bytes, packed_size: int, text_size: int, max_bytes: int) -> Pack:
    if text_size > _MOST_MANIFEST:
        raise ValueError(f"its manifest has {text_size:,} bytes, more than {_MOST_MANIFEST:,}")
    end = HEADER.size + packed_size
    manifest = json.loads(mask_coding.inflate(content[HEADER.size : end], text_size))
    if not isinstance(manifest, dict):
        raise ValueError("its manifest is not a JSON object")
    of_base = file_format.get_value(manifest, "base", dict, "its manifest")
    base_name = file_format.get_value(of_base, "name", str, "its base")
    entries = file_format.get_value(manifest, "tasks", list, "its manifest")

    def take(entry: Any, where: str, needs_masks: bool = True) -> Ticket:
        nonlocal end
        length = file_format.get_value(entry, "bytes", int, where)
        begin, end = end, end + length
        if length < 0 or end > len(content) - DIGEST:
            raise ValueError(f"{where} would end at byte {end:,}, after the end of the tickets")
        try:
            checked = file_format.check_content(content[begin:end], max_bytes)
            return file_format.from_bytes(checked, max_bytes, needs_masks=needs_masks)
        except TicketError as error:
            raise ValueError(f"{where}: {error}") from None

    base = take(of_base, "its base", needs_masks=False) if of_base.get("bytes") != 0 else None
    tasks: dict[str, PackedTask] = {}
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise ValueError(f"entry {number} of its tasks is not a JSON object")
        name = file_format.get_value(entry, "name", str, f"entry {number} of its tasks")
        if name in tasks:
            raise ValueError(f"it has two tasks named '{name}'")
        ticket = take(entry, f"task '{name}'")
        if (k := _list_fractions(ticket)) != entry.get("k"):
            raise ValueError(f"task '{name}' has k = {k}, but the list of tasks says {str(entry.get('k'))[:80]}")
        tasks[name] = PackedTask(name, entry.get("inputs"), ticket, entry["bytes"])
    if end + DIGEST != len(content):
        raise ValueError(f"its tickets end at byte {end:,}, but it has {len(content):,} bytes")
    return Pack(base_name, base, tuple(tasks.values()), of_base["bytes"])


def _list_fractions(ticket: Ticket) -> list[float]:
    """Returns the fractions kept of all kernels, in the order of the masks."""
    return [mask.arguments["k"] for mask in ticket.masks]
