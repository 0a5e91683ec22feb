"""Lets workers find each other before TensorFlow starts, because TensorFlow waits forever and cannot be interrupted.

Worker 0 listens on its port. The other workers call it and send their arguments. When all have called, it answers all
of them: that they can start, what is wrong, or that the run is finished. Then TensorFlow can use the ports.
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

_MAX_MESSAGE = 1 << 20  # bytes
_BETWEEN_TRIES = 0.5  # seconds between two tries
_MESSAGE_TIME = 10.0  # seconds to send or receive a message
_FAREWELL = 10.0  # seconds in which `dismiss` answers calls

_Caller = tuple[socket.socket, dict[str, Any]]  # the connection to a worker, and its arguments


def cluster_from_environment() -> tuple[list[str], int]:
    """Reads TF_CONFIG as TensorFlow does.

    Returns:
        (addresses, worker): "host:port" for each worker, the chief first, and the index of this process among them.

    Raises:
        ValueError: if TF_CONFIG is missing or not valid.
    """
    text = os.environ.get("TF_CONFIG", "")
    expected = (
        'Expected on each machine, with its own index: {"cluster": {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]}, '
        '"task": {"type": "worker", "index": 0}}.'
    )
    if not text:
        raise ValueError(
            f"Training with several workers needs the environment variable TF_CONFIG, which is not set. {expected}"
        )
    try:
        config = json.loads(text)
        jobs, task = config["cluster"], config["task"]
        chiefs, workers = jobs.get("chief", []), jobs.get("worker", [])
        addresses, index = [*chiefs, *workers], int(task["index"])
        same_job = jobs[task["type"]]
        wrong = [address for address in addresses if not _is_address(address)]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"TF_CONFIG cannot be read: {error!r}. Received: {text}. {expected}") from None
    reasons = {
        f"it has other jobs than chief and worker: {', '.join(jobs)}": not set(jobs) <= {"chief", "worker"},
        "it has several chiefs": len(chiefs) > 1,
        f"it has addresses that are not host:port: {', '.join(map(str, wrong))}": bool(wrong),
        "it has an address twice": len(set(addresses)) < len(addresses),
        f"it has no {task['type']} {index}": index not in range(len(same_job)),
    }
    for reason, applies in reasons.items():
        if applies:
            raise ValueError(f"TF_CONFIG cannot be used: {reason}. Received: {text}. {expected}")
    return addresses, index + (len(chiefs) if task["type"] == "worker" else 0)


def _is_address(address: Any) -> bool:
    return bool(re.fullmatch(r"[^/\s]+:\d{1,5}", address)) and 0 < _split(address)[1] < 1 << 16


def receive(addresses: Sequence[str], arguments: dict[str, Any], limit: float) -> None:
    """Worker 0's part: waits until all workers have called with the same arguments.

    Args:
        addresses: "host:port" for each worker.
        arguments: JSON-serializable dict that must be the same in all workers.
        limit: float, the number of seconds to wait.

    Raises:
        ValueError: if the arguments differ. All workers raise it then.
        TimeoutError: if a worker does not call.
        OSError: if worker 0 cannot use its port.
    """
    arguments = json.loads(json.dumps(arguments))
    with _receive_calls(addresses, time.monotonic() + limit) as (callers, calls):
        while missing := [address for i, address in enumerate(addresses) if i > 0 and i not in callers]:
            _logger.info("Waiting for %d of %d workers: %s.", len(missing), len(addresses), ", ".join(missing))
            if next(calls, None) is None:
                refusal = (
                    f"These workers did not call: {', '.join(missing)}. Start them with the same command, and check "
                    f"that they can reach {addresses[0]}.{_describe_differences(arguments, callers)}"
                )
                _answer(callers, {"refusal": refusal})
                raise TimeoutError(refusal)
        refusal = _describe_differences(arguments, callers).strip()
        _answer(callers, {"refusal": refusal})
    if refusal:
        raise ValueError(refusal)


def dismiss(addresses: Sequence[str], answer: dict[str, Any]) -> None:
    """Worker 0's part if there is nothing to do: sends `answer` to the workers that call within some seconds."""
    with contextlib.suppress(OSError), _receive_calls(addresses, time.monotonic() + _FAREWELL) as (callers, calls):
        while len(callers) < len(addresses) - 1 and next(calls, None):
            pass
        _answer(callers, answer)


