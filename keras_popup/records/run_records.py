"""The records in the files of a run: their schemas."""

import dataclasses
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
