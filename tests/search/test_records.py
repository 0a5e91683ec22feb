"""The records of a search: what they are in files, also in those of earlier versions."""

import dataclasses
import json

import pytest

from keras_popup.records import (
    BaselineRecord,
    BestRecord,
    Execution,
    Heartbeat,
    LayerRecord,
    SearchFolder,
    StartedRecord,
    TrialRecord,
    TrialResult,
    best_trial,
)

EXECUTION = Execution(
    seed=1,
    k=0.3,
    width=0.5,
    weights=100,
    kept=30,
    layers=(LayerRecord(name="dense1", weights=60, kept=18, k=0.3, seed=7), LayerRecord(name="b", weights=40, kept=40)),
    predicted_bytes=None,
    ticket_bytes=120,
    train={"loss": 1.0, "accuracy": 0.5},
    validation={"loss": 1.5, "accuracy": 0.25},
    test=None,
    seconds=1.5,
    history=[{"epoch": 1, "loss": 1.0}],
    config={"model": "fc", "k": {"dense*": 0.3, "*": 0.5}},
)
RESULT = TrialResult(executions=(EXECUTION,), peak_memory_mb=300)
TRIAL = TrialRecord(
    trial=3,
    status="completed",
    hyperparameters={"k": 0.3, "width": 0.5},
    until=None,
    score=0.25,
    folder="trials/0003",
    started="2026-01-01T00:00:00+00:00",
    seconds=2.5,
    **RESULT.common(),
)
OWN = {field.name: getattr(TRIAL, field.name) for field in dataclasses.fields(TRIAL)}
RECORDS = [
    TRIAL,
    dataclasses.replace(TRIAL, same_as=1),
    TrialRecord(**{**OWN, "score": None, "status": "failed", "executions": (), "error": "it failed"}),
    BestRecord(**OWN, execution=0, test={"accuracy": 0.2}, refit={"ticket_bytes": 9}),
    BaselineRecord(width=0.5, score=0.25, **RESULT.common()),
    StartedRecord(trial=3, after=2, values={"k": 0.3, "tuner/epochs": 2}),
    Heartbeat(epoch=1, epochs=3, execution=0, host="here", pid=7, batch=4),
    EXECUTION,
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_records_are_read_as_written(record):
    content = json.loads(json.dumps(record.to_json()))
    assert type(record).from_json(content) == record
    assert type(record).from_json({**content, "of a later version": 1}) == record


def test_keys_of_a_trial():
    """Those of the first version, in trials.jsonl and best.json."""
    content = TRIAL.to_json()
    names = "trial status hyperparameters until score folder started seconds executions error traceback peak_memory_mb"
    assert list(content) == [*names.split(), "retries"]
    (execution,) = content["executions"]
    names = "seed k width weights kept layers predicted_bytes ticket_bytes train validation test seconds history config"
    assert list(execution) == names.split()
    assert execution["layers"] == [
        {"name": "dense1", "weights": 60, "kept": 18, "k": 0.3, "seed": 7},
        {"name": "b", "weights": 40, "kept": 40},
    ]
    assert dataclasses.replace(TRIAL, same_as=1).to_json()["same_as"] == 1


def test_files_of_records(tmp_path):
    folder = SearchFolder(tmp_path)
    assert folder.records(TrialRecord) == []
    assert folder.best() is None
    for record in RECORDS[:3]:
        folder.append(record)
    folder.write_best(RECORDS[3])
    assert folder.records(TrialRecord) == RECORDS[:3]
    assert folder.best() == RECORDS[3]
    with open(tmp_path / "trials.jsonl", "a") as file:
        file.write('{"trial": 4}\n')
    with pytest.raises(ValueError, match=r"trials.jsonl' is damaged: .*--overwrite"):
        folder.records(TrialRecord)
    (tmp_path / "best.json").write_text('{"trial": 1, "execution": 0, "executions": []}')
    with pytest.raises(ValueError, match=r"best.json' is damaged"):
        folder.best()


def test_the_mean_is_of_all_executions_that_succeeded():
    assert RESULT.mean_accuracy == 0.25
    assert dataclasses.replace(RESULT, error="the second failed").mean_accuracy is None
    assert TrialResult().mean_accuracy is None


def test_the_best_trial():
    shorter = dataclasses.replace(TRIAL, trial=1, until=2, score=0.9)
    smaller = dataclasses.replace(TRIAL, trial=4, executions=(dataclasses.replace(EXECUTION, ticket_bytes=100),))
    failed = dataclasses.replace(TRIAL, trial=5, score=None)
    assert best_trial([shorter, TRIAL, smaller, failed]) is smaller
    assert best_trial([shorter, dataclasses.replace(TRIAL, trial=2), TRIAL]).trial == 2
    assert best_trial([failed]) is None
