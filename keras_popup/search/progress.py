"""The progress of a search: bars on a terminal, and a line of log per trial."""

import contextlib
import logging
import time
from collections.abc import Iterator
from typing import Any

import rich.console
import rich.progress

from keras_popup.records import Heartbeat, TrialRecord, best_trial
from keras_popup.search.ranges import format_values

_logger = logging.getLogger("keras_popup")


class Display:
    """Shows how far a search is.

    Args:
        total: int, how many trials there will be; None if that is unknown.
        workers: int, how many run at once.
    """

    def __init__(self, total: int | None, workers: int) -> None:
        self.best: TrialRecord | None = None
        self._total = total
        self._workers = workers
        self._ended = 0
        self._new = 0
        self._started = time.monotonic()
        console = rich.console.Console(stderr=True)
        self._bars = rich.progress.Progress(
            rich.progress.TextColumn("{task.description}"),
            rich.progress.BarColumn(),
            rich.progress.TextColumn("{task.fields[about]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._all = self._bars.add_task("search", total=total, about="")
        self._running: dict[int, Any] = {}

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        with self._bars:
            yield

    def started(self, number: int) -> None:
        self._running[number] = self._bars.add_task(f"  trial {number}", total=None, about="starting")

    def going_on(self, number: int, alive: Heartbeat) -> None:
        """Shows how far a trial is."""
        about = f"epoch {alive.epoch} of {alive.epochs}"
        self._bars.update(self._running[number], completed=alive.epoch, total=alive.epochs, about=about)

    def count(self, record: TrialRecord) -> None:
        """Counts a trial that has ended, now or before this start of the search."""
        self._ended += 1
        self.best = best_trial([*([self.best] if self.best else []), record])
        best = f", best {self.best.score:.2%} ({format_trial(self.best)})" if self.best else ""
        self._bars.update(
            self._all,
            completed=self._ended,
            description=f"trial {self._ended}" + (f" of {self._total}" if self._total else ""),
            about=self._left() + best,
        )

    def ended(self, record: TrialRecord) -> None:
        """Shows a trial that has just ended."""
        if (bar := self._running.pop(record.trial, None)) is not None:
            self._bars.remove_task(bar)
            self._new += 1
        self.count(record)
        result = f"{record.score:.2%}" if record.score is not None else f"failed: {(record.error or '').rstrip('.')}"
        best = f" Best: {self.best.score:.2%} ({format_trial(self.best)})." if self.best else ""
        of = f" of {self._total}" if self._total else ""
        left = f" {self._left().capitalize()}." if self._left() else ""
        text = f"Trial {record.trial}{of}: {format_trial(record)}: {result}."
        _logger.info("%s%s%s", text, best, left)

    def _left(self) -> str:
        if not self._total or not self._new:
            return ""
        seconds = (time.monotonic() - self._started) / self._new * max(0, self._total - self._ended)
        hours, minutes = divmod(round(seconds / 60), 60)
        return f"{hours} h {minutes:02d} min left" if hours else f"{minutes} min left" if minutes else "<1 min left"


def format_trial(record: TrialRecord) -> str:
    """Returns the hyperparameters of a trial as short text, with the k that follows from a budget."""
    values = dict(record.hyperparameters)
    if "branch" in values and record.executions:
        values = {"k": record.executions[0].k, **values}
    texts = [format_values(values)] if values else []
    if record.until:
        texts.append(f"{record.until} epochs")
    return ", ".join(texts) or "the one configuration"
