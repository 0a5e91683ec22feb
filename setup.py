"""The README as a package index shows it. Everything else about the package is in setup.cfg."""

import re
from pathlib import Path

from setuptools import setup

HERE = Path(__file__).parent
REPOSITORY = "https://github.com/keras-popup/keras-popup"
PICTURES = "https://raw.githubusercontent.com/keras-popup/keras-popup"


def make_absolute(text: str, version: str) -> str:
    """Returns a page whose links and pictures are those of a released version, as they lead nowhere on an index."""
    text = re.sub(r"(!\[[^\]]*\])\((?!https?:)", rf"\1({PICTURES}/v{version}/", text)
    text = re.sub(r"\]\(#", "](README.md#", text)  # an index gives headings no anchors
    return re.sub(r"\]\((?!https?:)", f"]({REPOSITORY}/blob/v{version}/", text)


def read_version() -> str:
    """Returns the version of the package, which is not imported for it."""
    text = (HERE / "keras_popup" / "__init__.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)[1]


if __name__ == "__main__":
    setup(
        long_description=make_absolute((HERE / "README.md").read_text(encoding="utf-8"), read_version()),
        long_description_content_type="text/markdown",
    )
