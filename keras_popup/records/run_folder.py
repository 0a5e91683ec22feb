"""The folder of a run.

config.json       the full configuration, with the protocol's values, and the versions of libraries
history.csv       one row per epoch
checkpoint.json   the last finished epoch, the history up to it, the seconds spent and the checksum of its weights
checkpoint-before.json   the same of the epoch before
checkpoint-*.weights.h5   weights and optimizer of these two epochs
model.keras       the model after the last epoch
summary.json      final metrics, kept and total counts, time, checksums of the other files; it is written last and marks
                  a finished run
masks.json        where the masks keep weights, as small maps
curves.png        the learning curves
masks.png, scores.png, flow.png   pictures of the masks, if they were asked for
report.html       the page about the run, likewise
tensorboard       statistics of the masks, if they were asked for
model.ticket      the network as a ticket, for a run of a search
.lock             held by the process that trains
"""

import contextlib
import csv
import dataclasses
import datetime
import io
import logging
import math
import os
from pathlib import Path
from typing import Any

from keras_popup._files import UNFINISHED, write_atomically
from keras_popup.records.checksums import DamagedError, hash_file, read_bytes
from keras_popup.records.folder import Folder, History, format_csv, write_csv
from keras_popup.records.run_records import CheckpointRecord, MasksRecord, SummaryRecord

_logger = logging.getLogger("keras_popup")

_CHECKPOINT, _BEFORE = "checkpoint.json", "checkpoint-before.json"
_HISTORY, _SUMMARY = "history.csv", "summary.json"
_MASKS = "masks.json"
_MODELS = ("model.keras", "model.ticket")

_BESIDES = 1 << 20  # bytes of names and structure, at most


def measure_bytes(model: Any) -> int:
    """Returns about how many bytes the file of a model and its optimizer takes."""
    variables = [*model.variables, *getattr(model.optimizer, "variables", ())]
    weights: int = sum(math.prod(each.shape) for each in variables)
    return _BESIDES + 4 * weights


def find_model(path: str) -> str:
    """Returns the path of a model's file: that in the folder of a run, or the path itself.

    Raises:
        DamagedError: if the file in the folder is not the one that the run has written.
    """
    if not os.path.isdir(path):
        return path
    run = RunFolder(path)
    run.check_model()
    return str(run.model)


