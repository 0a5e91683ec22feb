"""Two hosts on one machine, each with an address of its own: network namespaces of Linux, joined by a virtual cable."""

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import time

import pytest

_numbers = itertools.count()


class Hosts:
    """Two hosts. Use it as a context manager: the hosts are gone at its end, with all that runs there.

    Attributes:
        addresses: the addresses of both.
    """

    def __init__(self):
        number = next(_numbers)
        self._names = [f"popup{os.getpid()}n{number}h{host}" for host in (0, 1)]
        self._cables = [f"pv{os.getpid() % 10**7}{number}{host}" for host in (0, 1)]
        net = f"10.{os.getpid() % 200 + 20}.{number + 1}"
        self.addresses = [f"{net}.1", f"{net}.2"]
        self._processes = []

    def __enter__(self):
        for name in self._names:
            _ip("netns", "add", name)
        _ip("link", "add", self._cables[0], "type", "veth", "peer", "name", self._cables[1])
        for name, cable, address in zip(self._names, self._cables, self.addresses, strict=True):
            _ip("link", "set", cable, "netns", name)
            _ip("-n", name, "addr", "add", f"{address}/24", "dev", cable)
            _ip("-n", name, "link", "set", "lo", "up")
            _ip("-n", name, "link", "set", cable, "up")
        return self

    def __exit__(self, *_):
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            for pipe in (process.stdout, process.stderr):
                if pipe:
                    pipe.close()
        for host, name in enumerate(self._names):
            self.kill_all(host)
            _ip("netns", "del", name)

    def start(self, host, command, **environment):
        """Starts a command on a host, in a group of its own. Output and errors go to one pipe."""
        process = subprocess.Popen(
            ["ip", "netns", "exec", self._names[host], *map(str, command)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **environment},
            start_new_session=True,
        )
        self._processes.append(process)
        return process

    def kill_all(self, host):
        """Kills all that runs on a host, as if it lost its power."""
        for _ in range(10):
            pids = subprocess.run(
                ["ip", "netns", "pids", self._names[host]], capture_output=True, text=True, check=True
            ).stdout.split()
            for pid in map(int, pids):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if not pids:
                return
            time.sleep(0.2)

    def cut(self, seconds):
        """Takes the cable out, and puts it in again after some seconds."""
        _ip("-n", self._names[0], "link", "set", self._cables[0], "down")
        time.sleep(seconds)
        _ip("-n", self._names[0], "link", "set", self._cables[0], "up")


def make_hosts():
    """Returns `Hosts`. Skips the test where the machine does not allow it."""
    if shutil.which("ip") is None:
        pytest.skip("two hosts need the command `ip` of iproute2")
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("two hosts need root, to make network namespaces")
    name = f"popup{os.getpid()}try"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"this machine allows no network namespaces: {made.stderr.strip()}")
    _ip("netns", "del", name)
    return Hosts()


def _ip(*arguments):
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, (arguments, done.stderr)
