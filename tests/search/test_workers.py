"""Child processes that train trials."""

import os
import time

import pytest
from searches import lines, started

from keras_popup.search import workers

pytestmark = pytest.mark.integration


@pytest.mark.rare
def test_workers_keep_their_memory_over_fifty_trials(tmp_path):
    flags = ["--model", "fc", "--width", "0.1", "--k", "0.1:0.9", "--epochs", "1", "--tuner", "random", "--nobaseline"]
    process = started(*flags, "--max_trials", "50", "--out", str(tmp_path / "s"))
    sizes = {}
    while process.poll() is None:
        ended = len(lines(tmp_path / "s")) if (tmp_path / "s" / "trials.jsonl").exists() else 0
        with open(f"/proc/{process.pid}/statm") as file:
            text = file.read().split()
        if ended and len(text) > 1:
            sizes[ended] = int(text[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
        time.sleep(0.2)
    process.stderr.close()
    assert process.returncode == 0
    trials = lines(tmp_path / "s")
    assert len(trials) == 50
    own = [sizes[number] for number in sorted(sizes) if number >= 5]
    assert max(own) - own[0] < 50, sizes  # MiB
    peaks = [record["peak_memory_mb"] for record in trials]
    renewed = [peaks[start : start + workers.TRIALS_PER_PROCESS] for start in range(0, 50, workers.TRIALS_PER_PROCESS)]
    assert max(max(part) for part in renewed) - max(renewed[0]) < 100, peaks
