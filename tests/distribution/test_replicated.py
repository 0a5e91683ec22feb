"""Several devices and several workers: equality with one device, kills, refusals. Replicas are in replicas.py.

They are parts of the CPU; `make test-gpu` runs the same on GPUs.
"""

import dataclasses
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
import replicas
from ports import free_ports
from small_runs import assert_history_is_that_of, history, list_flags

from keras_popup import training

pytestmark = pytest.mark.integration

# Such as GPU:0,GPU:1.
DEVICES = os.environ.get("KERAS_POPUP_TEST_DEVICES", "CPU:0,CPU:1")
FOUR = DEVICES if "GPU" in DEVICES else "CPU:0,CPU:1,CPU:2,CPU:3"

TIMEOUT = 300
QUICK = ("fit", "run", "refused")
SLOW = ("kinds", "policies")


def marks(name, devices):
    if name in QUICK and devices == DEVICES:
        return ()
    return pytest.mark.slow if name in SLOW else pytest.mark.rare


@pytest.mark.parametrize(
    ("case", "devices"),
    [
        pytest.param(case.__name__, devices, marks=marks(case.__name__, devices))
        for case in replicas.CASES
        for devices in ((DEVICES, FOUR) if case.__name__ == "fit" else (DEVICES,))
    ],
)
def test_replicas_do_what_one_device_does(case, devices):
    script = Path(replicas.__file__)
    done = subprocess.run([sys.executable, script, case, devices], capture_output=True, text=True, timeout=TIMEOUT)
    assert done.returncode == 0, done.stderr[-5000:]


RUN = dataclasses.replace(replicas.RUN, epochs=8)


@pytest.fixture(scope="module")
def on_one_device(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    return folder, training.train(RUN, folder)


def command(folder, *more):
    return [sys.executable, "-m", "keras_popup", "train", *list_flags(RUN), f"--out={folder}", *more]


def start(folder, *more, **environment):
    return subprocess.Popen(
        command(folder, *more),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **environment},
    )


def wait_for_a_checkpoint(folder, run):
    end = time.monotonic() + TIMEOUT
    while not (folder / "checkpoint.json").exists():
        assert run.poll() is None, run.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ([f"--devices={DEVICES}"], ["--strategy=none"]),
        pytest.param([f"--devices={FOUR}"], ["--strategy=mirrored", f"--devices={DEVICES}"], marks=pytest.mark.rare),
        pytest.param(["--strategy=none"], [f"--devices={DEVICES}"], marks=pytest.mark.rare),
    ],
    ids=str,
)
def test_fit_killed_and_resumed_on_other_devices(on_one_device, tmp_path, first, then):
    folder = tmp_path / "run"
    run = start(folder, *first)
    wait_for_a_checkpoint(folder, run)
    run.kill()
    run.communicate()
    assert len(history(folder)) < RUN.epochs
    run = start(folder, "--resume", *then)
    output, _ = run.communicate(timeout=TIMEOUT)
    assert run.returncode == 0, output
    assert "Going on after epoch" in output
    assert then == ["--strategy=none"] or f"{DEVICES.count(':')} replicas on" in output
    assert_history_is_that_of(folder, *on_one_device)


def start_workers(folders, *more, each=()):
    cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports(len(folders))]}
    tasks = [{"type": "worker", "index": index} for index in range(len(folders))]
    return [
        start(
            folder,
            "--strategy=multiworker",
            *more,
            *(each[task["index"]] if each else ()),
            TF_CONFIG=json.dumps({"cluster": cluster, "task": task}),
            # Of several processes, each needs a GPU of its own.
            CUDA_VISIBLE_DEVICES=str(task["index"]) if "GPU" in DEVICES else "",
        )
        for folder, task in zip(folders, tasks, strict=True)
    ]


