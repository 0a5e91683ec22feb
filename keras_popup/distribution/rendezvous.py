"""Workers find each other before TensorFlow does, whose own waiting has no end and cannot be interrupted.

Worker 0 listens on its port, the others call it and say their arguments. It answers them all once everyone is there:
to go on, what is wrong, or that the run is finished. The ports are then free for TensorFlow's own servers.
"""

import contextlib
import json
import logging
import os
import re
import socket
import time
from collections.abc import Iterator, Sequence
from typing import Any

_logger = logging.getLogger("keras_popup")

_LONGEST = 1 << 20  # bytes of what a worker says
_BETWEEN_TRIES = 0.5
_TO_SAY_IT = 10.0
_FAREWELL = 10.0

_Caller = tuple[socket.socket, dict[str, Any]]  # the connection, and the worker's arguments


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
        chiefs, workers = jobs.get("chief", []), jobs.get("worker", [])
        addresses, place = [*chiefs, *workers], int(task["index"])
        own = jobs[task["type"]]
        wrong = [address for address in addresses if not _is_address(address)]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"TF_CONFIG cannot be read: {error!r}. Received: {text}. {expected}") from None
    reasons = {
        f"it has other jobs than chief and worker: {', '.join(jobs)}": not set(jobs) <= {"chief", "worker"},
        "it has several chiefs": len(chiefs) > 1,
        f"not host:port: {', '.join(map(str, wrong))}": bool(wrong),
        "an address is there twice": len(set(addresses)) < len(addresses),
        f"there is no {task['type']} {place}": place not in range(len(own)),
    }
    for reason, holds in reasons.items():
        if holds:
            raise ValueError(f"TF_CONFIG cannot be used: {reason}. Received: {text}. {expected}")
    return addresses, place + (len(chiefs) if task["type"] == "worker" else 0)


def _is_address(address: Any) -> bool:
    return bool(re.fullmatch(r"[^/\s]+:\d{1,5}", address)) and 0 < _split(address)[1] < 1 << 16


def receive(addresses: Sequence[str], arguments: dict[str, Any], limit: float) -> None:
    """Worker 0's part: waits until all workers have called with the same arguments.

    Args:
        addresses: "host:port" of each worker.
        arguments: what must be the same in all, of JSON.
        limit: float, seconds to wait.

    Raises:
        ValueError: if arguments differ, in every worker.
        TimeoutError: if some worker does not call.
        OSError: if it cannot have its port.
    """
    arguments = json.loads(json.dumps(arguments))
    with _calls(addresses, time.monotonic() + limit) as (callers, calls):
        while missing := [address for i, address in enumerate(addresses) if i > 0 and i not in callers]:
            _logger.info("Waiting for %d of %d workers: %s.", len(missing), len(addresses), ", ".join(missing))
            if next(calls, None) is None:
                refusal = (
                    f"These workers did not call: {', '.join(missing)}. Start them with the same command, and see "
                    f"whether they can reach {addresses[0]}.{_differing(arguments, callers)}"
                )
                _answer(callers, {"refusal": refusal})
                raise TimeoutError(refusal)
        refusal = _differing(arguments, callers).strip()
        _answer(callers, {"refusal": refusal})
    if refusal:
        raise ValueError(refusal)


def dismiss(addresses: Sequence[str], answer: dict[str, Any]) -> None:
    """Worker 0's part where there is nothing to do: says so to those who call within some seconds."""
    with contextlib.suppress(OSError), _calls(addresses, time.monotonic() + _FAREWELL) as (callers, calls):
        while len(callers) < len(addresses) - 1 and next(calls, None):
            pass
        _answer(callers, answer)


