"""Checks the package that is installed for this Python against its source: python -P .ci/check_installed.py SOURCE

`-P` keeps the source itself out of the way. Every file must be there, with the types and stubs that editors read; the
version must be that of the source; what the extra `all` promises must be there; the description must have no link that
leads nowhere on an index.
"""

import argparse
import hashlib
import importlib.metadata
import importlib.util
import re
import sys
from pathlib import Path

# Imported by the library if it is there; each is of another extra.
OPTIONAL = ("ai_edge_litert", "jinja2", "keras_tuner", "matplotlib", "onnx", "pydot", "ray", "tensorflow_datasets")


def hash_files(folder: Path) -> dict[str, str]:
    """Returns the checksums of a package's files by their names."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def find_faults(source: Path, installed: Path, version: str, description: str) -> list[str]:
    """Returns what is wrong with an installed package, as sentences.

    Args:
        source: the folder of the package in the repository.
        installed: the folder of the package as it is installed.
        version: the version in its metadata.
        description: the description in its metadata, in Markdown.
    """
    expected, received = hash_files(source), hash_files(installed)
    faults = [f"{name} is missing, or another file." for name in expected if received.get(name) != expected[name]]
    faults += [f"{name} is not in the source." for name in received if name not in expected]
    if f'__version__ = "{version}"' not in (source / "__init__.py").read_text(encoding="utf-8"):
        faults.append(f"The metadata have the version {version}, keras_popup/__init__.py has another.")
    links = re.findall(r"\]\(((?!https://)[^)]*)\)", description)
    return faults + [f"The link {link} leads nowhere on an index." for link in links]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="folder of the package in the repository")
    source = parser.parse_args().source.resolve()
    distribution = importlib.metadata.distribution("keras-popup")
    installed = Path(str(distribution.locate_file("keras_popup"))).resolve()
    if installed == source or not installed.is_dir():
        print("The installed package is the source itself. Install a wheel.", file=sys.stderr)
        return 1
    description = distribution.metadata.get_payload() or distribution.metadata["Description"]
    faults = find_faults(source, installed, distribution.version, str(description))
    faults += [f"The extra `all` has not brought {name}." for name in OPTIONAL if not importlib.util.find_spec(name)]
    print("\n".join(faults), end="\n" if faults else "", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
