"""The folder of a search.

search.json       the arguments and library versions
started.jsonl     a line per trial, written before it starts: its hyperparameters
trials.jsonl      a line per trial, written as it ends: all that is known of it. trials.csv is a summary
trials/0001/0     the run folder of a trial's first execution; log.txt beside it
baselines.jsonl   a line per network with learned weights; baselines/ their run folders
best.keras, best.ticket, best.json   the winner; refit/ its run folder, trained on all training images
report.html       the page of all that
.lock             held by the process that searches
"""

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keras_popup._files import UNFINISHED, write_atomically
from keras_popup.records.folder import Folder, write_csv

ALIVE = "alive.json"
"""In a trial's folder: how far it is. What does not change for long is stuck."""


class SearchFolder(Folder):
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
        write_csv(self.path / name, rows)


def best_trial(ended: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Returns the winner: of those trained for the most epochs the most accurate, then the smallest, the first."""

    def rank(record: dict[str, Any]) -> tuple[float, ...]:
        size = record["executions"][0]["ticket_bytes"] or 0
        return -(record["until"] or math.inf), -record["score"], size, record["trial"]

    return min((record for record in ended if record["score"] is not None), key=rank, default=None)
