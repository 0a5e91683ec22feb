"""The records of a search: what they are in files, also in those of earlier versions."""

import dataclasses
import json

import pytest
from example_records import EXECUTION, RECORDS, RESULT, TRIAL

from keras_popup.records import TrialResult, best_trial


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_record_is_read_as_written(record):
    content = json.loads(json.dumps(record.to_json()))
    assert type(record).from_json(content) == record
    assert type(record).from_json({**content, "of a later version": 1}) == record


def test_trial_record_has_the_keys_of_the_first_version():
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


def test_trial_result_has_the_mean_of_all_that_succeeded():
    assert RESULT.mean_accuracy == 0.25
    assert dataclasses.replace(RESULT, error="the second failed").mean_accuracy is None
    assert TrialResult().mean_accuracy is None


def test_best_trial_is_a_whole_one_and_of_equals_the_smallest():
    shorter = dataclasses.replace(TRIAL, trial=1, until=2, score=0.9)
    smaller = dataclasses.replace(TRIAL, trial=4, executions=(dataclasses.replace(EXECUTION, ticket_bytes=100),))
    failed = dataclasses.replace(TRIAL, trial=5, score=None)
    assert best_trial([shorter, TRIAL, smaller, failed]) is smaller
    assert best_trial([shorter, dataclasses.replace(TRIAL, trial=2), TRIAL]).trial == 2
    assert best_trial([failed]) is None
