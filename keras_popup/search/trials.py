"""Runs the trials of a search: it asks the tuner, sends tasks to workers, and records the results."""

import datetime
import logging
import os
import time
from typing import Any

from keras_popup.records import SearchFolder, StartedRecord, TrialRecord, TrialResult
from keras_popup.search.config import BRANCH, SearchConfig
from keras_popup.search.progress import Display
from keras_popup.search.proposals import Proposal, Proposals
from keras_popup.search.runner import Runner
from keras_popup.search.space import branches
from keras_popup.search.tasks import Budget, Measurement, TrialTask
from keras_popup.search.views import Views
from keras_popup.training import RunConfig

_logger = logging.getLogger("keras_popup")


class Trials:
    """The trials of a search.

    Args:
        config: the search's arguments.
        folder: its folder, which this process holds.
        runner: runs the tasks.
        proposals: the tuner.
        measurement: the sizes of tickets.
        views: the files that follow from the records.

    Attributes:
        ended: the records of the trials that have ended, in the order in which they did.
    """

    def __init__(
        self,
        config: SearchConfig,
        folder: SearchFolder,
        runner: Runner,
        proposals: Proposals,
        measurement: Measurement,
        views: Views,
    ) -> None:
        self.ended = folder.records(TrialRecord, repair=True)
        self._config = config
        self._folder = folder
        self._runner = runner
        self._proposals = proposals
        self._measurement = measurement
        self._views = views
        self._waiting: list[Proposal] = []
        self._running: dict[int, Proposal] = {}
        self._times: dict[int, tuple[str, float]] = {}

    def run(self) -> None:
        """Runs the trials that have not ended.

        Raises:
            RuntimeError: if the tuner proposes no trial though the search has not ended.
        """
        display = Display(self._proposals.total, self._runner.size)
        for record in self.ended:
            display.count(record)
        self._log_start()
        started = self._folder.records(StartedRecord, repair=True)
        self._waiting = self._proposals.replay(started, self.ended)
        if self.ended:
            _logger.info("Going on after %d trials.", len(self.ended))
            self._write_views()  # a kill may have come before that
        with display.shown():
            while True:
                while self._runner.free and (proposal := self._next()):
                    if result := self._copy_result(proposal):
                        self._end(proposal, result[0], display, same_as=result[1])
                    else:
                        self._start(proposal, display)
                if not self._runner.busy:
                    break
                for number, ended in self._runner.ended(display.going_on):
                    self._end(self._running.pop(number), ended, display)
        if not self._proposals.exhausted:
            raise RuntimeError(
                "The tuner returned no new trial while none was running. Continue the search with --resume."
            )

    def _log_start(self) -> None:
        total, following = self._proposals.total, len(self.ended) + 1
        count = f"{total} trials" if total else "Trials"
        _logger.info("%s of %s epochs.", count, self._config.run.with_protocol().epochs)
        if not total or following <= total:
            log = self._folder.trial(following) / "log.txt"
            _logger.info("The progress of a trial is in %s.", os.path.relpath(log))

    def _next(self) -> Proposal | None:
        if self._waiting:
            return self._waiting.pop(0)
        if self._proposals.exhausted:
            return None
        proposal = self._proposals.propose()
        if proposal:
            self._folder.append(self._proposals.record(proposal, len(self.ended)))
        return proposal

    def _start(self, proposal: Proposal, display: Display) -> None:
        self._running[proposal.number] = proposal
        self._times[proposal.number] = (_now(), time.monotonic())
        display.started(proposal.number)
        self._runner.start(proposal.number, self._task(proposal))

    def _task(self, proposal: Proposal) -> TrialTask:
        run, budget = self._read_values(proposal.values)
        return TrialTask(
            run=run,
            folder=self._folder.trial(proposal.root),
            size=self._measurement.size_of(run),
            executions=self._config.executions,
            until=proposal.until,
            budget=budget,
        )

    def _read_values(self, hyperparameters: dict[str, Any]) -> tuple[RunConfig, Budget | None]:
        """Returns a trial's run, and the budget that its k follows from."""
        values = dict(hyperparameters)
        branch = values.pop(BRANCH, None)
        budget = None
        if self._config.budget is not None:
            low, high = self._config.k_limits()
            budget = Budget(bytes=self._config.budget, branch=branch or branches(self._config)[0], low=low, high=high)
        return self._config.with_values(values), budget

    def _find_network(self, hyperparameters: dict[str, Any]) -> Any:
        """Returns what is equal for trials that train the same network: both branches of a budget may give one k."""
        run, budget = self._read_values(hyperparameters)
        size = self._measurement.size_of(run)
        return (run, budget.find_k(size)) if budget and size else (run, hyperparameters.get(BRANCH))

    def _copy_result(self, proposal: Proposal) -> tuple[TrialResult, TrialRecord] | None:
        """Returns the result and record of an equal trial that succeeded: another run would give the same."""
        network = self._find_network(proposal.values)
        for record in self.ended:
            same = record.until == proposal.until and self._find_network(record.hyperparameters) == network
            if same and record.score is not None:
                return TrialResult(**record.common()), record
        return None

    def _end(
        self, proposal: Proposal, result: TrialResult, display: Display, same_as: TrialRecord | None = None
    ) -> None:
        score = result.mean_accuracy
        started, since = self._times.pop(proposal.number, (_now(), time.monotonic()))
        record = TrialRecord(
            trial=proposal.number,
            status="failed" if score is None else "completed",
            hyperparameters=proposal.values,
            until=proposal.until,
            score=score,
            folder=same_as.folder if same_as else self._path(proposal),
            started=started,
            seconds=round(time.monotonic() - since, 1),
            same_as=same_as.trial if same_as else None,
            **result.common(),
        )
        self._folder.append(record)
        self.ended.append(record)
        self._proposals.tell(proposal.number, score, result.error)
        self._write_views()
        display.ended(record)

    def _path(self, proposal: Proposal) -> str:
        return str(self._folder.trial(proposal.root).relative_to(self._folder.path))

    def _write_views(self) -> None:
        in_use = {self._path(proposal) for proposal in (*self._running.values(), *self._waiting)}
        self._views.write(self.ended, in_use)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
