"""The command `watch`."""

import threading
import time

from record_folders import history_of, make_run, make_search, small_model, summary_of

from keras_popup import cli
from keras_popup.records import RunFolder


def test_watch_needs_a_folder_of_records(capsys, tmp_path):
    assert cli.main(["watch", str(tmp_path)]) == 2
    assert "FOLDER must be the folder of a run or a search" in capsys.readouterr().err


def test_watch_prints_epochs_until_the_run_is_finished(capsys, tmp_path):
    model = small_model()
    make_run(tmp_path / "run", model, 2)

    def go_on():
        time.sleep(0.1)
        folder = RunFolder(tmp_path / "run")
        folder.write_history(history_of(3))
        folder.finish(summary_of(3))

    other = threading.Thread(target=go_on)
    other.start()
    assert cli.main(["watch", str(tmp_path / "run"), "--interval", "0.02"]) == 0
    other.join()
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "epoch 1 of 9: training accuracy 10.00%, best 10.00%, loss 0.3333"
    assert [line.partition(" of")[0] for line in printed[:3]] == ["epoch 1", "epoch 2", "epoch 3"]
    assert printed[3:] == ["finished: test accuracy 50.00%", f"next: keras-popup report {tmp_path / 'run'}"]


def test_watch_once_prints_what_is_there(capsys, tmp_path):
    make_run(tmp_path / "run", small_model(), 1)
    assert cli.main(["watch", str(tmp_path / "run"), "--once"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_watch_prints_the_trials_of_a_search(capsys, tmp_path):
    search = make_search(tmp_path / "search", small_model())
    assert cli.main(["watch", str(search.path)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "trial 1: 35.00%; best: 35.00%, trial 1"
    assert printed[-2] == f"finished: trial {search.best().trial} is the best"
