"""Training on two hosts: network namespaces, where the machine allows them. `make test-slow` runs one of these."""

import dataclasses
import json
import os
import signal
import sys
import threading
import time

import pytest
import replicas
from small_runs import assert_history_is_that_of, history, list_flags
from two_hosts import make_hosts

from keras_popup import training

pytestmark = pytest.mark.integration

RUN = dataclasses.replace(replicas.RUN, epochs=8)
TIMEOUT = 300
PORT = 2222


@pytest.fixture(scope="module")
def on_one_host(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    return folder, training.train(RUN, folder)


@pytest.fixture
def hosts():
    with make_hosts() as made:
        yield made


def start_workers(hosts, folders, *more):
    cluster = {"worker": [f"{address}:{PORT}" for address in hosts.addresses]}
    command = [sys.executable, "-m", "keras_popup", "train", *list_flags(RUN), "--strategy=multiworker", *more]
    return [
        hosts.start(
            host,
            [*command, f"--out={folder}"],
            TF_CONFIG=json.dumps({"cluster": cluster, "task": {"type": "worker", "index": host}}),
        )
        for host, folder in enumerate(folders)
    ]


def wait_for_epochs(folder, run, epochs=1):
    end = time.monotonic() + TIMEOUT
    while not (folder / "history.csv").exists() or len(history(folder)) < epochs:
        assert run.poll() is None, run.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)


def finish(workers):
    outputs = [worker.communicate(timeout=TIMEOUT)[0] for worker in workers]
    return [worker.returncode for worker in workers], outputs


@pytest.mark.slow
def test_two_hosts_train_as_one(hosts, on_one_host, tmp_path):
    folders = tmp_path / "run", tmp_path / "elsewhere"
    statuses, outputs = finish(start_workers(hosts, folders))
    assert statuses == [0, 0], outputs
    summary = assert_history_is_that_of(folders[0], *on_one_host)
    assert (summary["devices"]["strategy"], summary["devices"]["replicas"]) == ("multiworker", 2)
    assert not folders[1].exists()  # file systems need not be shared


@pytest.mark.rare
def test_two_hosts_resume_after_worker_0_is_killed(hosts, on_one_host, tmp_path):
    folders = tmp_path / "run", tmp_path / "elsewhere"
    workers = start_workers(hosts, folders)
    wait_for_epochs(folders[0], workers[0])
    hosts.kill_all(0)
    output = workers[1].communicate(timeout=TIMEOUT)[0]
    assert workers[1].returncode == 1
    assert "Another worker is lost" in output
    assert len(history(folders[0])) < RUN.epochs
    statuses, outputs = finish(start_workers(hosts, folders, "--resume"))
    assert statuses == [0, 0], outputs
    assert_history_is_that_of(folders[0], *on_one_host)


@pytest.mark.rare
def test_two_hosts_after_the_cable_was_out(hosts, on_one_host, tmp_path):
    """They go on, or end with what to do; then they resume. Either way, nothing is lost, and nothing waits forever."""
    folders = tmp_path / "run", tmp_path / "elsewhere"
    workers = start_workers(hosts, folders)
    wait_for_epochs(folders[0], workers[0])
    cut = threading.Thread(target=hosts.cut, args=(30,))
    cut.start()
    statuses, outputs = finish(workers)
    cut.join()
    if statuses != [0, 0]:
        assert all("--resume" in output for output, status in zip(outputs, statuses, strict=True) if status), outputs
        statuses, outputs = finish(start_workers(hosts, folders, "--resume"))
        assert statuses == [0, 0], outputs
    assert_history_is_that_of(folders[0], *on_one_host)


@pytest.mark.rare
def test_two_hosts_resume_after_both_were_told_to_end(hosts, on_one_host, tmp_path):
    folders = tmp_path / "run", tmp_path / "elsewhere"
    workers = start_workers(hosts, folders)
    wait_for_epochs(folders[0], workers[0])
    for worker in workers:
        os.kill(worker.pid, signal.SIGTERM)
    statuses, outputs = finish(workers)
    assert all(statuses), outputs
    statuses, outputs = finish(start_workers(hosts, folders, "--resume"))
    assert statuses == [0, 0], outputs
    assert_history_is_that_of(folders[0], *on_one_host)
