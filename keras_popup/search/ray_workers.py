"""Ray as the workers of a search: several trials at once, on this machine or on a cluster."""

import logging
import math
import os
import signal
import socket
from collections.abc import Sequence
from typing import Any

from keras_popup.records import TrialResult
from keras_popup.search.tasks import TrialTask
from keras_popup.search.workers import TRIALS_PER_PROCESS, Outcome

_LONGEST_ANSWER = 120.0  # seconds, for a result from another machine
_LONGEST_KNOCK = 10.0  # seconds, for an address to answer

_WORDS_OF_TOKENS = ("AuthToken", "authentication token")  # of the messages of Ray 2.60
_NEEDS_TOKEN = (
    "The Ray at the address {} asks for a token, and this process has none, or another. Set RAY_AUTH_MODE=token, and "
    "put the token of the head, which `ray get-auth-token` prints there, into ~/.ray/auth_token on every machine, or "
    "into RAY_AUTH_TOKEN."
)


class RayWorkers:
    """Tasks of Ray, on this machine or a cluster. Needs the extra `cluster`.

    Args:
        size: int, how many trials run at once; None for as many as the cluster has room for.
        address: the address of a cluster. None starts Ray on this machine.
        gpus: the GPUs of each trial. None gives each an equal part of this machine's, 1 at most. On a cluster with
            GPUs it must be given; 0 uses none.

    Raises:
        ImportError: if Ray is missing.
        ConnectionError: if there is no cluster at the address, or if it refuses this process's token.
        ValueError: if no machine has enough GPUs for a trial, or if `gpus` must be given.
    """

    queues = True

    def __init__(self, size: int | None, address: str | None, gpus: float | None) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        options: dict[str, Any] = {"address": "local", "include_dashboard": False, "num_cpus": size}
        if address is None:
            # Without this, Ray replaces 127.0.0.1 by the machine's own address and is not on loopback only.
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
        except Exception as error:  # of many types
            if any(word in text for text in _list_texts(error) for word in _WORDS_OF_TOKENS):
                raise ConnectionError(_NEEDS_TOKEN.format(address or "local")) from None
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
        if not gpus:  # otherwise, Ray leaves all of them visible
            variables["CUDA_VISIBLE_DEVICES"] = ""
        self._run = ray.remote(
            num_gpus=gpus,
            max_retries=0,  # the search counts and records retries itself
            max_calls=TRIALS_PER_PROCESS,
            runtime_env={"env_vars": variables},
        )(_run_on_ray)
        self._running: dict[Any, int] = {}

    def start(self, number: int, task: TrialTask) -> None:
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
                text = str(error).strip().splitlines()[:1]
                outcomes.append(Outcome(number, None, f"was lost: {': '.join([type(error).__name__, *text])}"))
        return outcomes

    def kill(self, number: int) -> None:
        for reference, each in self._running.items():
            if each == number:
                self._ray.cancel(reference, force=True)

    def close(self) -> None:
        self._ray.shutdown()


def _list_texts(error: BaseException | None) -> list[str]:
    """Returns the messages of an error and of its causes."""
    texts = []
    while error is not None:
        texts.append(str(error))
        error = error.__cause__ or error.__context__
    return texts


def places_for(machines: Sequence[float], gpus: float) -> int:
    """Returns how many trials fit on the machines. A trial has `gpus` GPUs, and never parts of two GPUs."""
    if gpus < 1:
        return int(sum(machines)) * int(1 / gpus + 1e-9)
    return sum(int(machine / gpus) for machine in machines)


def gpus_of_a_trial(machines: Sequence[float], asked: float | None, size: int | None) -> float:
    """Returns how many GPUs each trial has.

    Args:
        machines: the number of GPUs of each machine.
        asked: the number that the user asks for; None if the user does not say.
        size: how many trials share this one machine; None for a cluster.

    Raises:
        ValueError: if no machine has enough GPUs, or if the user must say how many.
    """
    total = sum(machines)
    if asked is None and total and size is None:
        raise ValueError(
            f"`gpus_per_worker` must be given: Ray has {total:g} GPUs. It is the GPUs of each trial; 0 uses none."
        )
    if asked is None:
        return 1 / math.ceil(size / total) if total and size else 0.0
    if asked and not places_for(machines, asked):
        raise ValueError(
            f"No Ray node has the {asked:g} GPUs per trial that `gpus_per_worker` asks for. "
            f"GPUs of the nodes: {', '.join(f'{n:g}' for n in machines)}."
        )
    return asked


def _check_address(address: str) -> None:
    """Raises ConnectionError if nothing answers at the address. Ray itself would try for minutes."""
    place = os.environ.get("RAY_ADDRESS", "") if address == "auto" else address
    host, _, port = place.removeprefix("ray://").rpartition(":")
    if not host:
        return  # Ray looks for a cluster on this machine
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_LONGEST_KNOCK).close()
    except (OSError, ValueError) as error:
        raise ConnectionError(
            f"There is no Ray at {place}: {error}. Start it with `ray start --head` and name the address it prints, "
            "or leave --ray_address out for workers on this machine."
        ) from None


def _run_on_ray(task: TrialTask) -> TrialResult:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    from keras_popup.search import trial

    return trial.run(task)