@pytest.mark.parametrize("killed", [pytest.param(1, marks=pytest.mark.slow), pytest.param(0, marks=pytest.mark.rare)])
def test_fit_ends_when_a_worker_is_killed_and_all_resume(on_one_device, tmp_path, killed):
    folders = tmp_path / "run", tmp_path / "elsewhere"
    workers = start_workers(folders)
    wait_for_a_checkpoint(folders[0], workers[0])
    workers[killed].send_signal(signal.SIGKILL)
    output, _ = workers[1 - killed].communicate(timeout=TIMEOUT)
    workers[killed].communicate()
    assert workers[1 - killed].returncode == 1
    assert "Another worker is lost" in output
    assert "--resume" in output
    assert len(history(folders[0])) < RUN.epochs
    workers = start_workers(folders, "--resume")
    outputs = [worker.communicate(timeout=TIMEOUT)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], outputs
    assert "Going on after epoch" in outputs[1]
    assert "global batch 64, 32 a replica; learning rate 0.5" in outputs[0]
    summary = assert_history_is_that_of(folders[0], *on_one_device)
    assert (summary["devices"]["strategy"], summary["devices"]["replicas"]) == ("multiworker", 2)
    assert not folders[1].exists()


@pytest.mark.rare
def test_fit_with_three_workers(on_one_device, tmp_path):
    workers = start_workers([tmp_path / "run"] * 3)
    outputs = [worker.communicate(timeout=TIMEOUT)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0, 0], outputs
    assert_history_is_that_of(tmp_path / "run", *on_one_device)


@pytest.mark.rare
def test_evaluator_of_workers_draws_masks(tmp_path):
    changes = {"method": "supermask", "learning_rate": 10.0, "l2": 0.0, "epochs": 1}
    expected = training.train(dataclasses.replace(RUN, **changes), tmp_path / "alone")
    flags = [f"--{name}={value}" for name, value in changes.items()]
    workers = start_workers([tmp_path / "run", tmp_path / "elsewhere"], *flags)
    outputs = [worker.communicate(timeout=TIMEOUT)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], outputs
    found = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert found["test_draws"] == pytest.approx(expected["test_draws"], rel=1e-3)


@pytest.mark.rare
def test_take_from_worker_0_that_a_run_is_finished(on_one_device, tmp_path):
    folder, summary = on_one_device
    files = {path: path.read_bytes() for path in folder.iterdir()}
    workers = start_workers([folder, tmp_path / "elsewhere"], "--resume")
    outputs = [worker.communicate(timeout=TIMEOUT)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], outputs
    assert all(f"{summary['test']['accuracy']:.2%}" in output for output in outputs)
    assert files == {path: path.read_bytes() for path in folder.iterdir()}
    workers = start_workers([folder, tmp_path / "elsewhere"])
    outputs = [worker.communicate(timeout=TIMEOUT)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [1, 1], outputs
    assert all("exists. Use --resume" in output for output in outputs)


@pytest.mark.rare
def test_check_same_everywhere_refuses_other_data(on_one_device, tmp_path):
    for worker, seed in enumerate((0, 0, 1)):
        rng = np.random.default_rng(seed)
        for split, name in itertools.product(("train", "test"), ("cats", "dogs")):
            folder = tmp_path / f"data{worker}" / split / name
            folder.mkdir(parents=True)
            for number in range(3):
                keras.utils.save_img(folder / f"{number}.png", rng.integers(0, 256, (8, 8, 3)), scale=False)
    out = tmp_path / "run"
    shutil.copytree(on_one_device[0], out)
    files = {path: path.read_bytes() for path in out.iterdir()}
    more = ["--dataset=pets", "--validation=0", "--batch_size=4", "--epochs=1", "--overwrite"]
    for others in (2, 1):
        data = [[f"--data_dir={tmp_path / 'data0'}"], [f"--data_dir={tmp_path / f'data{others}'}"]]
        workers = start_workers([out, out], *more, each=data)
        outputs = [worker.communicate(timeout=TIMEOUT)[0] for worker in workers]
        if others == 2:
            assert [worker.returncode for worker in workers] == [1, 1], outputs
            assert all("same data. Here: 6 training, 0 validation and 6 test images of 8x8x3, 2" in o for o in outputs)
            assert files == {path: path.read_bytes() for path in out.iterdir()}
        else:
            assert [worker.returncode for worker in workers] == [0, 0], outputs


def test_prepare_refuses_a_batch_smaller_than_the_devices(tmp_path):
    done = subprocess.run(
        command(tmp_path / "run", "--batch_size=1", f"--devices={FOUR}"),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert done.returncode == 1
    assert "`batch_size` must be at least the number of devices, " in done.stderr
    assert "Received: batch_size=1" in done.stderr
    assert not (tmp_path / "run").exists()
