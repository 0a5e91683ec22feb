"""What a worker measures."""

import dataclasses
import pickle

import pytest

from keras_popup.search import trial
from keras_popup.search.tasks import MeasureTask
from keras_popup.training import RunConfig

pytestmark = pytest.mark.integration


def test_try_measure_returns_errors_that_can_be_unpickled(tmp_path):
    run = RunConfig(model="fc", dataset="none", data_dir=str(tmp_path / "none"))
    task = MeasureTask(run=run, widths=(1.0,), initializers=("signed_constant",), tickets=False, here=False)
    error = pickle.loads(pickle.dumps(trial.try_measure(task)))
    assert type(error) is FileNotFoundError
    assert str(tmp_path / "none") in str(error)
    error = trial.try_measure(dataclasses.replace(task, run=RunConfig(model="fc", validation=0.0)))
    assert type(error) is ValueError
