"""The records in the files of a run: their schemas."""

import base64
import dataclasses
import math
from typing import Any

from keras_popup.records.folder import History
from keras_popup.records.trial_records import LayerRecord, Metrics


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointRecord:
    """A finished epoch: checkpoint.json.

    Attributes:
        epoch: int, the epochs that are finished.
        seconds: float, the time that they took.
        history: a dict for each of them.
        weights: str, the SHA-256 of the file of weights; None in earlier versions.
    """

    epoch: int
    seconds: float
    history: History
    weights: str | None = None

    def __post_init__(self) -> None:
        if self.epoch < 1:
            raise ValueError(f"epoch is {self.epoch}, where an epoch from 1 on is expected")
        epochs = [row.get("epoch") for row in self.history]
        if epochs != list(range(1, self.epoch + 1)):
            raise ValueError(f"its history is not that of epochs 1 to {self.epoch}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataRecord:
    """The data of a run: how many images there were.

    Attributes:
        train, validation, test: int, the images of each part.
    """

    train: int
    validation: int
    test: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class SummaryRecord:
    """What `train` returns of a finished run: summary.json.

    Attributes:
        train: metrics of the last epoch.
        validation: metrics of the validation images after the last epoch; None without such images.
        test: metrics of the test images; None if they were not used.
        weights: int, the weights of all layers.
        kept: int, how many of them are kept.
        layers: the same for each layer.
        epochs: int, the epochs that are finished.
        seconds: float, the time that training took.
        images_per_second: float.
        data: the images.
        config: dict of the arguments.
        versions: the versions of libraries.
        test_draws: metrics of drawn masks; None without.
        ticket_bytes: int, the bytes of the ticket; None without.
        files: the SHA-256 of the other files, by name. Empty in earlier versions.
    """

    train: Metrics
    validation: Metrics | None
    test: Metrics | None
    weights: int
    kept: int
    layers: tuple[LayerRecord, ...]
    epochs: int
    seconds: float
    images_per_second: float
    data: DataRecord
    config: dict[str, Any]
    versions: dict[str, str]
    test_draws: Metrics | None = None
    ticket_bytes: int | None = None
    files: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskRecord:
    """Where the mask of a kernel keeps weights, and the scores that decide it.

    Attributes:
        path: str, the path of the layer; the kernel's name follows if the layer has several.
        weights, kept: int, its weights, and those of them that are kept.
        rows, columns: int, the shape of the map: inputs and outputs, averaged where there are many.
        map: str, a byte for each cell, row by row, as base64: 0 if nothing is kept, 255 if all is.
        low, high: float, the smallest and the largest score.
        scores_kept, scores_left_out: how many weights have a score in each of equal parts from `low` to `high`.
    """

    path: str
    weights: int
    kept: int
    rows: int
    columns: int
    map: str
    low: float
    high: float
    scores_kept: list[int]
    scores_left_out: list[int]

    def __post_init__(self) -> None:
        if self.rows < 1 or self.columns < 1 or len(self.cells()) != self.rows * self.columns:
            raise ValueError(f"the map of '{self.path}' has not {self.rows} x {self.columns} cells")
        if not 0 <= self.kept <= self.weights or not self.weights:
            raise ValueError(f"'{self.path}' keeps {self.kept} of {self.weights} weights")
        same = 0 < len(self.scores_kept) == len(self.scores_left_out)
        if not same or not -math.inf < self.low <= self.high < math.inf:
            raise ValueError(f"the scores of '{self.path}' are not in equal parts from {self.low} to {self.high}")

    def cells(self) -> bytes:
        """Returns the bytes of the map."""
        return base64.b64decode(self.map)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MasksRecord:
    """The masks of a trained network: masks.json.

    Attributes:
        kernels: the first of its masked kernels.
        total: int, how many it has.
    """

    kernels: tuple[MaskRecord, ...]
    total: int
