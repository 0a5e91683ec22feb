"""Files that are written completely or not at all."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

UNFINISHED = ".unfinished-"
"""The prefix of the name of a file that is still being written."""


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Calls `write` with a temporary path beside `path`, and renames the result to `path` when it is complete."""
    temporary = path.with_name(f"{UNFINISHED}{os.getpid()}-{path.name}")  # another process may write the same file
    try:
        write(temporary)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
