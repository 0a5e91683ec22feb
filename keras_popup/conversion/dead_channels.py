"""Channels that change nothing, counted layer by layer."""

import dataclasses
from typing import Any

import rich.box
import rich.table

from keras_popup._tables import format_table
from keras_popup.conversion.channels import ChannelGraph


@dataclasses.dataclass(frozen=True)
class DeadLayer:
    """The channels of one layer.

    Attributes:
        path: str, the path of the layer.
        channels: int, how many channels the layer gives.
        leaving: int, how many of them can leave.
        staying: dict from reasons to the number of channels that stay for them, though they are constant.
    """

    path: str
    channels: int
    leaving: int
    staying: dict[str, int]


@dataclasses.dataclass(frozen=True)
class DeadChannels:
    """The channels of a model that change nothing. `str()` gives a table.

    Attributes:
        name: str, the name of the model.
        layers: tuple of `DeadLayer`, one for each Dense layer and convolution that can get smaller.
    """

    name: str
    layers: tuple[DeadLayer, ...]

    @property
    def channels(self) -> int:
        """How many channels these layers give."""
        return sum(layer.channels for layer in self.layers)

    @property
    def leaving(self) -> int:
        """How many of them can leave."""
        return sum(layer.leaving for layer in self.layers)

    @property
    def staying(self) -> dict[str, int]:
        """How many constant channels stay, by the reasons why."""
        counts: dict[str, int] = {}
        for layer in self.layers:
            for reason, number in layer.staying.items():
                counts[reason] = counts.get(reason, 0) + number
        return counts

    def summary(self) -> str:
        """Returns the numbers in one line."""
        line = f"{self.leaving:,} of {self.channels:,} channels of model '{self.name}' leave."
        return f"{line} Constant, but stay: {_format_reasons(self.staying)}." if self.staying else line

    def __str__(self) -> str:
        table = rich.table.Table(box=rich.box.SIMPLE_HEAD)
        for title in ("layer", "channels", "can leave", "constant, but stay"):
            table.add_column(title, justify="right" if title in ("channels", "can leave") else "left", max_width=70)
        for layer in self.layers:
            table.add_row(layer.path, f"{layer.channels:,}", f"{layer.leaving:,}", _format_reasons(layer.staying))
        table.add_section()
        table.add_row("all layers", f"{self.channels:,}", f"{self.leaving:,}", f"{sum(self.staying.values()):,}")
        return "\n".join([f"Dead channels of model: {self.name}", format_table(table)])


def _format_reasons(staying: dict[str, int]) -> str:
    return "; ".join(f"{number:,}: {reason}" for reason, number in staying.items())


def describe(model: Any, graphs: list[ChannelGraph]) -> DeadChannels:
    """Counts the channels of a model, from what `follow_channels` has found."""
    rows = []
    for graph in graphs:
        for layer, channels in graph.producers:
            leaving = int((~graph.is_kept(channels)).sum())
            path = f"{graph.path}{layer.name}"
            rows.append(DeadLayer(path, len(channels.slots), leaving, graph.count_reasons(channels)))
    return DeadChannels(model.name, tuple(rows))
