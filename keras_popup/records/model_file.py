"""The origin of a model, in its .keras file: what it was trained on, and how.

Keras reads the members of a .keras file by name, and so ignores this one.
"""

import json
import os
import zipfile
from pathlib import Path
from typing import Any

_MEMBER = "keras_popup.json"
_NAMES = ("classes", "dataset", "arguments")


def write_origin(file: Path, origin: dict[str, Any]) -> None:
    """Adds the origin to a .keras file: the arguments "classes", "dataset" and "arguments" of `save_ticket`.

    Other keys are left out.
    """
    origin = {name: value for name, value in origin.items() if name in _NAMES}
    if not origin:
        return
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(_MEMBER, json.dumps(origin))


def read_origin(file: str | os.PathLike[str]) -> dict[str, Any]:
    """Returns the origin that `write_origin` wrote; {} if the file has none.

    Raises:
        ValueError: if it is no .keras file, or damaged.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            origin = json.loads(archive.read(_MEMBER)) if _MEMBER in archive.namelist() else {}
    except zipfile.BadZipFile:
        raise ValueError(f"'{file}' cannot be read as a Keras model: it is empty, cut off or no .keras file.") from None
    return {name: value for name, value in origin.items() if name in _NAMES}
