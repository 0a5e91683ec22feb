"""What the folders of runs and searches share: written so that a kill at any moment leaves them readable."""

import contextlib
import csv
import io
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import filelock

from keras_popup._files import UNFINISHED, write_atomically

History = list[dict[str, float]]


_LOCK = ".lock"


class Folder:
    """A folder that is one thing's own, which its file of arguments tells.

    Args:
        path: of the folder, which need not exist.
    """

    kind: ClassVar[str]
    arguments: ClassVar[str]
    files: ClassVar[tuple[str, ...]]
    """What is removed before a new start. The arguments last: while they are there, it is known whose it is."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def check(
        self,
        config: dict[str, Any],
        *,
        resume: bool,
        overwrite: bool,
        but: Sequence[str] = (),
        defaults: dict[str, Any] | None = None,
    ) -> None:
        """Checks that a run or search with this configuration may use the folder. Changes nothing.

        Args:
            config: its arguments.
            resume: whether to go on with the one in it.
            overwrite: whether to start anew.
            but: the arguments that may differ from those recorded.
            defaults: of arguments that an earlier version may not have recorded, as it did not have them.

        Raises:
            FileExistsError: if there is something in it, and neither `resume` nor `overwrite`.
            ValueError: for both, a folder that is another's or cannot be made, damaged records, or `resume`
                with another configuration.
        """
        if resume and overwrite:
            raise ValueError("Use --resume to go on or --overwrite to start anew, not both.")
        if not self.path.exists():
            parent = next(parent for parent in self.path.absolute().parents if parent.exists())
            if not parent.is_dir() or not os.access(parent, os.W_OK):
                raise ValueError(
                    f"Cannot make the {self.kind} folder '{self.path}': '{parent}' is no writable directory."
                )
            return
        if self.path.is_dir() and all(file.name.startswith((UNFINISHED, _LOCK)) for file in self.path.iterdir()):
            return
        if not self.is_one():
            raise ValueError(
                f"'{self.path}' exists and is not the folder of a {self.kind}: it has no {self.arguments} of a "
                f"{self.kind}. Nothing was changed. Name another folder, or move this one away."
            )
        if overwrite:
            return
        if not resume:
            raise FileExistsError(
                f"The {self.kind} folder '{self.path}' exists. Use --resume to go on with it, --overwrite to start it "
                "anew, or name another folder."
            )
        recorded = {**(defaults or {}), **self.read(self.arguments)["config"]}
        names = [name for name in {**recorded, **config} if name not in but]
        differing = [name for name in names if recorded.get(name) != config.get(name)]
        if differing:
            raise ValueError(
                f"--resume needs the configuration that '{self.path}' was started with. Differing: "
                + "; ".join(f"{name}={config.get(name)!r}, recorded {recorded.get(name)!r}" for name in differing)
                + ". Use the recorded values, or another folder."
            )

    def is_one(self) -> bool:
        """Tells whether there is a run, or search, in the folder."""
        try:
            self.read(self.arguments, "config", "versions")
        except (OSError, ValueError):
            return False
        return True

    def start(self, config: dict[str, Any], versions: dict[str, str], *, overwrite: bool) -> None:
        """Makes the folder with its arguments. With `overwrite` its old files go, and no others."""
        if self.path.exists():
            self._remove(self.files if overwrite else (f"{UNFINISHED}*",))
        self.path.mkdir(parents=True, exist_ok=True)
        if not (self.path / self.arguments).exists():
            self.write(self.arguments, {"config": config, "versions": versions})

    @contextlib.contextmanager
    def locked(self, seconds: float = 0.0) -> Iterator[None]:
        """Holds the folder, so that no other process writes to it. The system lets go of it with the process.

        Args:
            seconds: how long to wait for it.

        Raises:
            ValueError: if another process holds it.
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
        """Returns a JSON file of the folder, which must hold an object with these keys.

        Raises:
            ValueError: naming the file, if it does not.
        """
        path = self.path / name
        try:
            content = json.loads(path.read_text())
        except ValueError as error:
            raise ValueError(f"'{path}' is damaged: {error}. Start again with --overwrite.") from None
        if not isinstance(content, dict) or not set(keys) <= content.keys():
            raise ValueError(f"'{path}' is damaged: expected {list(keys)} in it. Start again with --overwrite.")
        return content

    def write(self, name: str, content: dict[str, Any]) -> None:
        text = json.dumps(content, indent=2) + "\n"
        write_atomically(self.path / name, lambda path: path.write_text(text))


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    table = io.StringIO()
    writer = csv.DictWriter(table, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, lambda temporary: temporary.write_text(table.getvalue()))
