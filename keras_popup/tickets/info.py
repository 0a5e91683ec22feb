"""What is in a ticket, as a table."""

import dataclasses
import io
from pathlib import Path
from typing import Any

import rich.box
import rich.console
import rich.table

from keras_popup import selectors
from keras_popup.tickets.file_format import Ticket, printable


@dataclasses.dataclass(frozen=True)
class TicketRow:
    """A masked layer in a ticket.

    Attributes:
        path: str, its name, behind those of the layers that hold it.
        kind: str, its class.
        weights: int, how many weights its kernel has.
        kept: int, how many of them the mask keeps.
        k: float, the fraction kept.
        seed: int, of which the kernel is drawn. None if the weights kept are in the file.
        mask_bytes: int, the size of the coded mask.
        limit_bytes: float, log2 C(weights, kept) in bytes: the size of a mask of which nothing else is known.
        other_bytes: int, the size of the layer's bias, and of the weights kept if they are in the file.
    """

    path: str
    kind: str
    weights: int
    kept: int
    k: float
    seed: int | None
    mask_bytes: int
    limit_bytes: float
    other_bytes: int


@dataclasses.dataclass(frozen=True)
class TicketInfo:
    """What is in a ticket. As a str, a table.

    Attributes:
        path: str, the file.
        bytes: int, its size.
        name: str, the model's name.
        layers: tuple of `TicketRow`.
        tensor_bytes: int, the size of weights of other layers, such as moving statistics.
        made: dict: "versions" of libraries, and "dataset", "metrics" and "notes" as they were given.
    """

    path: str
    bytes: int
    name: str
    layers: tuple[TicketRow, ...]
    tensor_bytes: int
    made: dict[str, Any]

    @property
    def weights(self) -> int:
        """How many weights the masked kernels have."""
        return sum(row.weights for row in self.layers)

    @property
    def mask_bytes(self) -> int:
        """The size of all coded masks."""
        return sum(row.mask_bytes for row in self.layers)

    @property
    def limit_bytes(self) -> float:
        """What masks of these counts take if nothing else is known of them."""
        return sum(row.limit_bytes for row in self.layers)

    def __str__(self) -> str:
        table = rich.table.Table(box=rich.box.SIMPLE_HEAD)
        for title in ("layer", "kind", "weights", "kept", "k", "seed", "bits/weight", "limit", "of limit", "of file"):
            table.add_column(title, justify="left" if title in ("layer", "kind") else "right", max_width=70)

        def add(title: str, kind: str, k: str, seed: str, size: int, kept: int, mask: int, limit: float) -> None:
            bits = (f"{8 * mask / size:.4f}", f"{8 * limit / size:.4f}", f"{mask / limit:.1%}" if limit else "")
            table.add_row(title, kind, f"{size:,}", f"{kept:,}", k, seed, *bits, f"{mask / self.bytes:.1%}")

        for row in self.layers:
            seed = "in the file" if row.seed is None else str(row.seed)
            add(row.path, row.kind, f"{row.k:.4g}", seed, row.weights, row.kept, row.mask_bytes, row.limit_bytes)
        table.add_section()
        kept = sum(row.kept for row in self.layers)
        add("all masks", "", "", "", self.weights, kept, self.mask_bytes, self.limit_bytes)
        text = io.StringIO()
        rich.console.Console(file=text, width=250, color_system=None, highlight=False, markup=False).print(table)
        others = self.tensor_bytes + sum(row.other_bytes for row in self.layers)
        lines = [
            f"Ticket of model: {self.name}",
            "\n".join(line.rstrip() for line in text.getvalue().splitlines() if line.strip()),
            f" File: {self.bytes:,} bytes, {8 * self.bytes / self.weights:.4f} bits per masked weight",
            f" Masks: {self.mask_bytes:,} bytes; {self.limit_bytes:,.0f} bytes if nothing were known of them but k",
            f" Other weights: {others:,} bytes",
            f" Architecture and tables: {self.bytes - self.mask_bytes - others:,} bytes",
        ]
        for name, value in self.made.items():
            items = value.items() if isinstance(value, dict) else [("", value)]
            texts = [f"{key} {each:.6g}" if isinstance(each, float) else f"{key} {each}" for key, each in items]
            lines.append(f" {name.capitalize()}: {', '.join(texts).strip()}")
        # Whoever made the file has written some of this: nothing in it may move the cursor of a terminal.
        return printable("\n".join(lines))


def describe(path: Path, size: int, ticket: Ticket) -> TicketInfo:
    """Returns what is in a ticket of `size` bytes."""
    masked = {mask.layer for mask in ticket.masks}
    own = dict.fromkeys(masked, 0)
    others = sum(len(asset.data) for asset in ticket.assets)
    for tensor in ticket.tensors:
        if tensor.layer in own:
            own[tensor.layer] += len(tensor.data)
        else:
            others += len(tensor.data)
    rows = [
        TicketRow(
            path=mask.layer,
            kind=mask.kind,
            weights=mask.size,
            kept=mask.kept,
            k=mask.arguments["k"],
            seed=mask.seed,
            mask_bytes=len(mask.tables) + len(mask.stream),
            limit_bytes=selectors.entropy_bits(mask.size, mask.kept) / 8,
            other_bytes=own[mask.layer] + len(mask.values),
        )
        for mask in ticket.masks
    ]
    name = str(ticket.model.get("config", {}).get("name", ""))
    return TicketInfo(str(path), size, name, tuple(rows), others, ticket.made)
