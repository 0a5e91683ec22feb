"""Several devices and several workers: equality with one device, kills, refusals. What needs devices is in replicas.py.

They are parts of the CPU; `make test-gpu` runs the same on GPUs.
"""

import csv
import dataclasses
import functools
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import keras
import numpy as np
import pytest
import replicas
import tensorflow as tf

import keras_popup
import keras_popup.layers
from keras_popup import distribution, training
from keras_popup.distribution import rendezvous
from keras_popup.layers import strategy_checks
from keras_popup.training import RunConfig

# Such as GPU:0,GPU:1.
DEVICES = os.environ.get("KERAS_POPUP_TEST_DEVICES", "CPU:0,CPU:1")
FOUR = DEVICES if "GPU" in DEVICES else "CPU:0,CPU:1,CPU:2,CPU:3"

TIMEOUT = 300
QUICK = ("fit", "run", "refused")


def marks(name, devices):
    if name in QUICK and devices == DEVICES:
        return ()
    return pytest.mark.rare if name == "resnet" or devices != DEVICES else pytest.mark.slow


@pytest.mark.parametrize(
    ("case", "devices"),
    [
        pytest.param(case.__name__, devices, marks=marks(case.__name__, devices))
        for case in replicas.CASES
        for devices in ((DEVICES, FOUR) if case.__name__ == "fit" else (DEVICES,))
    ],
)
def test_replicas(case, devices):
    script = Path(replicas.__file__)
    done = subprocess.run([sys.executable, script, case, devices], capture_output=True, text=True, timeout=TIMEOUT)
    assert done.returncode == 0, done.stderr[-5000:]


RUN = dataclasses.replace(replicas.RUN, epochs=8)


@pytest.fixture(scope="module")
def on_one_device(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    return folder, training.train(RUN, folder)


def command(folder, *more):
    values = {**dataclasses.asdict(RUN), "strategy": None}
    flags = [f"--{name}={value}" for name, value in values.items() if value is not None and not isinstance(value, bool)]
    return [sys.executable, "-m", "keras_popup", "train", *flags, f"--out={folder}", *more]


def start(folder, *more, **environment):
    return subprocess.Popen(
        command(folder, *more),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **environment},
    )


def rows(folder):
    return list(csv.DictReader((folder / "history.csv").read_text().splitlines()))


def wait_for_a_checkpoint(folder, run):
    end = time.monotonic() + TIMEOUT
    while not (folder / "checkpoint.json").exists():
        assert run.poll() is None, run.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)


def assert_history_is_that_of(folder, whole, summary):
    assert len(rows(folder)) == len(rows(whole)) == RUN.epochs
    for row, expected in zip(rows(folder), rows(whole), strict=True):
        assert {name: float(value) for name, value in row.items()} == pytest.approx(
            {name: float(value) for name, value in expected.items()}, rel=1e-3
        )
    found = json.loads((folder / "summary.json").read_text())
    assert found["test"] == pytest.approx(summary["test"], rel=1e-3)
    assert found["layers"] == summary["layers"]
    return found


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ([f"--devices={DEVICES}"], ["--strategy=none"]),
        pytest.param([f"--devices={FOUR}"], ["--strategy=mirrored", f"--devices={DEVICES}"], marks=pytest.mark.rare),
        pytest.param(["--strategy=none"], [f"--devices={DEVICES}"], marks=pytest.mark.rare),
    ],
    ids=str,
)
def test_killed_and_resumed_on_other_devices(on_one_device, tmp_path, first, then):
    folder = tmp_path / "run"
    run = start(folder, *first)
    wait_for_a_checkpoint(folder, run)
    run.kill()
    run.communicate()
    assert len(rows(folder)) < RUN.epochs
    run = start(folder, "--resume", *then)
    output, _ = run.communicate(timeout=TIMEOUT)
    assert run.returncode == 0, output
    assert "Going on after epoch" in output
    assert then == ["--strategy=none"] or f"{DEVICES.count(':')} replicas on" in output
    assert_history_is_that_of(folder, *on_one_device)


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [held.getsockname()[1] for held in sockets]
    for held in sockets:
        held.close()
    return ports


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
def test_a_killed_worker_ends_the_others_and_all_resume(on_one_device, tmp_path, killed):
    folders = tmp_path / "run", tmp_path / "elsewhere"
    workers = start_workers(folders)
    wait_for_a_checkpoint(folders[0], workers[0])
    workers[killed].send_signal(signal.SIGKILL)
    output, _ = workers[1 - killed].communicate(timeout=TIMEOUT)
    workers[killed].communicate()
    assert workers[1 - killed].returncode == 1
    assert "Another worker is lost" in output
    assert "--resume" in output
    assert len(rows(folders[0])) < RUN.epochs
    workers = start_workers(folders, "--resume")
    outputs = [worker.communicate(timeout=TIMEOUT)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], outputs
    assert "Going on after epoch" in outputs[1]
    assert "global batch 64, 32 a replica; learning rate 0.5" in outputs[0]
    summary = assert_history_is_that_of(folders[0], *on_one_device)
    assert (summary["devices"]["strategy"], summary["devices"]["replicas"]) == ("multiworker", 2)
    assert not folders[1].exists()


