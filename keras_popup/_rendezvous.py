"""Workers find each other before TensorFlow does, whose own waiting has no end and cannot be interrupted.

Worker 0 listens on its address, the others call it and say their arguments. It answers them all once everyone is
there, or with what is wrong. The ports are then free for TensorFlow's own servers.
"""

import contextlib
import json
import logging
import os
import socket
import time
from collections.abc import Iterator, Sequence
from typing import Any

_logger = logging.getLogger("keras_popup")

_LONGEST = 1 << 16
_BETWEEN_TRIES = 0.5


def cluster_from_environment() -> tuple[list[str], int]:
    """Reads TF_CONFIG, as TensorFlow does.

    Returns:
        The workers' addresses, "host:port", the chief's first, and which of them is this process.

    Raises:
        ValueError: if it is missing or does not say that.
    """
    text = os.environ.get("TF_CONFIG", "")
    expected = (
        'Expected on each machine, with its own index: {"cluster": {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]}, '
        '"task": {"type": "worker", "index": 0}}.'
    )
    if not text:
        raise ValueError(f"Several workers need the environment variable TF_CONFIG, which is not set. {expected}")
    try:
        config = json.loads(text)
        jobs, task = config["cluster"], config["task"]
        addresses = [*jobs.get("chief", []), *jobs.get("worker", [])]
        index = int(task["index"]) + (len(jobs.get("chief", [])) if task["type"] == "worker" else 0)
        well_formed = (
            set(jobs) <= {"chief", "worker"}
            and task["type"] in jobs
            and int(task["index"]) in range(len(jobs[task["type"]]))
            and len(set(addresses)) == len(addresses)
            and all(host and port.isdecimal() for host, port in map(_split, addresses))
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        well_formed = False
    if not well_formed:
        raise ValueError(f"TF_CONFIG cannot be used. Received: {text}. {expected}")
    return addresses, index


def meet(addresses: Sequence[str], index: int, arguments: dict[str, Any], limit: float) -> None:
    """Waits until all workers are there with the same arguments.

    Args:
        addresses: "host:port" of each worker.
        index: int, which of them is this process.
        arguments: what must be the same in all, of JSON.
        limit: float, seconds to wait.

    Raises:
        TimeoutError: if some worker is not there in time.
        ValueError: if arguments differ, in every worker.
        OSError: if worker 0 cannot have its port.
    """
    end = time.monotonic() + limit
    arguments = json.loads(json.dumps(arguments))
    refusal = _receive(addresses, arguments, end) if index == 0 else _call(addresses[0], index, arguments, end)
    if refusal:
        raise ValueError(refusal)


def _receive(addresses: Sequence[str], arguments: dict[str, Any], end: float) -> str:
    """Worker 0's part. Returns why it cannot go on, "" if it can."""
    refusal = ""
    with contextlib.ExitStack() as open_until_all_are_there:
        listener = open_until_all_are_there.enter_context(_listener(addresses[0], end))
        callers: dict[int, socket.socket] = {}
        while len(callers) < len(addresses) - 1:
            missing = [address for i, address in enumerate(addresses) if i > 0 and i not in callers]
            _logger.info("Waiting for %d of %d workers: %s.", len(missing), len(addresses), ", ".join(missing))
            for connection, said in _calls(listener, end):
                open_until_all_are_there.enter_context(connection)
                if said.get("index") in range(1, len(addresses)) and isinstance(said.get("arguments"), dict):
                    callers[said["index"]] = connection
                    refusal = refusal or _differing(arguments, said["arguments"], said["index"])
                    break
            else:
                raise TimeoutError(
                    f"These workers did not call: {', '.join(missing)}. Start them with the same command, and see "
                    f"whether they can reach {addresses[0]}."
                )
        for connection in callers.values():
            with contextlib.suppress(OSError):  # it will be missed soon enough
                connection.sendall(json.dumps({"refusal": refusal}).encode() + b"\n")
    return refusal


def _call(address: str, index: int, arguments: dict[str, Any], end: float) -> str:
    """Another worker's part. Returns the same."""
    _logger.info("Waiting for worker 0 at %s.", address)
    said = json.dumps({"index": index, "arguments": arguments}).encode() + b"\n"
    while time.monotonic() < end:
        try:
            with socket.create_connection(_split(address), timeout=_left(end)) as connection:
                connection.sendall(said)
                answer = _read(connection, end)
            if isinstance(answer.get("refusal"), str):
                return answer["refusal"]
        except OSError:  # not there yet, or gone again, or what is left of an earlier run
            pass
        time.sleep(_BETWEEN_TRIES)
    raise TimeoutError(
        f"Worker 0 at {address} did not answer. See what it says: it may wait for yet another worker, have refused "
        "the run, or have finished it."
    )


def _listener(address: str, end: float) -> socket.socket:
    _, port = _split(address)
    while True:
        try:
            if socket.has_dualstack_ipv6():
                return socket.create_server(("", int(port)), family=socket.AF_INET6, dualstack_ipv6=True)
            return socket.create_server(("", int(port)))
        except OSError as error:
            # A worker of a run that broke off may hold the port until it has noticed.
            if time.monotonic() > end:
                raise OSError(f"Worker 0 cannot listen on port {port} of {address}, of TF_CONFIG: {error}") from None
        time.sleep(_BETWEEN_TRIES)


def _calls(listener: socket.socket, end: float) -> Iterator[tuple[socket.socket, dict[str, Any]]]:
    """Yields who calls and what they say, until the end."""
    while time.monotonic() < end:
        listener.settimeout(_left(end))
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            return
        try:
            yield connection, _read(connection, min(end, time.monotonic() + 10.0))
        except OSError:
            connection.close()


def _read(connection: socket.socket, end: float) -> dict[str, Any]:
    """Returns one line of JSON, {} for anything else."""
    line = b""
    while not line.endswith(b"\n") and len(line) < _LONGEST:
        connection.settimeout(_left(end))
        part = connection.recv(_LONGEST)
        if not part:
            break
        line += part
    try:
        said = json.loads(line)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _differing(own: dict[str, Any], other: dict[str, Any], index: int) -> str:
    names = [name for name in {**own, **other} if own.get(name) != other.get(name)]
    if not names:
        return ""
    found = "; ".join(f"{name}={other.get(name)!r}, worker 0 has {own.get(name)!r}" for name in names)
    return f"All workers need the same arguments and versions. Differing in worker {index}: {found}."


def _split(address: str) -> tuple[str, str]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), port


def _left(end: float) -> float:
    return max(0.001, end - time.monotonic())
