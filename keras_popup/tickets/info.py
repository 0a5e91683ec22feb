"""The contents of a ticket, as a table."""

import dataclasses
from pathlib import Path
from typing import Any

import rich.box
import rich.table

from keras_popup._tables import format_table
from keras_popup.tickets import mask_record
from keras_popup.tickets.file_format import Ticket, printable

UNKNOWN_INPUT = (
    "input as the model was trained on: unknown. Whoever made this ticket did not say whether pixels are to be scaled, "
    "for example; save_ticket(model, ..., preprocess=[layers]) puts that into the model."
)

PACKAGES = ("keras-popup", "keras", "tensorflow", "numpy", "constriction")  # whose versions a ticket records

_MOST_CLASSES = 10  # whose names are shown


def read_classes(made: dict[str, Any]) -> tuple[str, ...]:
    """Returns the names of the classes in what a ticket says of its origin; () if it does not have them."""
    found = made.get("classes")
    return tuple(map(str, found)) if isinstance(found, list) else ()


@dataclasses.dataclass(frozen=True)
class TicketRow:
    """A masked kernel in a ticket.

    Attributes:
        path: str, the path of the layer: the names of the layers that hold it, then its own name.
        kind: str, the class of the layer.
        weights: int, the number of weights of the kernel.
        kept: int, the number of weights that the mask keeps.
        k: float, the fraction kept.
        seed: int, the seed from which the kernel is drawn. None if the file holds the kept weights.
        mask_bytes: int, the size of the coded mask.
        limit_bytes: float, log2 C(weights, kept) in bytes: the size of a mask if only `kept` is known of it.
        other_bytes: int, the size of the layer's other weights, and of the kept weights if the file holds them.
        in_base: bool, whether the base has the kernel.
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
    in_base: bool = False


@dataclasses.dataclass(frozen=True)
class TicketInfo:
    """The contents of a ticket. `str()` gives a table.

    Attributes:
        path: str, the path of the file.
        bytes: int, the size of the file.
        name: str, the name of the model.
        layers: tuple of `TicketRow`.
        tensor_bytes: int, the size of the weights and files of other layers, such as moving statistics.
        base: str, the name of the base model that it needs; None if it needs none.
        made: dict: "versions" of libraries; "preprocessing", the names of the layers that prepare the inputs; and what
            was passed to `save_ticket`: "classes", "dataset", "arguments", "metrics" and "notes".
    """

    path: str
    bytes: int
    name: str
    layers: tuple[TicketRow, ...]
    tensor_bytes: int
    made: dict[str, Any]
    base: str | None = None

    @property
    def weights(self) -> int:
        """The number of weights of all masked kernels."""
        return sum(row.weights for row in self.layers)

    @property
    def mask_bytes(self) -> int:
        """The size of all coded masks, in bytes."""
        return sum(row.mask_bytes for row in self.layers)

    @property
    def limit_bytes(self) -> float:
        """The size of all masks if only their numbers of kept weights are known, in bytes."""
        return sum(row.limit_bytes for row in self.layers)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the model's outputs; () if the ticket does not have them."""
        return read_classes(self.made)

    def _describe_input(self) -> str:
        layers = self.made.get("preprocessing")
        if not isinstance(layers, list):
            return UNKNOWN_INPUT.partition(": ")[0].capitalize() + ": unknown"
        return f"Input: as it comes{', prepared by ' + ', '.join(map(str, layers)) if layers else ''}"

    def __str__(self) -> str:
        table = rich.table.Table(box=rich.box.SIMPLE_HEAD)
        for title in ("layer", "kind", "weights", "kept", "k", "seed", "bits/weight", "limit", "of limit", "of file"):
            table.add_column(title, justify="left" if title in ("layer", "kind") else "right", max_width=70)

        def add(title: str, kind: str, k: str, seed: str, size: int, kept: int, mask: int, limit: float) -> None:
            bits = (f"{8 * mask / size:.4f}", f"{8 * limit / size:.4f}", f"{mask / limit:.1%}" if limit else "")
            table.add_row(title, kind, f"{size:,}", f"{kept:,}", k, seed, *bits, f"{mask / self.bytes:.1%}")

        for row in self.layers:
            seed = str(row.seed) if row.seed is not None else "in the base" if row.in_base else "in the file"
            add(row.path, row.kind, f"{row.k:.4g}", seed, row.weights, row.kept, row.mask_bytes, row.limit_bytes)
        table.add_section()
        kept = sum(row.kept for row in self.layers)
        add("all masks", "", "", "", self.weights, kept, self.mask_bytes, self.limit_bytes)
        others = self.tensor_bytes + sum(row.other_bytes for row in self.layers)
        lines = [
            f"Ticket of model: {self.name}",
            format_table(table),
            f" File: {self.bytes:,} bytes, {8 * self.bytes / self.weights:.4f} bits per masked weight",
            f" Masks: {self.mask_bytes:,} bytes; {self.limit_bytes:,.0f} bytes if only k were known of them",
            f" Other weights: {others:,} bytes",
            f" Architecture and tables: {self.bytes - self.mask_bytes - others:,} bytes",
        ]
        if self.base is not None:
            lines.append(f" Needs the base: {self.base}")
        lines.append(f" {self._describe_input()}")
        if self.classes:
            more = ", ..." if len(self.classes) > _MOST_CLASSES else ""
            lines.append(f" Classes: {len(self.classes)}: {', '.join(self.classes[:_MOST_CLASSES])}{more}")
        for name, value in self.made.items():
            if name in ("preprocessing", "classes"):
                continue
            items = value.items() if isinstance(value, dict) else [("", value)]
            texts = [f"{key} {item:.6g}" if isinstance(item, float) else f"{key} {item}" for key, item in items]
            lines.append(f" {name.capitalize()}: {', '.join(texts).strip()}")
        # Some of this text comes from the file. It must not contain control characters for the terminal.
        return printable("\n".join(lines))