@pytest.mark.rare
def test_three_workers(on_one_device, tmp_path):
    workers = start_workers([tmp_path / "run"] * 3)
    outputs = [worker.communicate(timeout=TIMEOUT)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0, 0], outputs
    assert_history_is_that_of(tmp_path / "run", *on_one_device)


@pytest.mark.slow
def test_workers_evaluate_drawn_masks(tmp_path):
    changes = {"method": "supermask", "learning_rate": 10.0, "l2": 0.0, "epochs": 1}
    expected = training.train(dataclasses.replace(RUN, **changes), tmp_path / "alone")
    flags = [f"--{name}={value}" for name, value in changes.items()]
    workers = start_workers([tmp_path / "run", tmp_path / "elsewhere"], *flags)
    outputs = [worker.communicate(timeout=TIMEOUT)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], outputs
    found = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert found["test_draws"] == pytest.approx(expected["test_draws"], rel=1e-3)


@pytest.mark.slow
def test_a_finished_run_is_finished_for_all_workers(on_one_device, tmp_path):
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


@pytest.mark.slow
def test_workers_with_other_data_are_refused_before_anything_is_removed(on_one_device, tmp_path):
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


def in_threads(*functions):
    """What each function did, called at the same time: what it returned or raised."""
    outcomes = [None] * len(functions)

    def run(place, function):
        try:
            outcomes[place] = function()
        except Exception as error:
            outcomes[place] = error

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(functions)]
    for thread in reversed(threads):
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def addresses_of(count):
    return [f"127.0.0.1:{port}" for port in free_ports(count)]


def meeting(addresses, arguments):
    receive = functools.partial(rendezvous.receive, addresses, arguments[0], 20.0)
    calls = [
        functools.partial(rendezvous.call, addresses, worker, arguments[worker], 20.0)
        for worker in range(1, len(arguments))
    ]
    return in_threads(receive, *calls)


def test_workers_meet():
    assert meeting(addresses_of(3), [{"k": 0.5, "names": ("a", "b")}] * 3) == [None] * 3
    assert meeting(addresses_of(1), [{"k": 0.5}]) == [None]


def test_workers_with_other_arguments_are_refused_everywhere():
    for outcome in meeting(addresses_of(3), [{"k": 0.5}, {"k": 0.5}, {"k": 0.3, "more": 1}]):
        assert isinstance(outcome, ValueError)
        assert "Differing: k=0.3 in worker 2, 0.5 in worker 0; more=1 in worker 2, None in worker 0." in str(outcome)


