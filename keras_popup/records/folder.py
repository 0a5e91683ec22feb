"""The base of the folders of runs and searches. A kill at any moment leaves them readable."""

import contextlib
import csv
import dataclasses
import io
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import filelock

from keras_popup._files import UNFINISHED, write_atomically
from keras_popup.records.checksums import (
    KEY,
    OVERWRITE,
    DamagedError,
    describe,
    hash_file,
    hash_object,
    is_sealed,
    read_object,
    seal,
)
from keras_popup.records.schemas import parse

_logger = logging.getLogger("keras_popup")

History = list[dict[str, float]]
"""A dict of numbers for each epoch."""

_LOCK = ".lock"

R = TypeVar("R")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArgumentsRecord:
    """The arguments of a run or search: config.json, search.json.

    Attributes:
        config: dict of the arguments.
        versions: the versions of libraries.
        id: str, the same for all files of the run or search: its first arguments, hashed. Empty in older versions.
    """

    config: dict[str, Any]
    versions: dict[str, str]
    id: str = ""


class Folder:
    """A folder that belongs to one run or search. Its file of arguments says so.

    Every JSON object in it has a checksum, over its content, the name of its file and the id of the run or search. So
    what is damaged, or comes from another folder, is found when it is read. Folders of earlier versions have no
    checksums.

    Args:
        path: path of the folder, which need not exist.
    """

    kind: ClassVar[str]
    arguments: ClassVar[str]
    files: ClassVar[tuple[str, ...]]
    """The files that a new start removes. The arguments go last: an interrupted removal still identifies the folder."""
    folders: ClassVar[tuple[str, ...]]
    """Those of `files` that are folders."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._own_id: str | None = None  # of the run or search that this process has started

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
        if not self._read_arguments():
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
        self._check_kinds()
        names = [name for name in {**recorded, **config} if name not in but]
        differing = [name for name in names if not _equal(recorded.get(name), config.get(name))]
        if differing:
            raise ValueError(
                f"--resume needs the configuration that '{self.path}' was started with. Differing: "
                + "; ".join(f"{name}={config.get(name)!r}, recorded {recorded.get(name)!r}" for name in differing)
                + ". Use the recorded values, or another folder."
            )

    def is_one(self) -> bool:
        """Tells whether the folder holds a run, or a search. The arguments may be damaged: `config` says it."""
        try:
            return self._read_arguments() is not None
        except DamagedError:
            return True

    def _read_arguments(self) -> dict[str, Any] | None:
        """Returns the content of the file of arguments, unchecked; None if it is absent, or of another program.

        Raises:
            DamagedError: if it cannot be read. Then nothing tells what the folder is, and nobody may overwrite it.
        """
        path = self.path / self.arguments
        if not os.path.lexists(path):
            return None
        remedy = (
            f"So nothing tells whether the folder is one of a {self.kind}, and nothing was changed. Put the file "
            "right, or use another folder."
        )
        try:
            content = read_object(path, remedy)
        except DamagedError as error:
            if error.wrong.endswith("not a JSON object"):
                return None
            raise
        return content if {"config", "versions"} <= content.keys() else None

    def config(self) -> dict[str, Any]:
        """Returns the recorded arguments. Raises DamagedError if they are missing or damaged."""
        return self.read(self.arguments, ArgumentsRecord).config

    def versions(self) -> dict[str, str]:
        """Returns the recorded versions of libraries. Raises DamagedError if they are missing or damaged."""
        return self.read(self.arguments, ArgumentsRecord).versions

    def start(self, config: dict[str, Any], versions: dict[str, str], *, overwrite: bool) -> None:
        """Makes the folder with its arguments. With `overwrite`, its old files are removed, and no others."""
        self._own_id = None
        if self.path.exists():
            self._remove(self.files if overwrite else (f"{UNFINISHED}*",))
        self.path.mkdir(parents=True, exist_ok=True)
        if (self.path / self.arguments).exists():
            self.say_if_unchecked()
        else:
            number = hash_object({"config": config, "versions": versions})
            record = ArgumentsRecord(config=config, versions=versions, id=number)
            self.write(self.arguments, dataclasses.asdict(record))
        self._own_id = self._find_id()  # so that damage to the arguments ends no training that goes on

    def change_config(self, config: dict[str, Any]) -> None:
        """Records other arguments, where the recorded ones are not the same."""
        record = self.read(self.arguments, ArgumentsRecord)
        if record.config != config:
            self.write(self.arguments, dataclasses.asdict(dataclasses.replace(record, config=config)))

    def say_if_unchecked(self) -> None:
        """Logs that the files cannot be checked, if an earlier version began the run or search."""
        if self._find_id() is None:
            _logger.warning(
                "An earlier version has begun the %s in '%s', without checksums: its files cannot be checked.",
                self.kind,
                self.path,
            )

    def _find_id(self) -> str | None:
        """Returns the id of the run or search; None if an earlier version began it, or if there is none."""
        if self._own_id is not None:
            return self._own_id
        content = self._read_arguments() or {}
        return str(content["id"]) if content.get("id") else None

    def _check_kinds(self) -> None:
        """Checks that no folder is where a file belongs, and the other way round, before work is done for them."""
        for pattern in (*self.files, _LOCK):
            expected = pattern in self.folders
            for path in self.path.glob(pattern):
                if path.is_dir() != expected:
                    kinds = ("a file", "a folder") if expected else ("a folder", "a file")
                    raise DamagedError(path, f"is {kinds[0]}, where {kinds[1]} is expected", "Move it away.")

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
        except OSError as error:
            raise DamagedError(self.path / _LOCK, describe(error), "Remove it.") from None
        try:
            yield
        finally:
            lock.release()

    def _remove(self, patterns: tuple[str, ...], but: Sequence[Path] = ()) -> None:
        for pattern in patterns:
            for path in self.path.glob(pattern):
                if path in but:
                    continue
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()

    def read(self, name: str, kind: type[R], remedy: str = OVERWRITE) -> R:
        """Returns the record in a JSON file of the folder.

        Args:
            name: the file's name.
            kind: the dataclass of the record.
            remedy: str, what to do if the file is damaged.

        Raises:
            DamagedError: naming the file, if it is missing, is not what was written, or is no such record.
        """
        return self._parse(name, kind, self.read_content(name, remedy), remedy)

    def read_content(self, name: str, remedy: str = OVERWRITE) -> dict[str, Any]:
        """Returns the JSON object in a file of the folder without its checksum, which is checked. As `read`."""
        content = read_object(self.path / name, remedy)
        try:
            return self._unseal(name, content, self._find_id())
        except ValueError as error:
            raise DamagedError(self.path / name, f"is damaged: {error}", remedy) from None

    def _parse(self, name: str, kind: type[R], content: dict[str, Any], remedy: str = OVERWRITE) -> R:
        try:
            return parse(kind, content)
        except ValueError as error:
            raise DamagedError(self.path / name, f"is damaged: {error}", remedy) from None

    def _unseal(self, name: str, content: dict[str, Any], number: str | None) -> dict[str, Any]:
        """Returns a JSON object of a file without its checksum. Raises ValueError if that is wrong."""
        if KEY in content:
            if not is_sealed(content, self._salt(name, number)):
                raise ValueError(f"its checksum differs, or it is of another {self.kind}")
        elif number is not None:
            raise ValueError("it has no checksum")
        return {key: value for key, value in content.items() if key != KEY}

    def write(self, name: str, content: dict[str, Any]) -> None:
        """Writes a JSON object with its checksum to a file of the folder."""
        text = json.dumps(self._seal(name, content), indent=2) + "\n"
        write_atomically(self.path / name, lambda path: path.write_text(text))

    def _seal(self, name: str, content: dict[str, Any]) -> dict[str, Any]:
        return seal(content, self._salt(name, self._find_id()))

    def _salt(self, name: str, number: str | None) -> str:
        """Returns what a file's checksum is also over. The arguments hold the id themselves."""
        return name if name == self.arguments else f"{name} {number or ''}"

    def hash_files(self, names: Sequence[str]) -> dict[str, str]:
        """Returns the SHA-256 of those files that are there, by name."""
        return {name: hash_file(self.path / name) for name in names if (self.path / name).exists()}

    def check_file(self, name: str, hashes: Mapping[str, str], remedy: str = OVERWRITE) -> None:
        """Checks that a file is the one whose SHA-256 was recorded. One without a record is not checked.

        Raises:
            DamagedError: if it is missing, or another.
        """
        if name in hashes and hash_file(self.path / name) != hashes[name]:
            raise DamagedError(self.path / name, "is damaged: its checksum differs", remedy)


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Writes rows as a CSV file, as `format_csv` makes it."""
    text = format_csv(rows)
    write_atomically(path, lambda temporary: temporary.write_text(text))


def format_csv(rows: Sequence[dict[str, Any]]) -> str:
    """Returns rows as CSV. Its columns are the keys of all rows, in the order in which they appear."""
    table = io.StringIO()
    writer = csv.DictWriter(table, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return table.getvalue()


def _equal(first: Any, second: Any) -> bool:
    """Tells whether two arguments are equal. In dicts the order counts: the first pattern that matches wins."""
    in_order = not isinstance(first, dict) or not isinstance(second, dict) or list(first) == list(second)
    return bool(first == second) and in_order
