"""The files of records in the folder of a search."""

import dataclasses
import shutil

import pytest
from example_records import RECORDS
from record_folders import make_older, make_search, small_model

from keras_popup.records import BaselineRecord, DamagedError, SearchFolder, StartedRecord, TrialRecord


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


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_search(tmp_path_factory.mktemp("search") / "s", small_model()).path


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("trials.jsonl", lambda text: text.replace("0.35", "0.95", 1), "is damaged in line 1: its checksum differs"),
        ("trials.jsonl", lambda text: text.replace("\n", " ", 1), "is damaged in line 1: it is not JSON"),
        ("trials.jsonl", lambda text: text + text.splitlines()[1] + "\n", "is damaged: it has 2 lines of trial 2"),
        ("started.jsonl", lambda text: text.replace('"after": 1', '"after": 2'), "is damaged in line 2: its checksum"),
        ("started.jsonl", lambda text: "\n" + text, "is damaged in line 1: it is empty"),
        ("baselines.jsonl", lambda text: "[]\n", "is damaged in line 1: it is not a JSON object. Delete this line: "),
        ("best.json", lambda text: text.replace("0.55", "0.95"), "is damaged: its checksum.* Delete it: the search"),
        ("best.keras", lambda text: "", "is damaged: its checksum differs. Delete it: the search, with --resume"),
        ("best.ticket", lambda text: "another", "is damaged: its checksum differs. Delete it"),
    ],
)
def test_search_folder_names_damage(made, name, damage, message, tmp_path):
    folder = SearchFolder(shutil.copytree(made, tmp_path / "s"))
    path = folder.path / name
    path.write_text(damage(path.read_text(errors="replace")))
    with pytest.raises(DamagedError, match=f"{name}' {message}"):
        read_all(folder)


def read_all(folder):
    for kind in (TrialRecord, StartedRecord, BaselineRecord):
        folder.records(kind, repair=True)
    folder.best()
    folder.check_best("best.keras")
    folder.check_best("best.ticket")


def test_search_folder_removes_a_line_that_was_cut_off(made, tmp_path, caplog):
    folder = SearchFolder(shutil.copytree(made, tmp_path / "s"))
    path = folder.path / TrialRecord.file
    whole = path.read_text()
    path.write_text(whole + '{"trial": 4')
    assert len(folder.records(TrialRecord)) == 3
    assert not caplog.messages
    assert len(folder.records(TrialRecord, repair=True)) == 3
    assert caplog.messages == [f"The last line of '{path}' was cut off. It is removed."]
    assert path.read_text() == whole


def test_search_folder_of_an_earlier_version_is_read(made, tmp_path, caplog):
    folder = SearchFolder(shutil.copytree(made, tmp_path / "s"))
    expected = folder.records(TrialRecord), folder.best()
    make_older(folder.path)
    assert (folder.records(TrialRecord), folder.best()) == expected
    folder.append(dataclasses.replace(expected[0][0], trial=4))
    config = {**folder.config(), "max_trials": 9}
    folder.change_config(config)
    folder.start(config, {}, overwrite=False)
    assert len(folder.records(TrialRecord)) == 4
    assert folder.config() == config
    assert "without checksums: its files cannot be checked" in caplog.text


def test_change_config_keeps_the_other_files_valid(made, tmp_path):
    folder = SearchFolder(shutil.copytree(made, tmp_path / "s"))
    config = {**folder.config(), "max_trials": 9}
    folder.change_config(config)
    assert folder.config() == config
    read_all(SearchFolder(folder.path))
