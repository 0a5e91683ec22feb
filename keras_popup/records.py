"""What the folders of runs and searches hold, written so that a kill at any moment leaves them readable.

A run:

config.json       the full configuration, with the protocol's values, and library versions
history.csv       one row per epoch
checkpoint.json   the last finished epoch, the history up to it and the seconds spent
checkpoint-*.weights.h5   weights and optimizer of that epoch
model.keras       the model after the last epoch
summary.json      final metrics, kept and total counts, time; written last, so it marks a finished run
curves.png        the learning curves
tensorboard       statistics of the masks, on request
model.ticket      the network as a ticket, of a run in a search
.lock             held by the process that trains

A search:

search.json       the arguments and library versions
started.jsonl     a line per trial, written before it starts: its hyperparameters
trials.jsonl      a line per trial, written as it ends: all that is known of it. trials.csv is a summary
trials/0001/0     the run folder of a trial's first execution; log.txt beside it
baselines.jsonl   a line per network with learned weights; baselines/ their run folders
best.keras, best.ticket, best.json   the winner; refit/ its run folder, trained on all training images
report.html       the page of all that
.lock             held by the process that searches
"""

import contextlib
import csv
import io
import json
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import filelock

from keras_popup._files import UNFINISHED, write_atomically

History = list[dict[str, float]]

ALIVE = "alive.json"
"""In a trial's folder: how far it is. What does not change for long is stuck."""

_LOCK = ".lock"


class _Folder:
    """A folder that is one thing's own, which its file of arguments tells.

    Args:
        path: of the folder, which need not exist.
    """

    kind: ClassVar[str]
    arguments: ClassVar[str]
    files: ClassVar[tuple[str, ...]]
    """What is removed before a new start. The arguments last: while they are there, it is known whose it is."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def check(
        self,
        config: dict[str, Any],
        *,
        resume: bool,
        overwrite: bool,
        but: Sequence[str] = (),
        defaults: dict[str, Any] | None = None,
    ) -> None:
        """Checks that a run or search with this configuration may use the folder. Changes nothing.

        Args:
            config: its arguments.
            resume: whether to go on with the one in it.
            overwrite: whether to start anew.
            but: the arguments that may differ from those recorded.
            defaults: of arguments that an earlier version may not have recorded, as it did not have them.

        Raises:
            FileExistsError: if there is something in it, and neither `resume` nor `overwrite`.
            ValueError: for both, a folder that is another's or cannot be made, damaged records, or `resume`
                with another configuration.
        """
        if resume and overwrite:
            raise ValueError("Use --resume to go on or --overwrite to start anew, not both.")
        if not self.path.exists():
            parent = next(parent for parent in self.path.absolute().parents if parent.exists())
            if not parent.is_dir() or not os.access(parent, os.W_OK):
                raise ValueError(
                    f"Cannot make the {self.kind} folder '{self.path}': '{parent}' is no writable directory."
                )
            return
        if self.path.is_dir() and all(file.name.startswith((UNFINISHED, _LOCK)) for file in self.path.iterdir()):
            return
        if not self.is_one():
            raise ValueError(
                f"'{self.path}' exists and is not the folder of a {self.kind}: it has no {self.arguments} of a "
                f"{self.kind}. Nothing was changed. Name another folder, or move this one away."
            )
        if overwrite:
            return
        if not resume:
            raise FileExistsError(
                f"The {self.kind} folder '{self.path}' exists. Use --resume to go on with it, --overwrite to start it "
                "anew, or name another folder."
            )
        recorded = {**(defaults or {}), **self.read(self.arguments)["config"]}
        names = [name for name in {**recorded, **config} if name not in but]
        differing = [name for name in names if recorded.get(name) != config.get(name)]
        if differing:
            raise ValueError(
                f"--resume needs the configuration that '{self.path}' was started with. Differing: "
                + "; ".join(f"{name}={config.get(name)!r}, recorded {recorded.get(name)!r}" for name in differing)
                + ". Use the recorded values, or another folder."
            )

    def is_one(self) -> bool:
        """Tells whether there is a run, or search, in the folder."""
        try:
            self.read(self.arguments, "config", "versions")
        except (OSError, ValueError):
            return False
        return True

    def start(self, config: dict[str, Any], versions: dict[str, str], *, overwrite: bool) -> None:
        """Makes the folder with its arguments. With `overwrite` its old files go, and no others."""
        if self.path.exists():
            self._remove(self.files if overwrite else (f"{UNFINISHED}*",))
        self.path.mkdir(parents=True, exist_ok=True)
        if not (self.path / self.arguments).exists():
            self.write(self.arguments, {"config": config, "versions": versions})

    @contextlib.contextmanager
    def locked(self, seconds: float = 0.0) -> Iterator[None]:
        """Holds the folder, so that no other process writes to it. The system lets go of it with the process.

        Args:
            seconds: how long to wait for it.

        Raises:
            ValueError: if another process holds it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(self.path / _LOCK, timeout=seconds)
        try:
            lock.acquire()
        except filelock.Timeout:
            raise ValueError(
                f"Another process is at work on the {self.kind} in '{self.path}'. Wait for it, or stop it."
            ) from None
        try:
            yield
        finally:
            lock.release()

    def _remove(self, patterns: tuple[str, ...], but: Path | None = None) -> None:
        for pattern in patterns:
            for path in self.path.glob(pattern):
                if path.is_dir():
                    shutil.rmtree(path)
                elif path != but:
                    path.unlink()

    def read(self, name: str, *keys: str) -> dict[str, Any]:
        """Returns a JSON file of the folder, which must hold an object with these keys.

        Raises:
            ValueError: naming the file, if it does not.
        """
        path = self.path / name
        try:
            content = json.loads(path.read_text())
        except ValueError as error:
            raise ValueError(f"'{path}' is damaged: {error}. Start again with --overwrite.") from None
        if not isinstance(content, dict) or not set(keys) <= content.keys():
            raise ValueError(f"'{path}' is damaged: expected {list(keys)} in it. Start again with --overwrite.")
        return content

    def write(self, name: str, content: dict[str, Any]) -> None:
        text = json.dumps(content, indent=2) + "\n"
        write_atomically(self.path / name, lambda path: path.write_text(text))