@dataclasses.dataclass(frozen=True)
class PackInfo:
    """The contents of a pack. `str()` gives a table.

    Attributes:
        path: str, the path of the file.
        bytes: int, the size of the file.
        base: str, the name of the base model.
        base_bytes: int, the size of the base in the file; 0 if the file does not hold it.
        tasks: dict of `TicketInfo` by the names of the tasks.
    """

    path: str
    bytes: int
    base: str
    base_bytes: int
    tasks: dict[str, TicketInfo]

    def __str__(self) -> str:
        table = rich.table.Table(box=rich.box.SIMPLE_HEAD)
        for title in ("task", "bytes", "weights", "kept", "bits/weight", "accuracy", "input", "classes"):
            table.add_column(title, justify="left" if title in ("task", "input", "classes") else "right", max_width=70)
        for name, task in self.tasks.items():
            metrics = task.made.get("metrics")
            accuracy = metrics.get("accuracy") if isinstance(metrics, dict) else None
            names = ", ".join(task.classes[:_MOST_CLASSES]) + (", ..." if len(task.classes) > _MOST_CLASSES else "")
            shown = f"{accuracy:.2%}" if isinstance(accuracy, float) else ""
            kept = sum(row.kept for row in task.layers)
            sizes = (f"{task.bytes:,}", f"{task.weights:,}", f"{kept:,}", f"{8 * task.bytes / task.weights:.3f}")
            layers = task.made.get("preprocessing")
            prepared = ", ".join(map(str, layers)) if isinstance(layers, list) else "unknown"
            table.add_row(name, *sizes, shown, prepared or "as it comes", names)
        base = f"in the file, {self.base_bytes:,} bytes" if self.base_bytes else "not in the file; pass it to load this"
        lines = [
            f"Pack of {len(self.tasks)} task{'s' if len(self.tasks) != 1 else ''}",
            format_table(table),
            f" File: {self.bytes:,} bytes",
            f" Base: {self.base}, {base}",
        ]
        return printable("\n".join(lines))


def describe(path: Path, size: int, ticket: Ticket) -> TicketInfo:
    """Returns the contents of a ticket.

    Args:
        path: the file.
        size: int, the size of the file in bytes.
        ticket: its content.
    """
    masked_layers = dict.fromkeys((mask.layer for mask in ticket.masks), 0)  # bytes of their other weights
    others = sum(len(asset.data) for asset in ticket.assets)
    for tensor in ticket.tensors:
        if tensor.layer in masked_layers:
            masked_layers[tensor.layer] += len(tensor.data)
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
            limit_bytes=mask_record.compute_limit(mask) / 8,
            other_bytes=masked_layers[mask.layer] + len(mask.values),
            in_base=bool(mask.arguments.get("base")),
        )
        for mask in ticket.masks
    ]
    name = str(ticket.model.get("config", {}).get("name", ""))
    base = ticket.base.name if ticket.base else None
    return TicketInfo(str(path), size, name, tuple(rows), others, ticket.made, base)
