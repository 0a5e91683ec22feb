"""Results as lines of JSON: a run leaves one, so that a benchmark that was stopped goes on with the others."""

import json
from pathlib import Path


def read(file: Path) -> list[dict]:
    """Returns the lines of a file; none if it does not exist yet."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def add(file: Path, row: dict) -> None:
    """Adds a line to a file."""
    with file.open("a") as opened:
        opened.write(json.dumps(row) + "\n")
