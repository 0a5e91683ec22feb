"""Files that are written completely or not at all."""

import contextlib
import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

try:
    import resource
except ImportError:  # Windows has no such limits
    resource = None  # type: ignore[assignment]

PACK_MAGIC = b"\x89KPP\r\n\x1a\n"
"""The first bytes of a pack of tickets. The command line looks at them before it loads TensorFlow."""

UNFINISHED = ".unfinished-"
"""The prefix of the name of a file that is still being written."""


def is_pack(path: str | os.PathLike[str]) -> bool:
    """Tells whether a file begins as a pack of tickets does."""
    with open(path, "rb") as file:
        return file.read(len(PACK_MAGIC)) == PACK_MAGIC


_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def write_atomically(path: Path, write: Callable[[Path], Any], size: int = 0) -> None:
    """Calls `write` with a temporary path beside `path`, and renames the result to `path` when it is complete.

    Args:
        path: the file.
        write: function that writes a file.
        size: int, about how many bytes it will write. If they are known not to fit, `write` is not called: HDF5 can end
            the process where it finds no space.

    Raises:
        IsADirectoryError: if a folder of that name is there.
        OSError: if there is not enough space, with how much is needed and how much is there; or what `write` raises.
    """
    if path.is_dir():
        raise IsADirectoryError(f"Cannot write '{path}': a folder has this name. Move it away.")
    if size and size > (free := _find_space(path.parent)):
        raise _no_space(path, f"About {size:,} bytes are needed, and {free:,} can be written there.")
    temporary = path.with_name(f"{UNFINISHED}{os.getpid()}-{path.name}")  # another process may write the same file
    try:
        write(temporary)
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, (OSError, RuntimeError)) and _says_no_space(error):
            raise _no_space(path, f"{_find_space(path.parent):,} bytes can be written there.") from error
        raise


def _find_space(folder: Path) -> float:
    """Returns how many bytes a new file in a folder may have."""
    free: float = shutil.disk_usage(folder).free
    if resource is not None:
        limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
        free = free if limit == resource.RLIM_INFINITY else min(free, limit)
    return free


def _says_no_space(error: BaseException) -> bool:
    # h5py has the number in its text only.
    return getattr(error, "errno", None) in _NO_SPACE or any(f"errno = {number}," in str(error) for number in _NO_SPACE)


def _no_space(path: Path, numbers: str) -> OSError:
    return OSError(
        errno.ENOSPC, f"There is not enough space to write '{path}'. {numbers} What was there before is whole"
    )
