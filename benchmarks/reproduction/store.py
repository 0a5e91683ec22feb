"""Stored results: a file of JSON lines for each group of rows, one line per row, sorted by the row's name."""

import json
from pathlib import Path
from typing import Any

import filelock

from keras_popup._files import UNFINISHED, write_atomically

RESULTS = Path(__file__).parents[1] / "results" / "reproduce"

Record = dict[str, Any]


def read(file: Path) -> dict[str, Record]:
    """Returns the records of a file by name; no record if there is no file."""
    if not file.exists():
        return {}
    records = map(json.loads, file.read_text().splitlines())
    return {record["name"]: record for record in records}


def read_all(folder: Path | None = None) -> dict[str, Record]:
    """Returns the records of all files in a folder, by name (default: `RESULTS`)."""
    found: dict[str, Record] = {}
    for file in sorted((folder or RESULTS).glob("*.jsonl")):
        if not file.name.startswith(UNFINISHED):
            found |= read(file)
    return found


def put(file: Path, record: Record) -> None:
    """Adds a record to a file, or replaces the record of the same name.

    A lock on the folder makes processes wait for each other, so that no record is lost.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(file.parent / ".lock"):
        records = read(file) | {record["name"]: record}
        text = "".join(json.dumps(records[name]) + "\n" for name in sorted(records))
        write_atomically(file, lambda path: path.write_text(text))
