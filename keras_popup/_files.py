"""Files that are there whole, or not at all."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

UNFINISHED = ".unfinished-"
"""How the names of files begin that are being written."""


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Lets `write` make a file beside `path`, and renames it to `path` once it is whole."""
    temporary = path.with_name(f"{UNFINISHED}{os.getpid()}-{path.name}")  # another process may do the same
    try:
        write(temporary)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
