"""The files of a search that follow from its records: the table, TensorBoard's logs, the page."""

import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from keras_popup import pages
from keras_popup.records import Execution, SearchFolder, TrialRecord, best_trial
from keras_popup.search.report import write_report

_logger = logging.getLogger("keras_popup")


class Views:
    """The files of a search that can be made again from its records.

    Args:
        folder: the search folder.
        tensorboard: whether to write logs for TensorBoard.
    """

    def __init__(self, folder: SearchFolder, tensorboard: bool) -> None:
        self._folder = folder
        self._tensorboard = tensorboard

    def write(self, ended: Sequence[TrialRecord], in_use: Collection[str]) -> None:
        """Writes the table and the logs, and removes models.

        Args:
            ended: the trials that have ended.
            in_use: folders of trials that run or will run.
        """
        self._folder.write_table("trials.csv", [_row(record) for record in ended])
        self._remove_models(ended, in_use)
        if self._tensorboard:
            from keras_popup.search import tensorboard

            for record in ended:
                tensorboard.write_logs(self._folder.path / "tensorboard", record)

    def _remove_models(self, ended: Sequence[TrialRecord], in_use: Collection[str]) -> None:
        """Keeps the models of the best trial only. The other trials have their tickets."""
        best = best_trial(ended)
        # A trial of Hyperband that continues an earlier run may have saved its model already.
        kept = {best.folder if best else None, *in_use}
        for record in ended:
            if best and record.folder not in kept:
                for model in (self._folder.path / record.folder).glob("*/model.keras"):
                    model.unlink()

    def remove_checkpoints(self) -> None:
        """Removes the checkpoints of Hyperband's trials that no trial continues."""
        for checkpoint in self._folder.path.glob("trials/*/*/checkpoint*"):
            checkpoint.unlink()

    def write_page(self) -> None:
        """Writes report.html, if Jinja2 is installed."""
        if not pages.is_available():
            _logger.warning("No report was written: Jinja2 is missing. Install the extra: 'keras-popup[tuning]'.")
            return
        write_report(self._folder.path)


def _row(record: TrialRecord) -> dict[str, Any]:
    """Returns a trial as a row of trials.csv."""
    executions = record.executions
    first = executions[0] if executions else None
    return {
        "trial": record.trial,
        "status": record.status,
        **record.hyperparameters,
        "epochs": len(first.history) if first else "",
        "seeds": " ".join(str(execution.seed) for execution in executions),
        "k": first.k if first else record.hyperparameters.get("k", ""),
        "width": first.width if first else record.hyperparameters.get("width", ""),
        "weights": first.weights if first else "",
        "kept": first.kept if first else "",
        "val_accuracy": "" if record.score is None else record.score,
        "val_loss": _mean(executions, lambda execution: (execution.validation or {}).get("loss")),
        "predicted_bytes": _rounded(_mean(executions, lambda execution: execution.predicted_bytes)),
        "ticket_bytes": _rounded(_mean(executions, lambda execution: execution.ticket_bytes)),
        "seconds": record.seconds,
        "same_as": "" if record.same_as is None else record.same_as,
        "error": record.error or "",
    }


def _mean(executions: Iterable[Execution], value: Callable[[Execution], float | None]) -> float | str:
    values = [value(execution) for execution in executions]
    known = [each for each in values if each is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else ""


def _rounded(number: float | str) -> float | str:
    return number if isinstance(number, str) else round(number)
