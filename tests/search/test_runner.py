"""Trials that make no progress."""

import json
import os
import signal

import pytest
from searches import FC, LONG, alive, lines, started

from keras_popup.search.runner import Runner
from keras_popup.search.tasks import TrialTask


@pytest.mark.integration
@pytest.mark.rare
def test_runner_gives_up_what_is_stuck(tmp_path):
    folder, stopped = tmp_path / "s", []
    flags = [*LONG, "--epochs", "500", "--max_trials", "1", "--stall_minutes", "0.25", "--retries", "1"]
    process = started(*flags, "--out", str(folder))
    for _ in range(2):
        stopped.append(alive(folder, epochs=2, but=stopped)["pid"])
        os.kill(stopped[-1], signal.SIGSTOP)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "It made no progress for 0.25 minutes" in said
    assert "No trial has succeeded" in said
    assert lines(folder)[0]["error"] == "It made no progress for 0.25 minutes, 2 times."


class Pool:
    """A pool whose trials never end."""

    size, queues = 1, True

    def __init__(self):
        self.killed = []

    def start(self, number, task):
        pass

    def wait(self, seconds):
        return []

    def kill(self, number):
        self.killed.append(number)


def test_runner_does_not_give_up_what_has_not_begun(tmp_path):
    sign = {"epoch": 7, "epochs": 9, "execution": 0, "host": "here", "pid": 1}
    (tmp_path / "alive.json").write_text(json.dumps(sign))  # of an earlier process
    pool, seen = Pool(), []
    runner = Runner(pool, 2, 1e-9)
    runner.start(1, TrialTask(run=FC, folder=tmp_path))

    def look():
        assert not list(runner.ended(lambda number, sign: seen.append((number, sign.epoch))))

    look()
    assert not pool.killed
    (tmp_path / "alive.json").write_text(json.dumps({**sign, "epoch": 0}))
    look()
    assert not pool.killed
    (tmp_path / "alive.json").unlink()  # as it is for others while a file system of the network replaces it
    look()
    look()
    assert pool.killed == [1]
    assert seen == [(1, 0)]
