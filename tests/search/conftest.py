"""Searches that many tests look at. Each takes long, so all test processes together make it once."""

import pytest
from searches import BUDGETED
from shared import make_once

from keras_popup import cli, records, search


@pytest.fixture(scope="session")
def failing(tmp_path_factory):
    """A search of which one trial fails, whose winner was trained again."""
    flags = ["--model", "fc", "--width", "0.2", "--epochs", "3", "--seed", "0", "--tuner", "grid", "--executions", "2"]
    flags += ["--learning_rate", "0.5,1e6,1", "--refit", "--tensorboard", "--out"]

    def make(folder):
        assert cli.main(["search", *flags, str(folder)]) == 0

    folder = make_once(tmp_path_factory, "failing-search", make)
    return folder, [*flags, str(folder)]


@pytest.fixture(scope="session")
def budgeted(tmp_path_factory):
    folder = make_once(tmp_path_factory, "budgeted-search", lambda folder: search.search(BUDGETED, folder))
    return folder, records.SearchFolder(folder).best()
