"""Damage to files: bytes, values of JSON, whole files."""

import copy
import json
import os
import shutil


def damage(content, rng):
    """A file that is not what was written."""
    content = bytearray(content)
    how = rng.choice(["bit", "byte", "cut", "extend", "swap", "zero", "insert", "repeat"])
    at = rng.randrange(len(content))
    if how == "bit":
        content[at] ^= 1 << rng.randrange(8)
    elif how == "byte":
        content[at] = (content[at] + rng.randrange(1, 256)) % 256
    elif how == "cut":
        del content[at:]
    elif how == "extend":
        content += rng.randbytes(rng.randrange(1, 50))
    elif how == "swap":
        length = rng.randrange(1, 40)
        other = rng.randrange(len(content))
        content[at : at + length], content[other : other + length] = (
            content[other : other + length],
            content[at : at + length],
        )
    elif how == "zero":
        content[at : at + 16] = bytes(len(content[at : at + 16]))
    elif how == "insert":
        content[at:at] = rng.randbytes(rng.randrange(1, 9))
    else:
        content[at:at] = content[at : at + 30]
    return bytes(content)


NASTY = [
    *[None, True, False, 0, 1, -1, 2, 7, 10**4, 10**6, 2**31, 2**40, 2**63, 10**30, 0.5, -0.5, 1e308, float("nan")],
    *["", "x", "float32", "conv", "../../x", "\x1b[2J", "MaskedDense", "keras", "os", "system", "__lambda__", "1"],
    *[[], {}, [0], [1, 2, 3], [[1, 2]], {"a": 1}, {"class_name": "Dense", "config": {"units": 10**6}}],
]


def edit(manifest, rng):
    """Changes one value of a JSON object."""
    here, key = {"": manifest}, ""
    while isinstance(here[key], (dict, list)) and here[key] and (rng.random() < 0.9 or here[key] is manifest):
        here = here[key]
        key = rng.choice(list(here) if isinstance(here, dict) else range(len(here)))
    how = rng.choice(["replace", "replace", "remove", "number"])
    if how == "remove":
        del here[key]
    elif how == "number" and type(here[key]) is int:
        here[key] = max(0, here[key] + rng.choice([-1, 1, 8, 2**20, here[key]]))
    else:
        here[key] = copy.deepcopy(rng.choice(NASTY))


def damage_folder(folder, rng):
    """Damages one file of a folder, or exchanges two. Returns what was done, as text."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    path, other = rng.choice(files), rng.choice(files)
    how = rng.choice(["bytes", "bytes", "edit", "edit", "cut", "empty", "folder", "exchange", "remove", "permission"])
    content = path.read_bytes()
    if how in ("bytes", "edit") and not content:  # such as that of the lock
        path.write_bytes(b"?")
    elif how == "bytes":
        path.write_bytes(damage(content, rng))
    elif how == "edit":
        path.write_bytes(_edit_text(content, rng) if path.suffix in (".json", ".jsonl") else damage(content, rng))
    elif how == "cut":
        path.write_bytes(content[: rng.randrange(len(content) + 1)])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "exchange":
        path.write_bytes(other.read_bytes())
        other.write_bytes(content)
    elif how == "permission":  # which the superuser does not need
        os.chmod(path, 0)
    else:
        path.unlink()
        if how == "folder":
            path.mkdir()
            shutil.copyfile(__file__, path / "file")
    return f"{how}: {path.relative_to(folder)}" + (f", {other.relative_to(folder)}" if how == "exchange" else "")


def _edit_text(content, rng):
    """Changes one value of one JSON object of a text, which has one object, or one on each line."""
    try:
        entries, indent = [json.loads(content)], 2
    except ValueError:
        entries, indent = [json.loads(line) for line in content.splitlines()], None
    edit(rng.choice(entries), rng)
    return "".join(json.dumps(entry, indent=indent) + "\n" for entry in entries).encode()
