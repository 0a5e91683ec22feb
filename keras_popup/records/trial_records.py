"""The records in the files of a search, as objects. Loads no TensorFlow."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol, Self

from keras_popup.records.folder import History
from keras_popup.records.schemas import parse

Metrics = dict[str, float]
"""Numbers by the names that Keras gives them, such as "loss" and "accuracy"."""


_MADE_AGAIN = "with --resume, they are taken from their run folders, or trained again."


class Record(Protocol):
    """A record that is one line of a file.

    Attributes:
        file: str, the name of the file in the search folder.
        remedy: str, what to do if line {line} is damaged.
    """

    file: ClassVar[str]
    remedy: ClassVar[str]

    def to_json(self) -> dict[str, Any]:
        """Returns the record as a JSON object."""

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Returns the record that `to_json` wrote. Keys that it does not know are ignored."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerRecord:
    """How many weights a layer keeps.

    Attributes:
        name: str, the layer's name.
        weights: int, its weights.
        kept: int, how many of them are kept.
        k: float, its fraction; None without one.
        seed: int, the seed of its kernel; None without a mask.
    """

    name: str
    weights: int
    kept: int
    k: float | None = None
    seed: int | None = None

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        return parse(cls, content)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Execution:
    """One training run of a trial.

    Attributes:
        seed: int, the seed of the run.
        k: float, the fraction of weights kept.
        width: float, the width of the network.
        weights: int, the weights of all layers.
        kept: int, how many of them are kept.
        layers: the same for each layer.
        predicted_bytes: int, the most bytes that the ticket could take; None without a prediction.
        ticket_bytes: int, the bytes that the ticket takes; None without a ticket.
        train: metrics of the last epoch.
        validation: metrics of the validation images after the last epoch; None without such images.
        test: metrics of the test images; None if they were not used.
        seconds: float, the time that training took.
        history: a dict for each epoch.
        config: the arguments of the run, as `RunConfig.to_json` returns them.
    """

    seed: int
    k: float
    width: float
    weights: int
    kept: int
    layers: tuple[LayerRecord, ...]
    predicted_bytes: int | None
    ticket_bytes: int | None
    train: Metrics
    validation: Metrics | None
    test: Metrics | None
    seconds: float
    history: History
    config: dict[str, Any]

    @property
    def accuracy(self) -> float:
        """The validation accuracy after the last epoch."""
        return self.validation["accuracy"] if self.validation else math.nan

    def to_json(self) -> dict[str, Any]:
        content = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {**content, "layers": [layer.to_json() for layer in self.layers]}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        return parse(cls, content)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrialResult:
    """The result of a trial.

    Attributes:
        executions: its training runs that were finished.
        error: str, why it failed; None for success.
        traceback: str, where it failed.
        peak_memory_mb: int, the most memory that its process has had so far.
        retries: int, how often it went on after its process was lost.
    """

    executions: tuple[Execution, ...] = ()
    error: str | None = None
    traceback: str | None = None
    peak_memory_mb: int | None = None
    retries: int = 0

    @property
    def mean_accuracy(self) -> float | None:
        """The mean of the executions' validation accuracies, None if one of them has failed."""
        accuracies = [execution.accuracy for execution in self.executions]
        return sum(accuracies) / len(accuracies) if accuracies and not self.error else None

    def to_json(self) -> dict[str, Any]:
        common = [field.name for field in dataclasses.fields(TrialResult)]
        own = [field.name for field in dataclasses.fields(self) if field.name not in common]
        content = {name: getattr(self, name) for name in (*own, *common)}
        return {**content, "executions": [execution.to_json() for execution in self.executions]}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        return parse(cls, content)

    def common(self) -> dict[str, Any]:
        """Returns the fields of a `TrialResult`, which all its subclasses have."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(TrialResult)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrialRecord(TrialResult):
    """A trial that has ended: a line of trials.jsonl.

    Attributes:
        trial: int, its number, from 1.
        status: "completed" or "failed".
        hyperparameters: dict of the values that the tuner chose.
        until: int, the epoch after which it stopped; None for all epochs.
        score: float, its mean validation accuracy; None if it has failed.
        folder: str, where its run folders are, in the search folder.
        started: str, the time at which it began, in ISO format.
        seconds: float, how long it took.
        same_as: int, an equal trial that ran before and gave the results; None if this trial ran itself.
    """

    file: ClassVar[str] = "trials.jsonl"
    # The tuner chose each trial by those that had ended before.
    remedy: ClassVar[str] = (
        "Delete this line and those after it, and the lines of started.jsonl whose 'after' is {line} or more: "
        f"{_MADE_AGAIN}"
    )

    trial: int
    status: str
    hyperparameters: dict[str, Any]
    until: int | None
    score: float | None
    folder: str
    started: str
    seconds: float
    same_as: int | None = None

    def __post_init__(self) -> None:
        if self.score is not None and not self.executions:
            raise ValueError("it has a score, and no executions")

    def to_json(self) -> dict[str, Any]:
        content = super().to_json()
        if self.same_as is None:
            del content["same_as"]
        return content


@dataclasses.dataclass(frozen=True, kw_only=True)
class BestRecord(TrialRecord):
    """The winner of a search: best.json.

    Attributes:
        execution: int, the number of its best execution, from 0.
        test: metrics of the test images, after a refit.
        refit: the summary of the run that trained it on all training images; None without.
    """

    file: ClassVar[str] = "best.json"
    remedy: ClassVar[str] = "Delete it: the search, with --resume, writes it again."

    execution: int
    test: Metrics | None = None
    refit: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.execution < len(self.executions):
            raise ValueError(f"execution is {self.execution}, and it has {len(self.executions)}")

    @property
    def best_execution(self) -> Execution:
        return self.executions[self.execution]


@dataclasses.dataclass(frozen=True, kw_only=True)
class BaselineRecord(TrialResult):
    """A network with learned weights: a line of baselines.jsonl.

    Attributes:
        width: float, its width.
        score: float, its mean validation accuracy; None if it has failed.
    """

    file: ClassVar[str] = "baselines.jsonl"
    remedy: ClassVar[str] = f"Delete this line: {_MADE_AGAIN}"

    width: float
    score: float | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class StartedRecord:
    """A trial that was started: a line of started.jsonl.

    Attributes:
        trial: int, its number, from 1.
        after: int, how many trials had ended before the tuner chose it.
        values: dict of all values of the tuner.
        length_scale: float, of the Gaussian process by which Bayesian optimization chose it; None without one.
    """

    file: ClassVar[str] = "started.jsonl"
    remedy: ClassVar[str] = (
        f"Delete this line and those after it, and the lines of trials.jsonl of trials {{line}} and up: {_MADE_AGAIN}"
    )

    trial: int
    after: int
    values: dict[str, Any]
    length_scale: float | None = None

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        return parse(cls, content)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Heartbeat:
    """The progress of a trial: alive.json in its folder. A trial counts as hung when it stops changing.

    Attributes:
        epoch: int, the epochs that are finished.
        epochs: int, the epochs of the whole trial.
        execution: int, the number of the training run, from 0.
        host, pid: the machine and the process that train it.
        batch, validation_batch: int, where it is within the epoch.
    """

    epoch: int
    epochs: int
    execution: int
    host: str
    pid: int
    batch: int | None = None
    validation_batch: int | None = None

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        return parse(cls, content)


def best_trial(ended: Sequence[TrialRecord]) -> TrialRecord | None:
    """Returns the winner: the most accurate of the trials with the most epochs; of equals the smallest, the first."""

    def rank(record: TrialRecord) -> tuple[float, ...]:
        size = record.executions[0].ticket_bytes or 0
        return -(record.until or math.inf), -(record.score or 0.0), size, record.trial

    return min((record for record in ended if record.score is not None), key=rank, default=None)
