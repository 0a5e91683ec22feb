"""The check of what a wheel installs."""

import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / ".ci"))

import check_installed


@pytest.fixture
def folders(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "__init__.py").write_text('__version__ = "1.0"\n')
    (source / "py.typed").write_text("")
    shutil.copytree(source, tmp_path / "installed")
    return source, tmp_path / "installed"


def test_find_faults_finds_none(folders):
    assert check_installed.find_faults(*folders, "1.0", "[a](https://keras.io)") == []


def test_find_faults(folders):
    source, installed = folders
    (installed / "py.typed").unlink()
    (installed / "core.pyi").write_text("")
    assert check_installed.find_faults(source, installed, "1.1", "![a](docs/a.png)") == [
        "py.typed is missing, or another file.",
        "core.pyi is not in the source.",
        "The metadata have the version 1.1, keras_popup/__init__.py has another.",
        "The link docs/a.png leads nowhere on an index.",
    ]
