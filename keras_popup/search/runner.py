"""Runs tasks on workers. A task continues after its process was lost, and does not hang forever."""

import contextlib
import dataclasses
import json
import logging
import time
from collections.abc import Callable, Iterator

from keras_popup.records import ALIVE, Heartbeat, TrialResult
from keras_popup.search.tasks import TrialTask
from keras_popup.search.workers import Outcome, Workers

_logger = logging.getLogger("keras_popup")

_LONGEST_WAIT = 0.5  # seconds


class Runner:
    """Runs tasks on workers. It restarts lost tasks, and kills those that hang.

    Args:
        pool: the workers.
        retries: int, how often a task continues after its process was lost.
        stall_seconds: float, after this time without a new heartbeat a task counts as hung.
    """

    def __init__(self, pool: Workers, retries: int, stall_seconds: float) -> None:
        self._pool = pool
        self._retries = retries
        self._stall_seconds = stall_seconds
        self._tasks: dict[int, TrialTask] = {}
        self._lost: dict[int, int] = {}
        self._heartbeats: dict[int, tuple[str, float]] = {}
        self._hung: set[int] = set()

    @property
    def free(self) -> bool:
        return len(self._tasks) < self._pool.size

    @property
    def busy(self) -> bool:
        return bool(self._tasks)

    @property
    def size(self) -> int:
        return self._pool.size

    def start(self, number: int, task: TrialTask) -> None:
        self._tasks[number] = task
        self._lost[number] = 0
        self._begin(number)

    def _begin(self, number: int) -> None:
        self._heartbeats[number] = ("", time.monotonic())
        self._hung.discard(number)
        (self._tasks[number].folder / ALIVE).unlink(missing_ok=True)  # of an earlier process
        self._pool.start(number, self._tasks[number])

    def ended(self, going_on: Callable[[int, Heartbeat], None] | None = None) -> Iterator[tuple[int, TrialResult]]:
        """Waits for half a second at most. Yields (number, result) of the tasks that have ended.

        Args:
            going_on: function that is called with the number and the new heartbeat of a task that runs.
        """
        for outcome in self._pool.wait(_LONGEST_WAIT):
            number = outcome.number
            result = self._restart(outcome) if outcome.result is None else outcome.result
            if result:
                del self._tasks[number]
                yield number, dataclasses.replace(result, retries=self._lost[number])
        for number in self._tasks:
            self._check_heartbeat(number, going_on)

    def _restart(self, outcome: Outcome) -> TrialResult | None:
        """Restarts a task that was lost. Returns its failure if it was lost too often."""
        number = outcome.number
        self._lost[number] += 1
        reason = f"Its process {outcome.lost}"
        if number in self._hung:
            self._hung.discard(number)
            reason = f"It made no progress for {self._stall_seconds / 60:g} minutes"
        if self._lost[number] > self._retries:
            return TrialResult(error=f"{reason}, {self._lost[number]} times.")
        _logger.warning("Trial %d goes on after its last epoch. %s.", number, reason)
        self._begin(number)
        return None

    def _check_heartbeat(self, number: int, going_on: Callable[[int, Heartbeat], None] | None) -> None:
        try:
            text = (self._tasks[number].folder / ALIVE).read_text()
        except (OSError, ValueError):
            text = ""
        before, since = self._heartbeats[number]
        if text and text != before:
            self._heartbeats[number] = (text, time.monotonic())
            if going_on:
                with contextlib.suppress(ValueError):  # a damaged one: another follows
                    going_on(number, Heartbeat.from_json(json.loads(text)))
        elif not before and self._pool.queues:
            pass  # it may not have begun
        elif time.monotonic() - since > self._stall_seconds and number not in self._hung:
            self._hung.add(number)
            self._pool.kill(number)
