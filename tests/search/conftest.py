"""Searches that many tests look at. Each takes long, so a test process makes it once."""

import pytest
from searches import BUDGETED

from keras_popup import cli, search


@pytest.fixture(scope="session")
def failing(tmp_path_factory):
    """A search of which one trial fails, whose winner was trained again."""
    folder = tmp_path_factory.mktemp("searches") / "a"
    flags = ["--model", "fc", "--width", "0.2", "--epochs", "3", "--seed", "0", "--tuner", "grid", "--executions", "2"]
    flags += ["--learning_rate", "0.5,1e38,1", "--refit", "--tensorboard", "--out", str(folder)]
    assert cli.main(["search", *flags]) == 0
    return folder, flags


@pytest.fixture(scope="session")
def budgeted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("searches") / "b"
    return folder, search.search(BUDGETED, folder)
