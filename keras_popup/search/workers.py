"""The processes that run the trials of a search: what they have in common, and a child process.

No wait lasts forever.
"""

import contextlib
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from typing import Any, NamedTuple, Protocol

from keras_popup.records import TrialResult
from keras_popup.search.tasks import Measurement, MeasureTask, TrialTask

TRIALS_PER_PROCESS = 10
"""After this many trials, a process ends and a new one takes its place, which frees its memory."""

_LONGEST_END = 10.0  # seconds, for a process to end


class Outcome(NamedTuple):
    """The end of a trial: its result, or how its process was lost."""

    number: int
    result: TrialResult | None
    lost: str | None = None


class Workers(Protocol):
    """Processes that run trials.

    Attributes:
        size: int, how many trials run at once.
        queues: bool, whether a trial may wait for a machine before it begins.
    """

    size: int
    queues: bool

    def start(self, number: int, task: TrialTask) -> None:
        """Starts a trial on a process that has none."""

    def wait(self, seconds: float) -> list[Outcome]:
        """Returns the trials that have ended, after `seconds` at most."""

    def kill(self, number: int) -> None:
        """Kills the process of a trial. `wait` will report the trial as lost."""

    def close(self) -> None:
        """Kills all processes."""


class _Lost(NamedTuple):
    """A process that ended without an answer."""

    reason: str


class ChildProcess:
    """One child process. It begins with its first task, or by `begin`. A new one takes its place after some trials."""

    size = 1
    queues = False

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._answers: queue.Queue[Any] = queue.Queue()
        self._trials = 0
        self._number = -1

    def ask(self, task: MeasureTask, seconds: float) -> Measurement:
        """Returns the answer to a task.

        Raises:
            TimeoutError: if there is no answer in time.
            RuntimeError: if the process has died.
            ValueError, FileNotFoundError, ImportError: the errors of the task.
        """
        self._send(task)
        answer = self._receive(seconds)
        if answer is None:
            raise TimeoutError(f"A child process did not answer within {seconds:g} s.")
        if isinstance(answer, _Lost):
            raise RuntimeError(f"A child process {answer.reason}.")
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, Measurement)
        return answer

    def start(self, number: int, task: TrialTask) -> None:
        self._number = number
        self._send(task)

    def _send(self, task: MeasureTask | TrialTask) -> None:
        if self._process is None or self._trials >= TRIALS_PER_PROCESS:
            self.close()
            self.begin()
        process = self._process
        assert process is not None
        assert process.stdin is not None
        self._trials += 1
        with contextlib.suppress(BrokenPipeError):  # `wait` reports it
            pickle.dump(task, process.stdin)
            process.stdin.flush()

    def begin(self) -> None:
        """Begins the process, which loads TensorFlow until its first task comes."""
        environment = {"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ, "KERAS_BACKEND": "tensorflow"}
        # Discard what libraries log while they are imported: each trial writes log.txt.
        # Not `multiprocessing`: it would import the user's main module again.
        self._process = process = subprocess.Popen(
            [sys.executable, "-m", "keras_popup.search.trial"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
        self._trials = 0
        answers: queue.Queue[Any] = queue.Queue()
        self._answers = answers

        def read() -> None:
            assert process.stdout is not None
            with contextlib.suppress(Exception):  # of any type: the process has ended, perhaps within an answer
                while True:
                    answers.put(pickle.load(process.stdout))
            answers.put(None)

        threading.Thread(target=read, daemon=True).start()

    def wait(self, seconds: float) -> list[Outcome]:
        answer = self._receive(seconds)
        if answer is None:
            return []
        if isinstance(answer, _Lost):
            return [Outcome(self._number, None, answer.reason)]
        assert isinstance(answer, TrialResult)
        if answer.error:
            self._trials = TRIALS_PER_PROCESS  # memory may have run out: the next trial begins in a new process
        return [Outcome(self._number, answer)]

    def _receive(self, seconds: float) -> Any:
        """Returns the next answer, `_Lost` if the process has ended, or None if there is no answer in time."""
        try:
            answer = self._answers.get(timeout=seconds)
        except queue.Empty:
            return None
        return _Lost(f"died: {self._end()}") if answer is None else answer

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
