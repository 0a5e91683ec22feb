"""Ray's workers, and the GPUs of a trial."""

import os
import signal
import time

import pytest
from searches import LONG, alive, by_number, gone, lines, started

from keras_popup import cli
from keras_popup.search import ray_workers


@pytest.mark.integration
@pytest.mark.slow
def test_ray_workers_find_what_one_finds_though_some_are_killed(tmp_path):
    flags = [*LONG, "--epochs", "40", "--max_trials", "3"]
    assert cli.main(["search", *flags, "--out", str(tmp_path / "one")]) == 0
    folder = tmp_path / "two"
    process = started(*flags, "--out", str(folder), "--workers", "2")
    killed = alive(folder, epochs=3)["pid"]
    os.kill(killed, signal.SIGKILL)
    time.sleep(1)
    remaining = alive(folder, epochs=5, but=(killed,))["pid"]
    for line in process.stderr:  # the other goes on meanwhile
        if "goes on after its last epoch. Its process was lost: WorkerCrashedError" in line:
            break
    process.kill()
    process.wait()
    process.stderr.close()
    assert gone(remaining)
    process = started(*flags, "--out", str(folder), "--workers", "2", "--resume")
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert by_number(lines(folder)) == by_number(lines(tmp_path / "one"))
    logs = [path.read_text() for path in folder.glob("trials/*/log.txt")]
    assert sum("Going on after epoch" in log for log in logs) >= 1


@pytest.mark.integration
@pytest.mark.rare
def test_ray_workers_work_where_ray_asks_for_tokens(tmp_path):
    token = tmp_path / ".ray" / "auth_token"
    token.parent.mkdir()
    token.write_text("0123456789abcdef" * 4)
    folder = tmp_path / "search"
    flags = [*LONG, "--epochs", "2", "--max_trials", "2", "--workers", "2"]
    environment = {"HOME": str(tmp_path), "RAY_AUTH_MODE": "token"}
    process = started(*flags, "--out", str(folder), **environment)
    _, said = process.communicate(timeout=600)
    assert process.returncode == 0, said
    assert [record["status"] for record in lines(folder)] == ["completed"] * 2


@pytest.mark.parametrize(
    ("error", "match"),
    [
        ("RPC error: InvalidAuthToken: Authentication token is missing or incorrect", "Set RAY_AUTH_MODE=token, and"),
        ("Token authentication is enabled but no authentication token was found", "Set RAY_AUTH_MODE=token, and"),
        ("no room", "cannot be used at the address local: Failed to connect"),
    ],
)
def test_ray_workers_say_what_is_amiss(error, match, monkeypatch):
    def refuse(**options):
        raise ConnectionError("Failed to connect to Ray cluster") from RuntimeError(error)

    ray = pytest.importorskip("ray")
    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(ConnectionError, match=match):
        ray_workers.RayWorkers(1, None, None)


@pytest.mark.parametrize(
    ("machines", "asked", "size", "gpus", "places"),
    [
        ([0, 0], None, None, 0, None),
        ([2], None, 2, 1, 2),
        ([2], None, 3, 0.5, 4),
        ([8], None, 2, 1, 8),
        ([3, 3], 2, None, 2, 2),
        ([2, 0], 0.4, None, 0.4, 4),
        ([2, 2], 0, None, 0, None),
    ],
)
def test_gpus_of_a_trial_on_given_machines(machines, asked, size, gpus, places):
    assert ray_workers.gpus_of_a_trial(machines, asked, size) == gpus
    if gpus:
        assert ray_workers.places_for(machines, gpus) == places


@pytest.mark.parametrize(
    ("machines", "asked", "message"),
    [
        ([2, 2, 2], 4, "No Ray node has the 4 GPUs per trial .* GPUs of the nodes: 2, 2, 2"),
        ([0], 1, "GPUs of the nodes: 0"),
        ([4], None, "`gpus_per_worker` must be given: Ray has 4 GPUs"),
    ],
)
def test_gpus_of_a_trial_refuses_what_no_machine_has(machines, asked, message):
    with pytest.raises(ValueError, match=message):
        ray_workers.gpus_of_a_trial(machines, asked, None)
