"""The files of records in the folder of a search."""

import dataclasses

import pytest
from example_records import RECORDS

from keras_popup.records import SearchFolder, TrialRecord


def test_search_folder_keeps_records(tmp_path):
    folder = SearchFolder(tmp_path)
    assert folder.records(TrialRecord) == []
    assert folder.best() is None
    trials = [dataclasses.replace(record, trial=number) for number, record in enumerate(RECORDS[:3], 1)]
    for record in trials:
        folder.append(record)
    folder.write_best(RECORDS[3])
    assert folder.records(TrialRecord) == trials
    assert folder.best() == RECORDS[3]
    with open(tmp_path / "trials.jsonl", "a") as file:
        file.write('{"trial": 4}\n')
    with pytest.raises(
        ValueError, match=r"trials.jsonl. is damaged in line 4: it lacks .status.. Delete this line and those"
    ):
        folder.records(TrialRecord)
    (tmp_path / "best.json").write_text('{"trial": 1, "execution": 0, "executions": []}')
    with pytest.raises(ValueError, match=r"best.json' is damaged"):
        folder.best()
