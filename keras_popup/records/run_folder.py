"""The folder of a run.

config.json       the full configuration, with the protocol's values, and the versions of libraries
history.csv       one row per epoch
checkpoint.json   the last finished epoch, the history up to it and the seconds spent
checkpoint-*.weights.h5   weights and optimizer of that epoch
model.keras       the model after the last epoch
summary.json      final metrics, kept and total counts, time; it is written last and marks a finished run
curves.png        the learning curves
tensorboard       statistics of the masks, if they were asked for
model.ticket      the network as a ticket, for a run of a search
.lock             held by the process that trains
"""

import csv
import math
import os
from pathlib import Path
from typing import Any

from keras_popup._files import UNFINISHED, write_atomically
from keras_popup.records.folder import Folder, History, write_csv

_BESIDES = 1 << 20  # bytes of names and structure, at most


def measure_bytes(model: Any) -> int:
    """Returns about how many bytes the file of a model and its optimizer takes."""
    variables = [*model.variables, *getattr(model.optimizer, "variables", ())]
    weights: int = sum(math.prod(each.shape) for each in variables)
    return _BESIDES + 4 * weights


def find_model(path: str) -> str:
    """Returns the path of a model's file: that in the folder of a run, or the path itself."""
    return str(RunFolder(path).model) if os.path.isdir(path) else path


class RunFolder(Folder):
    """The folder of one training run."""

    kind = "run"
    arguments = "config.json"
    files = (
        f"{UNFINISHED}*",
        "history.csv",
        "checkpoint.json",
        "checkpoint-*.weights.h5",
        "model.keras",
        "model.ticket",
        "summary.json",
        "curves.png",
        "tensorboard",
        "config.json",
    )

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        self.tensorboard = self.path / "tensorboard"
        self.curves = self.path / "curves.png"
        self.model = self.path / "model.keras"
        self.ticket = self.path / "model.ticket"

    def summary(self) -> dict[str, Any] | None:
        """Returns the summary of a finished run; None before the end."""
        return self.read("summary.json", "test") if (self.path / "summary.json").exists() else None

    def write_history(self, history: History) -> None:
        """Writes history.csv: `epoch` counted from 1, then the learning rate and metrics."""
        write_csv(self.path / "history.csv", history)

    def history(self) -> History:
        """Returns the history that `write_history` wrote."""
        with open(self.path / "history.csv", newline="", encoding="utf-8") as file:
            rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
        return [{**row, "epoch": int(row["epoch"])} for row in rows]

    def save_checkpoint(self, model: Any, history: History, seconds: float) -> None:
        """Saves a model and its optimizer after `len(history)` epochs, then removes the checkpoint before."""
        weights = self._weights(len(history))
        write_atomically(weights, model.save_weights, measure_bytes(model))
        self.write_history(history)  # before the checkpoint: whoever sees that finds the history too
        self.write("checkpoint.json", {"epoch": len(history), "seconds": seconds, "history": history})
        self._remove(("checkpoint-*.weights.h5",), but=weights)

    def load_checkpoint(self, model: Any) -> tuple[History, float]:
        """Restores a compiled model and its optimizer, which must be built. Returns the history and seconds so far."""
        if not (self.path / "checkpoint.json").exists():
            return [], 0.0
        state = self.read("checkpoint.json", "epoch", "seconds", "history")
        weights = self._weights(state["epoch"])
        try:
            model.load_weights(weights)
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(
                f"The checkpoint '{weights}' is missing or damaged. Start the run again with --overwrite. ({error})"
            ) from None
        self.write_history(state["history"])
        return state["history"], state["seconds"]

    def finish(self, summary: dict[str, Any]) -> None:
        """Writes the summary and removes the checkpoint: model.keras replaces it."""
        self.write("summary.json", summary)
        self._remove(("checkpoint.json", "checkpoint-*.weights.h5"))

    def _weights(self, epoch: int) -> Path:
        return self.path / f"checkpoint-{epoch:04d}.weights.h5"
