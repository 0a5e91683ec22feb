"""The command `watch`."""

import math
import time
from collections.abc import Iterator, Sequence

from absl import flags

from keras_popup.cli.flags import UsageError, parse
from keras_popup.records import RunFolder, SearchFolder, TrialRecord, best_trial

_WATCH_HELP = """\
keras-popup watch: follow a run or a search that another process trains

usage:
  keras-popup watch FOLDER      the folder of a run or a search

Prints a line per epoch of a run, or per trial of a search, until it is finished. Ctrl-C ends the watching, not the
training. For curves: keras-popup report FOLDER --overwrite, at any time.

example:
  keras-popup watch runs/first
"""


def watch(arguments: Sequence[str]) -> int:
    """`keras-popup watch FOLDER`: follows a run or search, and returns the exit status."""
    values = flags.FlagValues()
    flags.DEFINE_float("interval", 2.0, "Seconds between two looks.", 0.01, 3600.0, flag_values=values)
    flags.DEFINE_boolean("once", False, "Print what is there, and end.", flag_values=values)
    if (given := parse(values, "watch", arguments, _WATCH_HELP, "FOLDER")) is None:
        return 0
    if SearchFolder(given[0]).is_one():
        lines = _follow_search(SearchFolder(given[0]))
    elif RunFolder(given[0]).is_one():
        lines = _follow_run(RunFolder(given[0]))
    else:
        raise UsageError(f"FOLDER must be the folder of a run or a search. Received: '{given[0]}'.")
    for line in lines:
        if line is not None:
            print(line, flush=True)
        elif values.once:
            return 0
        else:
            time.sleep(values.interval)
    return 0


def _follow_run(folder: RunFolder) -> Iterator[str | None]:
    """Yields a line for each epoch that is finished, and None where it has to wait for the next."""
    epochs, shown, best = folder.config()["epochs"], 0, -math.inf
    while True:
        summary = folder.summary()
        history = folder.history() if (folder.path / "history.csv").exists() else []
        for row in history[shown:]:
            name = "val_accuracy" if "val_accuracy" in row else "accuracy"
            best = max(best, row[name])
            words = "validation" if name == "val_accuracy" else "training"
            text = f"{words} accuracy {row[name]:.2%}, best {best:.2%}, loss {row['loss']:.4g}"
            yield f"epoch {row['epoch']} of {epochs}: {text}"
        shown = len(history)
        if summary:
            test = summary["test"]
            yield f"finished: test accuracy {test['accuracy']:.2%}" if test else "finished"
            yield f"next: keras-popup report {folder.path}"
            return
        yield None


def _follow_search(folder: SearchFolder) -> Iterator[str | None]:
    """Yields a line for each trial that has ended, and None where it has to wait for the next."""
    shown = 0
    while True:
        best = folder.best()
        trials = folder.records(TrialRecord)
        for number in range(shown, len(trials)):
            record, top = trials[number], best_trial(trials[: number + 1])
            found = f"{record.score:.2%}" if record.score is not None else f"failed: {record.error}"
            leader = f"; best: {top.score:.2%}, trial {top.trial}" if top and top.score is not None else ""
            yield f"trial {record.trial}: {found}{leader}"
        shown = len(trials)
        if best:
            yield f"finished: trial {best.trial} is the best"
            yield f"next: keras-popup report {folder.path} --overwrite"
            return
        yield None
