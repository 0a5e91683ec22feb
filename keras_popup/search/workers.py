"""Where the trials of a search run: in a child process, or on Ray. Neither waits without an end."""

import contextlib
import json
import logging
import math
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

TRIALS_PER_PROCESS = 10
"""A process gives its memory back after as many trials."""

_LONGEST_ANSWER = 120.0  # seconds, for a result from another machine
_LONGEST_KNOCK = 10.0
_LONGEST_END = 10.0


class Outcome(NamedTuple):
    """What has become of a trial: its result, or how its process was lost."""

    number: int
    result: dict[str, Any] | None
    lost: str | None = None


class Workers(Protocol):
    """Processes that run trials.

    Attributes:
        size: int, how many trials run at once.
        queues: bool, whether a trial may wait, for a machine, before it begins.
    """

    size: int
    queues: bool

    def start(self, number: int, task: dict[str, Any]) -> None:
        """Has a trial run, on one of the processes that have none."""

    def wait(self, seconds: float) -> list[Outcome]:
        """Returns the trials that have ended, after `seconds` at most."""

    def kill(self, number: int) -> None:
        """Ends the process of a trial. `wait` will tell that it is lost."""

    def close(self) -> None:
        """Ends all processes."""


class ChildProcess:
    """One child process, which is renewed now and then. Needs nothing but the standard library."""

    size = 1
    queues = False

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._answers: queue.Queue[str | None] = queue.Queue()
        self._trials = 0
        self._number = -1

    def ask(self, task: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Returns the answer to a task.

        Raises:
            TimeoutError: if there is none in time.
            RuntimeError: if the process has died.
        """
        self.start(-1, task)
        outcomes = self.wait(seconds)
        if not outcomes:
            raise TimeoutError(f"A child process did not answer within {seconds:g} s.")
        if outcomes[0].result is None:
            raise RuntimeError(f"A child process {outcomes[0].lost}.")
        return outcomes[0].result

    def start(self, number: int, task: dict[str, Any]) -> None:
        if self._process is None or self._trials >= TRIALS_PER_PROCESS:
            self.close()
            self._begin()
        process = self._process
        assert process is not None
        assert process.stdin is not None
        self._number = number
        self._trials += 1
        with contextlib.suppress(BrokenPipeError):  # `wait` tells
            process.stdin.write(json.dumps(task) + "\n")
            process.stdin.flush()

    def _begin(self) -> None:
        environment = {"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ, "KERAS_BACKEND": "tensorflow"}
        # What a library logs while it is imported is nobody's business: a trial has a log of its own.
        # Not `multiprocessing`: it would import the user's main module again.
        self._process = process = subprocess.Popen(
            [sys.executable, "-m", "keras_popup.search.trial"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        self._trials = 0
        answers: queue.Queue[str | None] = queue.Queue()
        self._answers = answers

        def read() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                answers.put(line)
            answers.put(None)

        threading.Thread(target=read, daemon=True).start()

    def wait(self, seconds: float) -> list[Outcome]:
        try:
            answer = self._answers.get(timeout=seconds)
        except queue.Empty:
            return []
        if answer is not None and answer.endswith("\n"):
            result = json.loads(answer)
            if result.get("error"):
                self._trials = TRIALS_PER_PROCESS  # out of memory, say: the next trial begins in a new process
            return [Outcome(self._number, result)]
        return [Outcome(self._number, None, f"died: {self._end()}")]

    def _end(self) -> str:
        """Returns how the process has ended."""
        process, self._process = self._process, None
        assert process is not None
        try:
            status = process.wait(_LONGEST_END)
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait()
        for stream in (process.stdin, process.stdout):
            if stream:
                with contextlib.suppress(OSError):
                    stream.close()
        if status == -signal.SIGKILL:
            return "SIGKILL, which the system sends when memory runs out"
        return signal.Signals(-status).name if status < 0 else f"exit status {status}"

    def kill(self, number: int) -> None:
        if self._process:
            self._process.kill()

    def close(self) -> None:
        if self._process:
            self._process.kill()
            self._end()


class RayWorkers:
    """Tasks of Ray, on this machine or a cluster. Needs the extra `cluster`.

    Args:
        size: int, how many trials run at once; None for as many as the cluster has room for.
        address: of a cluster, None for one of this machine's own.
        gpus: of each trial; None for an equal part of this machine's, 1 at most. 0 for none, which must be said of a
            cluster that has some.

    Raises:
        ImportError: if Ray is missing.
        ConnectionError: if there is no cluster at the address.
        ValueError: if no machine has enough GPUs for a trial, or if it is not said how many of a cluster's.
    """

    queues = True

    def __init__(self, size: int | None, address: str | None, gpus: float | None) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        options: dict[str, Any] = {"address": "local", "include_dashboard": False, "num_cpus": size}
        if address is None:
            # The one thing that keeps Ray on loopback: it turns the address 127.0.0.1 into the machine's own.
            os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        else:
            options = {"address": address}
            _check_address(address)
        try:
            import ray
        except ImportError:
            raise ImportError(
                "Several workers need Ray. Install the extra: pip install 'keras-popup[cluster]'."
            ) from None
        self._ray = ray
        try:
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
        except Exception as error:  # of many kinds
            raise ConnectionError(f"Ray cannot be used at the address {address or 'local'}: {error}") from None
        machines = [node["Resources"].get("GPU", 0.0) for node in ray.nodes() if node["Alive"]]
        try:
            gpus = gpus_of_a_trial(machines, gpus, size if address is None else None)
        except ValueError:
            self.close()
            raise
        places = places_for(machines, gpus) if gpus else ray.cluster_resources().get("CPU", 1.0)
        self.size = size or max(1, int(places))
        variables = {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow", "TF_FORCE_GPU_ALLOW_GROWTH": "true"}
        if address is None:
            # Workers share the cores rather than each having threads for all of them.
            variables["TF_NUM_INTRAOP_THREADS"] = str(max(1, (os.cpu_count() or 1) // self.size))
        if not gpus:  # Ray would leave all of them to be seen
            variables["CUDA_VISIBLE_DEVICES"] = ""
        self._run = ray.remote(
            num_gpus=gpus,
            max_retries=0,  # a search counts them itself, and records them
            max_calls=TRIALS_PER_PROCESS,
            runtime_env={"env_vars": variables},
        )(_run_on_ray)
        self._running: dict[Any, int] = {}

    def start(self, number: int, task: dict[str, Any]) -> None:
        self._running[self._run.remote(task)] = number

    def wait(self, seconds: float) -> list[Outcome]:
        if not self._running:
            return []
        ended, _ = self._ray.wait(list(self._running), num_returns=len(self._running), timeout=0)
        if not ended:
            ended, _ = self._ray.wait(list(self._running), num_returns=1, timeout=seconds)
        outcomes = []
        for reference in ended:
            number = self._running.pop(reference)
            try:
                outcomes.append(Outcome(number, self._ray.get(reference, timeout=_LONGEST_ANSWER)))
            except self._ray.exceptions.RayError as error:
                said = str(error).strip().splitlines()[:1]
                outcomes.append(Outcome(number, None, f"was lost: {': '.join([type(error).__name__, *said])}"))
        return outcomes

    def kill(self, number: int) -> None:
        for reference, each in self._running.items():
            if each == number:
                self._ray.cancel(reference, force=True)

    def close(self) -> None:
        self._ray.shutdown()


def places_for(machines: Sequence[float], gpus: float) -> int:
    """Returns how many trials of `gpus` GPUs each fit on machines with so many. Parts of two GPUs are none."""
    if gpus < 1:
        return int(sum(machines)) * int(1 / gpus + 1e-9)
    return sum(int(machine / gpus) for machine in machines)


def gpus_of_a_trial(machines: Sequence[float], asked: float | None, size: int | None) -> float:
    """Returns how many GPUs each trial has.

    Args:
        machines: the GPUs of each.
        asked: what the user says, if anything.
        size: how many trials this one machine is divided among; None for a cluster.

    Raises:
        ValueError: if no machine has so many, or if it must be said.
    """
    total = sum(machines)
    if asked is None and total and size is None:
        raise ValueError(
            f"Ray has {total:g} GPUs. Say how many each trial has: `gpus_per_worker`, 0 for none, which leaves "
            "them to others."
        )
    if asked is None:
        return 1 / math.ceil(size / total) if total and size else 0.0
    if asked and not places_for(machines, asked):
        raise ValueError(
            f"A trial is to have {asked:g} GPUs, on one machine. Ray's have {', '.join(f'{n:g}' for n in machines)}."
        )
    return asked


def _check_address(address: str) -> None:
    """Raises ConnectionError if nobody listens there: Ray itself would try for minutes."""
    place = os.environ.get("RAY_ADDRESS", "") if address == "auto" else address
    host, _, port = place.removeprefix("ray://").rpartition(":")
    if not host:
        return  # a cluster of this machine, which Ray knows of or not
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_LONGEST_KNOCK).close()
    except (OSError, ValueError) as error:
        raise ConnectionError(
            f"There is no Ray at {place}: {error}. Start it with `ray start --head` and name the address it prints, "
            "or leave --ray_address out for workers on this machine."
        ) from None


def _run_on_ray(task: dict[str, Any]) -> dict[str, Any]:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    from keras_popup.search import trial

    return trial.run(task)