def test_nobody_waits_for_ever():
    addresses = addresses_of(3)
    first, second = in_threads(
        lambda: rendezvous.receive(addresses, {"k": 0.5}, 1.0),
        lambda: rendezvous.call(addresses, 1, {"k": 0.3}, 20.0),
    )
    assert isinstance(first, TimeoutError)
    assert "did not call: 127.0.0.1:" in str(first)
    assert "Differing: k=0.3 in worker 1" in str(first)
    assert isinstance(second, ValueError)
    assert str(second) == str(first)
    alone = in_threads(lambda: rendezvous.call(addresses_of(2), 1, {}, 0.7))[0]
    assert isinstance(alone, TimeoutError)
    assert "did not answer" in str(alone)


def test_what_cannot_be_interrupted_has_a_time_limit():
    script = (
        "import os, signal, time\n"
        "from keras_popup.distribution.placement import _time_limit\n"
        "with _time_limit(60, 'never'): pass\n"
        "signal.signal(signal.SIGINT, lambda *_: None)  # as where Python's lock is held\n"
        "with _time_limit(1, 'too long'):\n"
        "    time.sleep(0.5)\n"
        "    os.killpg(0, signal.SIGINT)\n"
        "    time.sleep(60)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=50, start_new_session=True
    )
    assert done.returncode == -signal.SIGKILL
    assert done.stderr.splitlines()[-1] == "too long"


def test_a_worker_that_has_left_may_call_again_with_other_arguments():
    addresses = addresses_of(3)
    receiver = functools.partial(rendezvous.receive, addresses, {"k": 0.5}, 20.0)

    def others():
        assert isinstance(in_threads(lambda: rendezvous.call(addresses, 1, {"k": 0.3}, 1.0))[0], TimeoutError)
        calls = [functools.partial(rendezvous.call, addresses, worker, {"k": 0.5}, 20.0) for worker in (1, 2)]
        assert in_threads(*calls) == [None, None]

    assert in_threads(receiver, others) == [None, None]


@pytest.mark.parametrize("answer", [{"refusal": "no", "finished": None}, {"refusal": "", "finished": {"test": 1}}])
def test_worker_0_has_nothing_to_do(answer):
    addresses = addresses_of(2)
    outcomes = in_threads(
        lambda: rendezvous.dismiss(addresses, answer), lambda: rendezvous.call(addresses, 1, {}, 20.0)
    )
    assert outcomes[0] is None
    assert outcomes[1] == answer["finished"] or str(outcomes[1]) == answer["refusal"]


def test_a_port_that_is_taken(monkeypatch):
    monkeypatch.setattr(rendezvous, "_BETWEEN_TRIES", 0.05)
    addresses = addresses_of(2)
    for worker, part in enumerate((rendezvous.receive, rendezvous.call)):
        arguments = (addresses, {}, 0.3) if worker == 0 else (addresses, worker, {}, 0.3)
        port = int(addresses[worker].rpartition(":")[2])
        with socket.create_server(("", port)), pytest.raises(OSError, match=f"Cannot listen on port {port}"):
            part(*arguments)


def test_strangers_do_not_disturb_the_meeting():
    addresses = addresses_of(2)
    port = int(addresses[0].rpartition(":")[2])

    def strangers_and_worker():
        for said in (b"GET / HTTP/1.1\r\n\r\n", b"[]\n", b'{"worker": 7, "arguments": {}}\n', b"\xff\n", b""):
            while True:
                try:
                    stranger = socket.create_connection(("127.0.0.1", port), timeout=5)
                    break
                except ConnectionRefusedError:
                    time.sleep(0.01)
            with stranger:
                stranger.sendall(said)
        return rendezvous.call(addresses, 1, {}, 20.0)

    assert in_threads(lambda: rendezvous.receive(addresses, {}, 20.0), strangers_and_worker) == [None, None]


