"""SIGTERM ends a command as Ctrl-C does: by an exception, so that children are ended and files are whole."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any, NoReturn


class Terminated(KeyboardInterrupt):
    """The process got SIGTERM, as from Slurm, Kubernetes or a spot machine that goes away."""


def status_of(stop: KeyboardInterrupt) -> int:
    """Returns the exit status of a command that was stopped: 128 and the number of the signal."""
    return 128 + (signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT)


def name_of(stop: KeyboardInterrupt) -> str:
    """Returns the word for what has stopped a command."""
    return "terminated" if isinstance(stop, Terminated) else "interrupted"


@contextlib.contextmanager
def terminated_by_exception() -> Iterator[None]:
    """Makes SIGTERM raise `Terminated` in the main thread."""
    if threading.current_thread() is not threading.main_thread():  # only there can it be
        yield
        return
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate(number: int, frame: Any) -> NoReturn:
    raise Terminated
