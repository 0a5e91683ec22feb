"""Records the winner of a search, and trains it again on all training images."""

import dataclasses
import functools
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

from keras_popup._files import write_atomically
from keras_popup.records import BestRecord, DamagedError, RunFolder, SearchFolder, TrialRecord, best_trial
from keras_popup.search.runner import Runner
from keras_popup.search.tasks import TrialTask
from keras_popup.training import RunConfig

_logger = logging.getLogger("keras_popup")


def write_winner(folder: SearchFolder, ended: Sequence[TrialRecord]) -> BestRecord:
    """Writes the winner's record, ticket and model. After a refit, they are those of the refit.

    Raises:
        RuntimeError: if no trial has succeeded.
        DamagedError: if the winner's model or ticket is damaged.
    """
    best = best_trial(ended)
    if best is None:
        errors = sorted({str(record.error) for record in ended})
        raise RuntimeError(f"No trial has succeeded. Their errors: {'; '.join(errors)}")
    execution = max(range(len(best.executions)), key=lambda number: best.executions[number].accuracy)
    source = folder.path / best.folder / str(execution)
    again = RunFolder(_refit_folder(folder, best.trial) / "0")
    summary = again.summary()
    if summary:
        source = again.path
    own = {field.name: getattr(best, field.name) for field in dataclasses.fields(TrialRecord)}
    record = BestRecord(**own, execution=execution, test=summary["test"] if summary else None, refit=summary)
    for suffix in (".keras", ".ticket"):
        model = source / f"model{suffix}"
        if model.exists():
            _check_source(RunFolder(source), model.name, best)
            write_atomically(folder.path / f"best{suffix}", functools.partial(shutil.copyfile, model))
    folder.write_best(record)
    return record


def _check_source(run: RunFolder, name: str, best: TrialRecord) -> None:
    """Checks the model or ticket of the winner."""
    try:
        run.check_model(name)
    except DamagedError as error:
        remedy = (
            f"Delete the folder '{run.path}' and the line of trial {best.trial} in {best.file}: with --resume, the "
            "trial is trained again."
        )
        raise DamagedError(error.path, error.wrong, remedy) from None


def refit(folder: SearchFolder, runner: Runner, best: BestRecord) -> None:
    """Trains the winner on all training images, and tests it.

    Raises:
        RuntimeError: if the training fails.
    """
    _logger.info("Training the winner again, on all training images.")
    task = TrialTask(
        run=RunConfig.from_json({**best.best_execution.config, "validation": 0.0}),
        folder=_refit_folder(folder, best.trial),
        test=True,
    )
    runner.start(0, task)
    while runner.busy:
        for _, result in runner.ended():
            if result.error:
                raise RuntimeError(
                    f"Training the winner again has failed: {result.error} The winner is kept as it was, in "
                    f"'{folder.path}'; --resume --refit tries again."
                )


def _refit_folder(folder: SearchFolder, trial: int) -> Path:
    return folder.path / "refit" / f"{trial:04d}"
