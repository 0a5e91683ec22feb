"""What a worker measures."""

import dataclasses
import pickle

import pytest

from keras_popup.search import trial
from keras_popup.search.tasks import MeasureTask, TrialTask
from keras_popup.training import RunConfig

pytestmark = pytest.mark.integration


def test_try_measure_returns_errors_that_can_be_unpickled(tmp_path):
    run = RunConfig(model="fc", dataset="none", data_dir=str(tmp_path / "none"))
    task = MeasureTask(
        run=run,
        widths=(1.0,),
        initializers=("signed_constant",),
        selectors=(None,),
        fractions=(),
        tickets=False,
        here=False,
    )
    error = pickle.loads(pickle.dumps(trial.try_measure(task)))
    assert type(error) is FileNotFoundError
    assert str(tmp_path / "none") in str(error)
    error = trial.try_measure(dataclasses.replace(task, run=RunConfig(model="fc", validation=0.0)))
    assert type(error) is ValueError


@pytest.mark.parametrize(
    ("selectors", "fractions", "expected"),
    [
        ((None,), (0.25, 0.5), None),
        (("block", "n_m:m=2"), (0.5,), None),
        (("n_m:m=4",), (0.25, 0.3), "k=0.3"),
        (("top_k", "n_m:m=5"), (0.2,), "5 divides"),
        (("top_k:pruned=0.5",), (0.3, 0.7), "0.7"),
    ],
)
def test_try_measure_checks_each_selector_with_each_k(selectors, fractions, expected):
    run = RunConfig(model="fc", width=0.04, k=fractions[0])
    task = MeasureTask(
        run=run,
        widths=(0.04,),
        initializers=("signed_constant",),
        selectors=selectors,
        fractions=fractions,
        tickets=False,
        here=False,
    )
    answer = trial.try_measure(task)
    if expected is None:
        assert answer.sizes == {}
    else:
        assert type(answer) is ValueError
        assert expected in str(answer)


def test_run_reads_the_data_once_for_all_trials(tmp_path, monkeypatch):
    read = []
    load_data = trial.training.load_data
    monkeypatch.setattr(trial.training, "load_data", lambda config: read.append(config.dataset) or load_data(config))
    trial._load_once.cache_clear()
    run = RunConfig(model="fc", width=0.1, epochs=1, deterministic=False)
    task = TrialTask(run=run, folder=tmp_path / "a")
    first = trial.run(task)
    second = trial.run(dataclasses.replace(task, folder=tmp_path / "b"))
    assert read == ["digits"]
    assert not first.error
    assert first.executions[0].validation == second.executions[0].validation


@pytest.mark.parametrize(
    ("selector", "k"), [("n_m:m=2", 0.5), ("top_k:pruned=0.7", 0.2), ("top_k:locked=0.6", 0.7), ("block", 0.5)]
)
def test_run_predicts_the_bytes_of_each_selector(selector, k, tmp_path):
    run = RunConfig(model="fc", width=0.1, epochs=1, selector=selector, k=k, deterministic=False)
    result = trial.run(TrialTask(run=run, folder=tmp_path / "a"))
    assert not result.error
    assert result.executions[0].ticket_bytes <= result.executions[0].predicted_bytes


def test_run_begins_a_damaged_run_anew(tmp_path):
    task = TrialTask(run=RunConfig(model="fc", width=0.1, epochs=1, deterministic=False), folder=tmp_path / "a")
    first = trial.run(task)
    assert not first.error
    for name in ("summary.json", "config.json"):
        (tmp_path / "a" / "0" / name).write_text("{")
        again = trial.run(task)
        assert not again.error
        assert again.executions[0].history == first.executions[0].history
        assert f"{name}' is damaged: it is not JSON" in (tmp_path / "a" / "log.txt").read_text()
