"""JSON that carries its own checksum, and the error that names a damaged file."""

import hashlib
import json
from pathlib import Path
from typing import Any

KEY = "checksum"
"""The key of an object's checksum. What an earlier version wrote has none."""

OVERWRITE = "Start again with --overwrite, or use another folder."


class DamagedError(ValueError):
    """A file is not what was written.

    Args:
        path: the file.
        wrong: str, what is wrong with it, as in "is damaged: it is not JSON".
        remedy: str, what to do.
    """

    def __init__(self, path: Path, wrong: str, remedy: str = OVERWRITE) -> None:
        super().__init__(path, wrong, remedy)  # which is what pickle makes it from again
        self.path = path
        self.wrong = wrong
        self.remedy = remedy

    def __str__(self) -> str:
        return f"'{self.path}' {self.wrong}. {self.remedy}"


def seal(content: dict[str, Any], salt: str) -> dict[str, Any]:
    """Returns a JSON object with its checksum as the last value.

    Args:
        content: dict, which can be written as JSON.
        salt: str, what it belongs to. Where it is read, that must be the same.
    """
    return {**content, KEY: hash_object(content, salt)}


def is_sealed(content: dict[str, Any], salt: str) -> bool:
    """Tells whether a JSON object is the one that `seal` returned. White space around values does not count."""
    return content.get(KEY) == hash_object({name: value for name, value in content.items() if name != KEY}, salt)


def hash_object(content: dict[str, Any], salt: str = "") -> str:
    """Returns the SHA-256 of a JSON object and of what it belongs to."""
    # Python writes a number as it reads it, and an object in the order of its keys, which counts in a dict of k.
    text = json.dumps(content, separators=(",", ":"))
    return hashlib.sha256(f"{salt}\n{text}".encode()).hexdigest()


def hash_file(path: Path) -> str:
    """Returns the SHA-256 of a file. Raises DamagedError if it is missing or cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DamagedError(path, describe(error)) from None


def read_bytes(path: Path, remedy: str = OVERWRITE) -> bytes:
    """Returns the content of a file. Raises DamagedError if it is missing or cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DamagedError(path, describe(error), remedy) from None


def read_object(path: Path, remedy: str = OVERWRITE) -> dict[str, Any]:
    """Returns the JSON object in a file. Raises DamagedError if it holds anything else."""
    content = read_bytes(path, remedy)
    try:
        return parse_object(content)
    except ValueError as error:
        raise DamagedError(path, f"is damaged: {error}", remedy) from None


def parse_object(text: bytes) -> dict[str, Any]:
    """Returns the JSON object of a text. Raises ValueError if it is anything else."""
    try:
        content = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        reason = "it is empty" if not text.strip() else f"it is not JSON ({error})"
        raise ValueError(reason) from None
    if not isinstance(content, dict):
        raise ValueError("it is not a JSON object")
    return content


def describe(error: OSError) -> str:
    """Returns what is wrong with a file that cannot be opened."""
    if isinstance(error, FileNotFoundError):
        return "is missing"
    if isinstance(error, IsADirectoryError):
        return "is a folder, where a file is expected"
    if isinstance(error, PermissionError):
        return "cannot be read: you have no permission"
    return f"cannot be read: {error.strerror or error}"
