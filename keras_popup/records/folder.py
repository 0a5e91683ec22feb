"""The base of the folders of runs and searches. A kill at any moment leaves them readable."""

import contextlib
import csv
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import filelock

from keras_popup._files import UNFINISHED, write_atomically

History = list[dict[str, float]]
"""A dict of numbers for each epoch."""

_LOCK = ".lock"


class Folder:
    """A folder that belongs to one run or search. Its file of arguments says so.

    Args:
        path: path of the folder, which need not exist.
    """

    kind: ClassVar[str]
    arguments: ClassVar[str]
    files: ClassVar[tuple[str, ...]]
    """The files that a new start removes. The arguments go last: an interrupted removal still identifies the folder."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def check(
        self,
        config: dict[str, Any],
        *,
        resume: bool,
        overwrite: bool,
        but: Sequence[str] = (),
        read: Callable[[dict[str, Any]], dict[str, Any]] = dict,
    ) -> None:
        """Checks that a run or search with this configuration may use the folder. Changes nothing.

        Args:
            config: the arguments of the run or search.
            resume: whether to continue the one in the folder.
            overwrite: whether to start anew.
            but: the arguments that may differ from the recorded ones.
            read: function that turns recorded arguments, perhaps of an earlier version, into those of this one.

        Raises:
            FileExistsError: if the folder is in use, and neither `resume` nor `overwrite` is set.
            ValueError: if both are set, if the folder is not one of a run or search or cannot be made, if its records
                are damaged, or if `resume` is set and the recorded configuration is another.
        """
        if resume and overwrite:
            raise ValueError("Use --resume to continue or --overwrite to start anew, not both.")
        if not self.path.exists():
            parent = next(parent for parent in self.path.absolute().parents if parent.exists())
            if not parent.is_dir() or not os.access(parent, os.W_OK):
                raise ValueError(
                    f"Cannot make the {self.kind} folder '{self.path}': '{parent}' is not a writable directory."
                )
            return
        if self.path.is_dir() and all(file.name.startswith((UNFINISHED, _LOCK)) for file in self.path.iterdir()):
            return
        if not self.is_one():
            raise ValueError(
                f"'{self.path}' exists and is not the folder of a {self.kind}: it has no {self.arguments} of a "
                f"{self.kind}. Nothing was changed. Use another folder, or move this one away."
            )
        if overwrite:
            return
        if not resume:
            raise FileExistsError(
                f"The {self.kind} folder '{self.path}' exists. Use --resume to go on with it, --overwrite to start it "
                "anew, or another folder."
            )
        recorded = read(self.config())
        names = [name for name in {**recorded, **config} if name not in but]
        differing = [name for name in names if not _equal(recorded.get(name), config.get(name))]
        if differing:
            raise ValueError(
                f"--resume needs the configuration that '{self.path}' was started with. Differing: "
                + "; ".join(f"{name}={config.get(name)!r}, recorded {recorded.get(name)!r}" for name in differing)
                + ". Use the recorded values, or another folder."
            )

    def is_one(self) -> bool:
        """Tells whether the folder holds a run, or a search."""
        try:
            self.read(self.arguments, "config", "versions")
        except (OSError, ValueError):
            return False
        return True

    def config(self) -> dict[str, Any]:
        """Returns the recorded arguments. Raises ValueError if they are damaged."""
        config: dict[str, Any] = self.read(self.arguments, "config")["config"]
        return config

    def start(self, config: dict[str, Any], versions: dict[str, str], *, overwrite: bool) -> None:
        """Makes the folder with its arguments. With `overwrite`, its old files are removed, and no others."""
        if self.path.exists():
            self._remove(self.files if overwrite else (f"{UNFINISHED}*",))
        self.path.mkdir(parents=True, exist_ok=True)
        if not (self.path / self.arguments).exists():
            self.write(self.arguments, {"config": config, "versions": versions})

    @contextlib.contextmanager
    def locked(self, seconds: float = 0.0) -> Iterator[None]:
        """Locks the folder, so that no other process writes to it. The lock ends with the process.

        Args:
            seconds: how long to wait for the lock.

        Raises:
            ValueError: if another process has locked the folder.
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
        """Returns the content of a JSON file of the folder.

        Args:
            name: the file's name.
            keys: keys that the file must have.

        Raises:
            ValueError: naming the file, if it holds anything else.
        """
        path = self.path / name
        try:
            content = json.loads(path.read_text())
        except ValueError as error:
            raise ValueError(f"'{path}' is damaged: {error}. Start again with --overwrite.") from None
        if not isinstance(content, dict) or not set(keys) <= content.keys():
            raise ValueError(
                f"'{path}' is damaged: expected an object with {list(keys)}. Start again with --overwrite."
            )
        return content

    def write(self, name: str, content: dict[str, Any]) -> None:
        text = json.dumps(content, indent=2) + "\n"
        write_atomically(self.path / name, lambda path: path.write_text(text))


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Writes rows as a CSV file. Its columns are the keys of all rows, in the order in which they appear."""
    table = io.StringIO()
    writer = csv.DictWriter(table, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, lambda temporary: temporary.write_text(table.getvalue()))


def _equal(first: Any, second: Any) -> bool:
    """Tells whether two arguments are equal. In dicts the order counts: the first pattern that matches wins."""
    in_order = not isinstance(first, dict) or not isinstance(second, dict) or list(first) == list(second)
    return bool(first == second) and in_order