@pytest.mark.parametrize(
    "text",
    [
        None,
        "{",
        "[]",
        "{}",
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
        '{"cluster": {"worker": ["a:1", "a:1"]}, "task": {"type": "worker", "index": 1}}',
        '{"cluster": {"worker": ["a"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a:1"], "ps": ["b:1"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": "a:1"}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["a:99999"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"worker": ["http://a:1"]}, "task": {"type": "worker", "index": 0}}',
        '{"cluster": {"chief": ["a:1", "b:1"], "worker": ["c:1"]}, "task": {"type": "worker", "index": 0}}',
    ],
)
def test_a_wrong_cluster_is_refused_before_anything(tmp_path, monkeypatch, text):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if text is not None:
        monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ValueError, match=r'TF_CONFIG.*Expected on each machine.*"cluster": {"worker"'):
        training.train(dataclasses.replace(RUN, strategy="multiworker"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_chief_is_worker_0(monkeypatch):
    cluster = {"chief": ["a:1"], "worker": ["b:1", "[::1]:2"]}
    for kind, index, place in (("chief", 0, 0), ("worker", 0, 1), ("worker", 1, 2)):
        monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}}))
        assert rendezvous.cluster_from_environment() == (["a:1", "b:1", "[::1]:2"], place)


@pytest.mark.parametrize(
    ("strategy", "devices", "message"),
    [
        ("mirrored", None, "needs GPUs, but TensorFlow finds none.*--devices CPU:0,CPU:1"),
        ("mirrored", "GPU:7", r"no device GPU:7. Devices found: CPU:0"),
    ],
)
def test_devices_that_cannot_be_had(tmp_path, strategy, devices, message):
    if devices is None and tf.config.list_physical_devices("GPU"):
        pytest.skip("there are GPUs")
    with pytest.raises(ValueError, match=message):
        training.train(dataclasses.replace(RUN, strategy=strategy, devices=devices), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_cpu_is_divided_before_tensorflow_starts_only():
    tf.config.list_logical_devices()
    with pytest.raises(ValueError, match="use a new process"):
        distribution.place("mirrored", "CPU:0,CPU:63")


def test_a_cluster_that_is_not_used_is_told(monkeypatch, caplog):
    monkeypatch.setenv("TF_CONFIG", "{}")
    assert distribution.place("auto", None).replicas == 1
    assert "TF_CONFIG is set, but this process trains alone" in caplog.text


def test_two_gpus_are_the_default(monkeypatch):
    gpus = [tf.config.PhysicalDevice(f"/physical_device:GPU:{i}", "GPU") for i in range(2)]
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: gpus if kind == "GPU" else [])
    # What is found first is that they are not there.
    with pytest.raises(ValueError, match="no device GPU:0, GPU:1"):
        distribution.place("auto", None)
    assert distribution.place("auto", None, whole_step_by_xla=True).name == "none"
    assert distribution.place("none", None).devices == ("GPU:0",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strategy": "parameter_server"}, "`strategy` must be one of auto, none, mirrored, multiworker"),
        ({"strategy": "multiworker", "devices": "GPU:0"}, "`devices` must be left out for the strategy 'multiworker'"),
        ({"strategy": "none", "devices": "GPU:0"}, "`devices` must be left out for the strategy 'none'"),
        ({"devices": "CPU:0,CPU:0"}, "`devices` must be different devices"),
        ({"devices": "GPU:0,GPU1"}, "`devices` must be names such as GPU:0,GPU:1, which 'GPU1' is not"),
        ({"devices": ""}, "which '' is not"),
        ({"devices": "GPU:0", "jit_compile": "true", "deterministic": False}, "on several devices"),
    ],
)
def test_arguments_that_do_not_go_together(change, message):
    with pytest.raises(ValueError, match=message):
        RunConfig(**change)


def test_a_batch_smaller_than_the_devices(tmp_path):
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


def test_a_strategy_of_devices_that_are_not_there_is_refused():
    with (
        tf.distribute.MirroredStrategy(["CPU:0", "CPU:63"]).scope(),
        pytest.raises(ValueError, match="do not exist: CPU:63"),
    ):
        keras_popup.layers.MaskedDense(3, seed=1).build((None, 4))


def test_parameter_servers_are_refused(monkeypatch):
    monkeypatch.setattr(tf.distribute, "get_strategy", lambda: object.__new__(tf.distribute.ParameterServerStrategy))
    with pytest.raises(ValueError, match="cannot train with parameter servers"):
        strategy_checks.check_strategy()