def call(addresses: Sequence[str], worker: int, arguments: dict[str, Any], limit: float) -> dict[str, Any] | None:
    """Another worker's part: calls worker 0 until it answers.

    Args:
        addresses: "host:port" for each worker.
        worker: int, the index of this worker.
        arguments: JSON-serializable dict that must be the same in all workers.
        limit: float, the number of seconds to wait.

    Returns:
        None to start training, or worker 0's summary of a run that is finished.

    Raises:
        ValueError: if worker 0 refuses to train.
        TimeoutError: if worker 0 does not answer.
        OSError: if this worker cannot use its own port.
    """
    end = time.monotonic() + limit
    with _listen(addresses[worker], end):  # finds out now whether the port is free, not in TensorFlow's server
        _logger.info("Waiting for worker 0 at %s.", addresses[0])
        while time.monotonic() < end:
            with contextlib.suppress(OSError):  # worker 0 has not started, has ended, or belongs to an earlier run
                with socket.create_connection(_split(addresses[0]), timeout=_time_left(end)) as connection:
                    connection.sendall(_encode_line({"worker": worker, "arguments": arguments}))
                    answer = _read(connection, end)
                if answer.get("refusal"):
                    raise ValueError(answer["refusal"])
                if "refusal" in answer:
                    return answer.get("finished")
            time.sleep(_BETWEEN_TRIES)
    raise TimeoutError(
        f"Worker 0 at {addresses[0]} did not answer. Read its messages: it may wait for another worker, or it may have "
        "refused or finished the run."
    )


@contextlib.contextmanager
def _receive_calls(addresses: Sequence[str], end: float) -> Iterator[tuple[dict[int, _Caller], Iterator[int]]]:
    """Gives (callers, calls): a dict of callers by worker, and an iterator over the workers that call until `end`."""
    callers: dict[int, _Caller] = {}
    with contextlib.ExitStack() as open_until_answered:
        listener = open_until_answered.enter_context(_listen(addresses[0], end))

        def calls() -> Iterator[int]:
            while time.monotonic() < end:
                listener.settimeout(_time_left(end))
                try:
                    connection = open_until_answered.enter_context(listener.accept()[0])
                    message = _read(connection, min(end, time.monotonic() + _MESSAGE_TIME))
                except OSError:
                    continue
                worker, arguments = message.get("worker"), message.get("arguments")
                if isinstance(worker, int) and 0 < worker < len(addresses) and isinstance(arguments, dict):
                    callers[worker] = connection, arguments
                    for closed in [caller for caller, (other, _) in callers.items() if _is_closed(other)]:
                        del callers[closed]
                    yield worker

        yield callers, calls()


def _is_closed(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def _answer(callers: dict[int, _Caller], answer: dict[str, Any]) -> None:
    for connection, _ in callers.values():
        with contextlib.suppress(OSError):  # a lost worker is noticed later
            connection.settimeout(_MESSAGE_TIME)
            connection.sendall(_encode_line(answer))


def _listen(address: str, end: float) -> socket.socket:
    _, port = _split(address)
    is_logged = False
    while True:
        try:
            if socket.has_dualstack_ipv6():
                return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
            return socket.create_server(("", port))
        except OSError as error:
            # A worker of an interrupted run may hold the port until it notices the interruption.
            if time.monotonic() > end:
                raise OSError(
                    f"Cannot listen on port {port} of {address} in TF_CONFIG: {error}. Check that this worker was not "
                    "started twice, and that no earlier run is still alive."
                ) from None
        if not is_logged:
            _logger.info("Waiting for port %d: an earlier run is still alive, or this worker was started twice.", port)
            is_logged = True
        time.sleep(_BETWEEN_TRIES)


def _encode_line(content: dict[str, Any]) -> bytes:
    return json.dumps(content).encode() + b"\n"


def _read(connection: socket.socket, end: float) -> dict[str, Any]:
    """Reads one line with a JSON object. Returns {} for anything else."""
    line = b""
    while not line.endswith(b"\n") and len(line) < _MAX_MESSAGE:
        connection.settimeout(_time_left(end))
        part = connection.recv(1 << 16)
        if not part:
            break
        line += part
    try:
        message = json.loads(line)
    except ValueError:
        return {}
    return message if isinstance(message, dict) else {}


def _describe_differences(expected: dict[str, Any], callers: dict[int, _Caller]) -> str:
    """Returns a sentence about arguments that differ from those of worker 0, or "" if there are none."""
    differences = [
        f"{name}={other.get(name)!r} in worker {worker}, {expected.get(name)!r} in worker 0"
        for worker, (_, other) in sorted(callers.items(), key=lambda item: item[0])
        for name in {**expected, **other}
        if expected.get(name) != other.get(name)
    ]
    if not differences:
        return ""
    return f" All workers need the same arguments and versions. Differing: {'; '.join(differences)}."


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _time_left(end: float) -> float:
    return max(0.001, end - time.monotonic())
