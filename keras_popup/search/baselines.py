"""Trains the networks of a search with learned weights, for comparison."""

import dataclasses
import logging
from collections.abc import Iterable

from keras_popup.records import BaselineRecord, SearchFolder, TrialRecord
from keras_popup.search import ranges
from keras_popup.search.config import SearchConfig
from keras_popup.search.runner import Runner
from keras_popup.search.tasks import TrialTask

_logger = logging.getLogger("keras_popup")


def baseline_widths(widths: ranges.Space, best: TrialRecord | None) -> list[float]:
    """Returns the widths that are trained: of a range, its ends and the width of the best trial."""
    chosen = set(ranges.endpoints(widths))
    if isinstance(widths, ranges.Range) and best:
        chosen.add(best.hyperparameters["width"])
    return sorted(chosen)


def train_baselines(
    config: SearchConfig,
    folder: SearchFolder,
    runner: Runner,
    widths: Iterable[float],
) -> None:
    """Trains the same networks with learned weights, with the protocol for them. Those that have succeeded are kept."""
    known = folder.records(BaselineRecord, repair=True)
    done = {record.width for record in known if record.score is not None}
    learned = config.learned_weights()
    epochs = learned.with_protocol().epochs
    waiting = [(number, width) for number, width in enumerate(widths, 1) if width not in done]
    by_number = dict(waiting)
    while waiting or runner.busy:
        while waiting and runner.free:
            number, width = waiting.pop(0)
            _logger.info("Learned weights, for comparison: width %g, %d epochs.", width, epochs)
            task = TrialTask(
                run=dataclasses.replace(learned, width=width),
                folder=folder.path / "baselines" / f"width-{ranges.format_space(width)}",
                executions=config.executions,
            )
            runner.start(number, task)
        for number, result in runner.ended():
            width, score = by_number[number], result.mean_accuracy
            folder.append(BaselineRecord(width=width, score=score, **result.common()))
            text = f"{score:.2%}" if score is not None else f"failed: {result.error}"
            _logger.info("Learned weights at width %g: %s.", width, text)
