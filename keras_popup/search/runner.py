"""Runs tasks on workers: again where a process was lost, and not for ever where one is stuck."""

import json
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from keras_popup.records import ALIVE
from keras_popup.search.workers import Workers

_logger = logging.getLogger("keras_popup")

_PARTS_OF_SECOND = 0.5


class Runner:
    """Runs tasks on workers, again where a process was lost, and notices what is stuck."""

    def __init__(self, pool: Workers, retries: int, stall_seconds: float) -> None:
        self._pool = pool
        self._retries = retries
        self._stall_seconds = stall_seconds
        self._tasks: dict[int, dict[str, Any]] = {}
        self._lost: dict[int, int] = {}
        self._signs: dict[int, tuple[str, float]] = {}
        self._stuck: set[int] = set()

    @property
    def free(self) -> bool:
        return len(self._tasks) < self._pool.size

    @property
    def busy(self) -> bool:
        return bool(self._tasks)

    @property
    def size(self) -> int:
        return self._pool.size

    def start(self, number: int, task: dict[str, Any]) -> None:
        self._tasks[number] = task
        self._lost[number] = 0
        self._begin(number)

    def _begin(self, number: int) -> None:
        self._signs[number] = ("", time.monotonic())
        self._stuck.discard(number)
        (Path(self._tasks[number]["folder"]) / ALIVE).unlink(missing_ok=True)  # of one before
        self._pool.start(number, {"kind": "run", **self._tasks[number]})

    def ended(self, going_on: Callable[[int, dict[str, Any]], None] | None = None) -> Iterator[tuple[int, Any]]:
        """Yields (number, result) of tasks that have ended, after a part of a second at most."""
        for outcome in self._pool.wait(_PARTS_OF_SECOND):
            number, result = outcome.number, outcome.result
            if result is None:
                self._lost[number] += 1
                reason = f"Its process {outcome.lost}"
                if number in self._stuck:
                    self._stuck.discard(number)
                    reason = f"It made no progress for {self._stall_seconds / 60:g} minutes"
                if self._lost[number] <= self._retries:
                    _logger.warning("Trial %d goes on after its last epoch. %s.", number, reason)
                    self._begin(number)
                    continue
                error = f"{reason}, {self._lost[number]} times."
                result = {"executions": [], "error": error, "traceback": None, "peak_memory_mb": None}
            del self._tasks[number]
            yield number, {**result, "retries": self._lost[number]}
        for number in self._tasks:
            self._look_after(number, going_on)

    def _look_after(self, number: int, going_on: Callable[[int, dict[str, Any]], None] | None) -> None:
        try:
            sign = (Path(self._tasks[number]["folder"]) / ALIVE).read_text()
        except OSError:
            sign = ""
        before, since = self._signs[number]
        if sign and sign != before:
            self._signs[number] = (sign, time.monotonic())
            if going_on:
                going_on(number, json.loads(sign))
        elif not before and self._pool.queues:
            pass  # it may not have begun
        elif time.monotonic() - since > self._stall_seconds and number not in self._stuck:
            self._stuck.add(number)
            self._pool.kill(number)