class RunFolder(Folder):
    """The folder of one training run."""

    kind = "run"
    arguments = "config.json"
    files = (
        f"{UNFINISHED}*",
        "history.csv",
        "checkpoint.json",
        "checkpoint-before.json",
        "checkpoint-*.weights.h5",
        "model.keras",
        "model.ticket",
        "summary.json",
        "masks.json",
        "curves.png",
        "masks.png",
        "scores.png",
        "flow.png",
        "report.html",
        "tensorboard",
        "config.json",
    )
    folders = ("tensorboard",)

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        self.tensorboard = self.path / "tensorboard"
        self.curves = self.path / "curves.png"
        self.report = self.path / "report.html"
        self.model = self.path / "model.keras"
        self.ticket = self.path / "model.ticket"

    def summary(self) -> dict[str, Any] | None:
        """Returns the summary of a finished run; None before the end. Raises DamagedError if it is damaged."""
        if not os.path.lexists(self.path / _SUMMARY):
            return None
        content = self.read_content(_SUMMARY)
        self._parse(_SUMMARY, SummaryRecord, content)
        return {name: value for name, value in content.items() if name != "files"}

    def find_time(self) -> str:
        """Returns when the run was finished, or when its last epoch was, as text in ISO format."""
        file = self.path / (_SUMMARY if (self.path / _SUMMARY).exists() else _HISTORY)
        return datetime.datetime.fromtimestamp(file.stat().st_mtime, datetime.UTC).isoformat(timespec="seconds")

    def check_finished(self) -> None:
        """Checks the other files of a finished run: its history, and its model and ticket if they are there.

        Raises:
            DamagedError: naming the file that is not what was written.
        """
        self.history()
        for name in _MODELS:
            self.check_model(name)

    def check_model(self, name: str = "model.keras") -> None:
        """Checks a model or ticket of the folder, if it is there. Before the end of a run, its checksum is unknown.

        Raises:
            DamagedError: if it is not what was written.
        """
        if os.path.lexists(self.path / name):
            self.check_file(name, self._hashes())

    def _hashes(self) -> dict[str, str]:
        if not os.path.lexists(self.path / _SUMMARY):
            return {}
        return self.read(_SUMMARY, SummaryRecord).files

    def write_masks(self, record: MasksRecord) -> None:
        """Writes masks.json."""
        self.write(_MASKS, dataclasses.asdict(record))

    def masks(self) -> MasksRecord | None:
        """Returns what `write_masks` wrote; None if there is none. Raises DamagedError if it is damaged."""
        if not os.path.lexists(self.path / _MASKS):
            return None
        return self.read(_MASKS, MasksRecord, "Delete it: it is for pictures only.")

    def write_history(self, history: History) -> None:
        """Writes history.csv: `epoch` counted from 1, then the learning rate and metrics."""
        write_csv(self.path / _HISTORY, history)

    def history(self) -> History:
        """Returns the history that `write_history` wrote.

        Raises:
            DamagedError: if it is missing, holds anything else than a row of numbers for each epoch, or is another than
                that of a finished run.
        """
        path = self.path / _HISTORY
        self.check_file(_HISTORY, self._hashes())
        content = read_bytes(path)
        try:
            rows = list(csv.DictReader(io.StringIO(content.decode(), newline=""), strict=True))
            history = [{name: float(value) for name, value in row.items()} for row in rows]
            history = [{**row, "epoch": int(row["epoch"])} for row in history]
            if [row["epoch"] for row in history] != list(range(1, len(history) + 1)):
                raise ValueError("the epochs are not 1, 2, 3 and so on")
        except (ValueError, TypeError, KeyError, OverflowError, csv.Error):
            wrong = "is damaged: it is not a row of numbers for each epoch from 1 on"
            raise DamagedError(path, wrong) from None
        return history

    def save_checkpoint(self, model: Any, history: History, seconds: float) -> None:
        """Saves a model and its optimizer after `len(history)` epochs. The checkpoint before it is kept."""
        epoch = len(history)
        weights = self._weights(epoch)
        write_atomically(weights, model.save_weights, measure_bytes(model))
        record = CheckpointRecord(epoch=epoch, seconds=seconds, history=history, weights=hash_file(weights))
        self.write_history(history)  # before the checkpoint: whoever sees that finds the history too
        if (self.path / _CHECKPOINT).exists():
            with contextlib.suppress(DamagedError):  # of this process's own file, with the next one about to be written
                self.write(_BEFORE, dataclasses.asdict(self.read(_CHECKPOINT, CheckpointRecord)))
        self.write(_CHECKPOINT, dataclasses.asdict(record))
        self._remove(("checkpoint-*.weights.h5",), but=(weights, self._weights(epoch - 1)))

    def load_checkpoint(self, model: Any) -> tuple[History, float]:
        """Restores a compiled model and its optimizer, which must be built, from the last checkpoint that is undamaged.

        Returns:
            The history and seconds so far; [] and 0 if there is no checkpoint.

        Raises:
            DamagedError: if there are checkpoints and all are damaged.
        """
        damage: list[DamagedError] = []
        for name in (_CHECKPOINT, _BEFORE):
            if not os.path.lexists(self.path / name):
                continue
            try:
                record = self._load(name, model)
            except DamagedError as error:
                damage.append(error)
                continue
            if name == _BEFORE:
                self._go_back(record, damage)
            self._repair_history(record.history)
            return record.history, record.seconds
        if damage:
            raise DamagedError(
                damage[0].path,
                damage[0].wrong,
                f"There is no undamaged checkpoint before it. {damage[0].remedy}",
            )
        if os.path.lexists(self.path / _HISTORY):
            _logger.warning("There is no checkpoint in '%s': the run begins anew.", self.path)
        return [], 0.0

    def _load(self, name: str, model: Any) -> CheckpointRecord:
        """Restores a model from a checkpoint. Raises DamagedError, with nothing restored where there is a checksum."""
        record = self.read(name, CheckpointRecord)
        weights = self._weights(record.epoch)
        self.check_file(weights.name, {weights.name: record.weights} if record.weights else {})
        try:
            model.load_weights(weights)
        except Exception as error:  # of any type: HDF5 and Keras have many
            if weights.exists() and record.weights:
                raise  # the file is what was written: the model is another
            wrong = f"is damaged: {' '.join(str(error).split())}" if weights.exists() else "is missing"
            raise DamagedError(weights, wrong.rstrip(".")) from None
        return record

    def _go_back(self, record: CheckpointRecord, damage: list[DamagedError]) -> None:
        """Puts the checkpoint before in the place of a damaged or missing one."""
        what = f"'{damage[0].path}' {damage[0].wrong}" if damage else f"'{self.path / _CHECKPOINT}' is missing"
        _logger.warning("%s. The run goes on from the checkpoint before, of epoch %d.", what, record.epoch)
        self.write(_CHECKPOINT, dataclasses.asdict(record))

    def _repair_history(self, history: History) -> None:
        """Writes history.csv again where it is not that of a checkpoint. A kill may have left a row more."""
        path, expected = self.path / _HISTORY, format_csv(history).encode()
        try:
            found = read_bytes(path)
        except DamagedError as error:
            found, wrong = None, error.wrong
        else:
            wrong = "is damaged: it is not the history of the checkpoint"
        if found == expected:
            return
        if found is None or not found.startswith(expected) or found.count(b"\n") != len(history) + 2:
            _logger.warning("'%s' %s. It is written again from the checkpoint.", path, wrong)
        self.write_history(history)

    def finish(self, summary: dict[str, Any]) -> None:
        """Writes the summary and removes the checkpoints: model.keras replaces them."""
        self.write(_SUMMARY, {**summary, "files": self.hash_files((_HISTORY, *_MODELS))})
        self._remove((_CHECKPOINT, _BEFORE, "checkpoint-*.weights.h5"))

    def _weights(self, epoch: int) -> Path:
        return self.path / f"checkpoint-{epoch:04d}.weights.h5"
