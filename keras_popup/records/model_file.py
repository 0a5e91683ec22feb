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
        ValueError: if it is no .keras file, or damaged. All its bytes are checked by the checksums in it.
    """
    if os.path.isdir(file):
        raise ValueError(f"'{file}' cannot be read as a Keras model: it is a folder.")
    try:
        with zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()
            origin = json.loads(archive.read(_MEMBER)) if _MEMBER in archive.namelist() else {}
    except OSError:
        raise
    except zipfile.BadZipFile:
        raise ValueError(f"'{file}' cannot be read as a Keras model: it is empty, cut off or no .keras file.") from None
    except Exception as error:  # of any type: zipfile, zlib and json have many for what is damaged
        raise ValueError(f"'{file}' is damaged: {error}. Use another copy of it, or train it again.") from None
    if damaged:
        raise ValueError(
            f"'{file}' is damaged: the checksum of {damaged!r} in it differs. Use another copy of it, or train it "
            "again."
        )
    return {name: value for name, value in origin.items() if name in _NAMES} if isinstance(origin, dict) else {}
