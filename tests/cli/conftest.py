"""A run that the tests of several commands look at."""

import pytest
from shared import make_once

from keras_popup import training
from keras_popup.training import RunConfig


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory):
    """The folder of a run with a ticket."""
    config = RunConfig(model="fc", width=0.2, epochs=3, learning_rate=0.5, deterministic=False)
    return make_once(tmp_path_factory, "trained-run", lambda folder: training.train(config, folder, ticket=True))
