"""Files that are written completely or not at all."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

PACK_MAGIC = b"\x89KPP\r\n\x1a\n"
"""The first bytes of a pack of tickets. The command line looks at them before it loads TensorFlow."""

UNFINISHED = ".unfinished-"
"""The prefix of the name of a file that is still being written."""


def is_pack(path: str | os.PathLike[str]) -> bool:
    """Tells whether a file begins as a pack of tickets does."""
    with open(path, "rb") as file:
        return file.read(len(PACK_MAGIC)) == PACK_MAGIC


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
