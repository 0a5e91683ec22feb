"""The folder of a search.

search.json       the arguments and the versions of libraries
started.jsonl     a line per trial, written before it starts: its hyperparameters
trials.jsonl      a line per trial, written as it ends: all that is known of it. trials.csv is a summary
trials/0001/0     the run folder of a trial's first execution; log.txt beside it
baselines.jsonl   a line per network with learned weights; baselines/ their run folders
best.keras, best.ticket, best.json   the winner, with checksums; refit/ its run folder, trained on all training images
report.html       the page about the search
.lock             held by the process that searches
"""

import collections
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from keras_popup._files import UNFINISHED, write_atomically
from keras_popup.records.checksums import DamagedError, parse_object, read_bytes
from keras_popup.records.folder import Folder, write_csv
from keras_popup.records.trial_records import BestRecord, Record

_logger = logging.getLogger("keras_popup")

ALIVE = "alive.json"
"""The file of a trial's `Heartbeat`, in the trial's folder."""

_BEST = ("best.keras", "best.ticket")

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
    folders = ("trials", "baselines", "refit", "tensorboard")

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
            DamagedError: naming the file and the line, if another line is not what was written.
        """
        path = self.path / kind.file
        if not os.path.lexists(path):
            return []
        content = read_bytes(path)
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content and repair:
            _logger.warning("The last line of '%s' was cut off. It is removed.", path)
            write_atomically(path, lambda temporary: temporary.write_bytes(whole))
        records, number_of_search = [], self._find_id()
        for number, line in enumerate(whole.split(b"\n")[:-1], 1):
            try:
                records.append(kind.from_json(self._unseal(kind.file, parse_object(line), number_of_search)))
            except ValueError as error:
                raise DamagedError(
                    path, f"is damaged in line {number}: {error}", kind.remedy.format(line=number)
                ) from None
        self._check_once(path, [record.trial for record in records if hasattr(record, "trial")])
        return records

    def _check_once(self, path: Path, trials: list[int]) -> None:
        """Checks that no trial has two lines."""
        for trial, count in collections.Counter(trials).items():
            if count > 1:
                raise DamagedError(path, f"is damaged: it has {count} lines of trial {trial}", "Delete all but one.")

    def append(self, record: Record) -> None:
        """Adds a record to the file of its kind, and waits until it is on the disk."""
        with open(self.path / record.file, "a", encoding="utf-8") as file:
            file.write(json.dumps(self._seal(record.file, record.to_json())) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def best(self) -> BestRecord | None:
        """Returns the winner; None if there is none yet. Raises DamagedError if its file is not what was written."""
        if not os.path.lexists(self.path / BestRecord.file):
            return None
        return self.read(BestRecord.file, BestRecord, BestRecord.remedy)

    def write_best(self, record: BestRecord) -> None:
        """Writes the record of the winner, whose model and ticket must be there, with their checksums."""
        self.write(BestRecord.file, {**record.to_json(), "files": self.hash_files(_BEST)})

    def check_best(self, name: str = "best.keras") -> None:
        """Checks the model or ticket of the winner, if it is there.

        Raises:
            DamagedError: if it is not what was written.
        """
        if os.path.lexists(self.path / name) and os.path.lexists(self.path / BestRecord.file):
            files = self.read_content(BestRecord.file, BestRecord.remedy).get("files", {})
            self.check_file(name, files, "Delete it: the search, with --resume, writes it again.")

    def write_table(self, name: str, rows: Sequence[dict[str, Any]]) -> None:
        """Writes a table as CSV. It has every column that occurs in a row."""
        write_csv(self.path / name, rows)
