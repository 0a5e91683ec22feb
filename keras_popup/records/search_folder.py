"""The folder of a search.

search.json       the arguments and the versions of libraries
started.jsonl     a line per trial, written before it starts: its hyperparameters
trials.jsonl      a line per trial, written as it ends: all that is known of it. trials.csv is a summary
trials/0001/0     the run folder of a trial's first execution; log.txt beside it
baselines.jsonl   a line per network with learned weights; baselines/ their run folders
best.keras, best.ticket, best.json   the winner; refit/ its run folder, trained on all training images
report.html       the page about the search
.lock             held by the process that searches
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from keras_popup._files import UNFINISHED, write_atomically
from keras_popup.records.folder import Folder, write_csv
from keras_popup.records.trial_records import BestRecord, Record

ALIVE = "alive.json"
"""The file of a trial's `Heartbeat`, in the trial's folder."""

R = TypeVar("R", bound=Record)


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
        """Returns the folder of a trial. Each of its executions has a run folder in it."""
        return self.path / "trials" / f"{number:04d}"

    def records(self, kind: type[R], *, repair: bool = False) -> list[R]:
        """Returns all records of a kind, in the order in which they were written.

        Args:
            kind: class of the records.
            repair: whether to remove an unfinished last line from the file, which a kill has left. Only the process
                that holds the folder's lock may do so: for others, that line may still be being written.

        Raises:
            ValueError: naming the file, if another line is damaged.
        """
        path = self.path / kind.file
        if not path.exists():
            return []
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if repair and whole != content:
            write_atomically(path, lambda temporary: temporary.write_bytes(whole))
        try:
            return [kind.from_json(json.loads(line)) for line in whole.splitlines()]
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"'{path}' is damaged: {error}. Start again with --overwrite.") from None

    def append(self, record: Record) -> None:
        """Adds a record to the file of its kind, and waits until it is on the disk."""
        with open(self.path / record.file, "a", encoding="utf-8") as file:
            file.write(json.dumps(record.to_json()) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def best(self) -> BestRecord | None:
        """Returns the winner; None if there is none yet."""
        if not (self.path / BestRecord.file).exists():
            return None
        content = self.read(BestRecord.file, "trial", "executions", "execution")
        try:
            return BestRecord.from_json(content)
        except (TypeError, KeyError) as error:
            raise ValueError(f"'{self.path / BestRecord.file}' is damaged: {error}.") from None

    def write_best(self, record: BestRecord) -> None:
        self.write(BestRecord.file, record.to_json())

    def write_table(self, name: str, rows: Sequence[dict[str, Any]]) -> None:
        """Writes a table as CSV. It has every column that occurs in a row."""
        write_csv(self.path / name, rows)