class RunFolder(_Folder):
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
        """Returns the summary of a finished run, None before the end."""
        return self.read("summary.json", "test") if (self.path / "summary.json").exists() else None

    def write_history(self, history: History) -> None:
        """Writes history.csv: `epoch` counted from 1, then the learning rate and metrics."""
        _write_csv(self.path / "history.csv", history)

    def history(self) -> History:
        """Returns what `write_history` wrote, with numbers in place of their texts."""
        with open(self.path / "history.csv", newline="") as file:
            rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
        return [{**row, "epoch": int(row["epoch"])} for row in rows]

    def save_checkpoint(self, model: Any, history: History, seconds: float) -> None:
        """Saves a model with its optimizer after `len(history)` epochs, and then forgets the one before."""
        weights = self._weights(len(history))
        write_atomically(weights, model.save_weights)
        self.write("checkpoint.json", {"epoch": len(history), "seconds": seconds, "history": history})
        self._remove(("checkpoint-*.weights.h5",), but=weights)
        self.write_history(history)

    def load_checkpoint(self, model: Any) -> tuple[History, float]:
        """Restores a compiled model and its optimizer, both built. Returns the history and seconds so far."""
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
        """Writes the summary and removes the checkpoint, which model.keras replaces."""
        self.write("summary.json", summary)
        self._remove(("checkpoint.json", "checkpoint-*.weights.h5"))

    def _weights(self, epoch: int) -> Path:
        return self.path / f"checkpoint-{epoch:04d}.weights.h5"


class SearchFolder(_Folder):
    """The folder of one search."""

    kind = "search"
    arguments = "search.json"
    files = (
        f"{UNFINISHED}*",
        "trials",
        "baselines",
        "refit",
        "tensorboard",
        "started.jsonl",
        "trials.jsonl",
        "trials.csv",
        "baselines.jsonl",
        "best.json",
        "best.keras",
        "best.ticket",
        "report.html",
        "search.json",
    )

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        self.report = self.path / "report.html"

    def trial(self, number: int) -> Path:
        """Returns the folder of a trial, in which each of its executions has a run folder."""
        return self.path / "trials" / f"{number:04d}"

    def lines(self, name: str, *, repair: bool = False) -> list[dict[str, Any]]:
        """Returns the records of a file of one a line.

        Args:
            name: of the file.
            repair: whether to remove from it what a kill has left of a last line. For who holds the folder alone:
                that line may be about to be written.

        Raises:
            ValueError: naming the file, if another line is damaged.
        """
        path = self.path / name
        if not path.exists():
            return []
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if repair and whole != content:
            write_atomically(path, lambda temporary: temporary.write_bytes(whole))
        try:
            return [json.loads(line) for line in whole.splitlines()]
        except ValueError as error:
            raise ValueError(f"'{path}' is damaged: {error}. Start again with --overwrite.") from None

    def append(self, name: str, record: dict[str, Any]) -> None:
        """Adds a record to a file of one a line, and waits until the disk has it."""
        with open(self.path / name, "a") as file:
            file.write(json.dumps(record) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def write_table(self, name: str, rows: Sequence[dict[str, Any]]) -> None:
        """Writes a table as CSV, with the columns of all rows."""
        _write_csv(self.path / name, rows)


def best_trial(ended: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Returns the winner: of those trained for the most epochs the most accurate, then the smallest, the first."""

    def rank(record: dict[str, Any]) -> tuple[float, ...]:
        size = record["executions"][0]["ticket_bytes"] or 0
        return -(record["until"] or math.inf), -record["score"], size, record["trial"]

    return min((record for record in ended if record["score"] is not None), key=rank, default=None)


def _write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    table = io.StringIO()
    writer = csv.DictWriter(table, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, lambda temporary: temporary.write_text(table.getvalue()))
