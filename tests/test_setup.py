"""The README as a package index shows it."""

import importlib.util
import re
from pathlib import Path

import pytest

import keras_popup

pytest.importorskip("setuptools")
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def setup():
    spec = importlib.util.spec_from_file_location("setup_of_keras_popup", ROOT / "setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_read_version(setup):
    assert setup.read_version() == keras_popup.__version__


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[a](docs/a.md#b)", "[a]({0}/blob/v1.0/docs/a.md#b)"),
        ("![a](docs/a.png)", "![a]({1}/v1.0/docs/a.png)"),
        ("[a](#b) [c](https://keras.io)", "[a]({0}/blob/v1.0/README.md#b) [c](https://keras.io)"),
    ],
)
def test_make_absolute(setup, text, expected):
    assert setup.make_absolute(text, "1.0") == expected.format(setup.REPOSITORY, setup.PICTURES)


def test_make_absolute_leaves_files_that_exist(setup):
    text = setup.make_absolute((ROOT / "README.md").read_text(), "1.0")
    paths = re.findall(rf"\]\((?:{setup.REPOSITORY}/blob|{setup.PICTURES})/v1\.0/([^)#]+)", text)
    assert len(paths) > 20
    assert all((ROOT / path).exists() for path in paths)
    assert re.findall(r"\]\((?!https://)", text) == []