def call(addresses: Sequence[str], worker: int, arguments: dict[str, Any], limit: float) -> dict[str, Any] | None:
    """Another worker's part: calls worker 0 until it answers.

    Args:
        addresses: "host:port" of each worker.
        worker: int, which of them is this process.
        arguments: what must be the same in all, of JSON.
        limit: float, seconds to wait.

    Returns:
        What worker 0 says of a run that is finished, None to begin.

    Raises:
        ValueError: if worker 0 refuses.
        TimeoutError: if it does not answer.
        OSError: if this worker cannot have its own port.
    """
    end = time.monotonic() + limit
    with _listener(addresses[worker], end):  # to know now, and not in TensorFlow's servers
        _logger.info("Waiting for worker 0 at %s.", addresses[0])
        while time.monotonic() < end:
            with contextlib.suppress(OSError):  # not there yet, or gone again, or what is left of an earlier run
                with socket.create_connection(_split(addresses[0]), timeout=_left(end)) as connection:
                    connection.sendall(_line({"worker": worker, "arguments": arguments}))
                    answer = _read(connection, end)
                if answer.get("refusal"):
                    raise ValueError(answer["refusal"])
                if "refusal" in answer:
                    return answer.get("finished")
            time.sleep(_BETWEEN_TRIES)
    raise TimeoutError(
        f"Worker 0 at {addresses[0]} did not answer. See what it says: it may wait for yet another worker, or have "
        "refused or finished the run."
    )


@contextlib.contextmanager
def _calls(addresses: Sequence[str], end: float) -> Iterator[tuple[dict[int, _Caller], Iterator[int]]]:
    """Gives who is calling, by worker, and an iterator over the workers that call until the end."""
    callers: dict[int, _Caller] = {}
    with contextlib.ExitStack() as open_until_answered:
        listener = open_until_answered.enter_context(_listener(addresses[0], end))

        def calls() -> Iterator[int]:
            while time.monotonic() < end:
                listener.settimeout(_left(end))
                try:
                    connection = open_until_answered.enter_context(listener.accept()[0])
                    said = _read(connection, min(end, time.monotonic() + _TO_SAY_IT))
                except OSError:
                    continue
                worker, arguments = said.get("worker"), said.get("arguments")
                if isinstance(worker, int) and 0 < worker < len(addresses) and isinstance(arguments, dict):
                    callers[worker] = connection, arguments
                    for gone in [caller for caller, (held, _) in callers.items() if _has_left(held)]:
                        del callers[gone]
                    yield worker

        yield callers, calls()


def _has_left(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def _answer(callers: dict[int, _Caller], answer: dict[str, Any]) -> None:
    for connection, _ in callers.values():
        with contextlib.suppress(OSError):  # it will be missed soon enough
            connection.settimeout(_TO_SAY_IT)
            connection.sendall(_line(answer))


def _listener(address: str, end: float) -> socket.socket:
    _, port = _split(address)
    told = False
    while True:
        try:
            if socket.has_dualstack_ipv6():
                return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
            return socket.create_server(("", port))
        except OSError as error:
            # A worker of a run that broke off may hold the port until it has noticed.
            if time.monotonic() > end:
                raise OSError(
                    f"Cannot listen on port {port} of {address}, of TF_CONFIG: {error}. Is this worker started "
                    "twice, or an earlier run still alive?"
                ) from None
        if not told:
            _logger.info("Waiting for port %d: an earlier run is still alive, or this worker started twice.", port)
            told = True
        time.sleep(_BETWEEN_TRIES)


def _line(content: dict[str, Any]) -> bytes:
    return json.dumps(content).encode() + b"\n"


def _read(connection: socket.socket, end: float) -> dict[str, Any]:
    """Returns one line of JSON, {} for anything else."""
    line = b""
    while not line.endswith(b"\n") and len(line) < _LONGEST:
        connection.settimeout(_left(end))
        part = connection.recv(1 << 16)
        if not part:
            break
        line += part
    try:
        said = json.loads(line)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _differing(own: dict[str, Any], callers: dict[int, _Caller]) -> str:
    """Returns a sentence on the arguments of other workers that are not those of worker 0, "" if there are none."""
    found = [
        f"{name}={other.get(name)!r} in worker {worker}, {own.get(name)!r} in worker 0"
        for worker, (_, other) in sorted(callers.items(), key=lambda item: item[0])
        for name in {**own, **other}
        if own.get(name) != other.get(name)
    ]
    return f" All workers need the same arguments and versions. Differing: {'; '.join(found)}." if found else ""


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _left(end: float) -> float:
    return max(0.001, end - time.monotonic())
