"""Searches on two hosts: network namespaces, where the machine allows them. All of it is in `make test-all`."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from searches import LONG, alive, by_number, lines
from two_hosts import make_hosts

from keras_popup import cli

pytestmark = [pytest.mark.integration, pytest.mark.rare]

ROOT = Path(__file__).parents[2]
TIMEOUT = 900  # Ray gives its workers a low priority, and each imports TensorFlow
FLAGS = (*LONG, "--epochs", "40", "--max_trials", "3")


@pytest.fixture
def hosts():
    with make_hosts() as made:
        yield made


class Cluster:
    """Ray on two hosts, that joined by address."""

    def __init__(self, hosts, folder):
        self.hosts, self._ray = hosts, str(Path(sys.executable).with_name("ray"))
        self.address = f"{hosts.addresses[0]}:6390"
        # The paths of Ray's sockets may be 107 characters long.
        self.temporary = f"/tmp/ray{hosts.addresses[0].replace('.', '')}"
        self.environment = {"HOME": str(folder), "RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"}
        token = folder / ".ray" / "auth_token"
        token.parent.mkdir()
        token.write_text("0123456789abcdef" * 4)

    def start(self):
        self._start(0, "--head", "--port=6390", "--include-dashboard=false", f"--temp-dir={self.temporary}")
        self.join()

    def join(self):
        self._start(1, f"--address={self.address}")

    def _start(self, host, *flags):
        address = f"--node-ip-address={self.hosts.addresses[host]}"
        process = self.hosts.start(
            host, [self._ray, "start", "--block", "--num-cpus=1", address, *flags], **self.environment
        )
        said = []
        for line in process.stdout:
            said.append(line)
            if "Ray runtime started" in line:
                return
        raise AssertionError("".join(said))

    def search(self, folder, *more, **environment):
        command = [sys.executable, "-m", "keras_popup", "search", *FLAGS, "--out", folder]
        return self.hosts.start(
            0, [*command, "--ray_address", self.address, *more], **{**self.environment, **environment}
        )


@pytest.fixture
def cluster(hosts, tmp_path):
    pytest.importorskip("ray")
    home = tmp_path / "home"
    home.mkdir()
    made = Cluster(hosts, home)
    yield made
    subprocess.run(["rm", "-rf", made.temporary], check=True)


def finish(process):
    output = process.communicate(timeout=TIMEOUT)[0]
    assert process.returncode == 0, output
    return output


def test_search_on_two_hosts_survives_the_loss_of_each(cluster, tmp_path):
    """Without a token it is refused. A host is lost in mid-trial and joins again; then the driver is killed."""
    cluster.start()
    (tmp_path / "other").mkdir()
    refused = cluster.search(tmp_path / "refused", HOME=str(tmp_path / "other"), RAY_AUTH_MODE="disabled")
    output = refused.communicate(timeout=TIMEOUT)[0]
    assert refused.returncode == 1
    assert "Set RAY_AUTH_MODE=token, and put the token of the head" in output
    assert not (tmp_path / "refused").exists()

    folder = tmp_path / "search"
    driver = cluster.search(folder)
    alive(folder, epochs=3, limit=TIMEOUT)
    cluster.hosts.kill_all(1)
    cluster.join()
    alive(folder, epochs=5, limit=TIMEOUT)
    driver.send_signal(signal.SIGKILL)
    driver.communicate()
    finish(cluster.search(folder, "--resume"))
    assert cli.main(["search", *FLAGS, "--out", str(tmp_path / "one")]) == 0
    assert by_number(lines(folder)) == by_number(lines(tmp_path / "one"))


def test_chief_and_workers_of_keras_tuner(hosts, tmp_path):
    address = {"KERASTUNER_ORACLE_IP": hosts.addresses[0], "KERASTUNER_ORACLE_PORT": "8123"}
    command = [sys.executable, ROOT / "examples" / "tune.py", "--trials=4", "--epochs=2", f"--directory={tmp_path}"]
    chief = hosts.start(0, command, KERASTUNER_TUNER_ID="chief", **address)
    workers = [hosts.start(host, command, KERASTUNER_TUNER_ID=f"tuner{host}", **address) for host in (0, 1)]
    for worker in workers:
        assert "has no more trials" in finish(worker)
    end = time.monotonic() + TIMEOUT
    while chief.poll() is None and time.monotonic() < end:
        time.sleep(0.2)
    assert chief.returncode == 0, chief.communicate()[0]
    trials = [json.loads(path.read_text()) for path in tmp_path.glob("**/trial.json")]
    assert len(trials) == 4
    assert all(trial["status"] == "COMPLETED" and trial["score"] > 0 for trial in trials)
