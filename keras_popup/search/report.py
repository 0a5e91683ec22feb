"""One HTML page about a search, made from its records. Needs Jinja2; loads no TensorFlow."""

import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from keras_popup import __version__, pages
from keras_popup._files import write_atomically
from keras_popup.records import (
    BaselineRecord,
    BestRecord,
    DamagedError,
    RunFolder,
    SearchFolder,
    TrialRecord,
    best_trial,
)
from keras_popup.search import figures
from keras_popup.search.command import format_command
from keras_popup.search.figures import Point
from keras_popup.search.ranges import format_values
from keras_popup.search.statistics import explained_shares
from keras_popup.training import describe_accuracy, describe_maps, list_versions

__all__ = ["write_report"]


def write_report(path: str | os.PathLike[str]) -> Path:
    """Writes report.html into the folder of a search, finished or not.

    Args:
        path: path of the search folder.

    Returns:
        The path of the page. It needs no network and no other file.

    Raises:
        ImportError: if Jinja2 is not installed.
        ValueError: if it is not the folder of a search, if its files are damaged, or if no trial has ended.
    """
    folder = SearchFolder(path)
    if not folder.is_one():
        raise ValueError(f"SEARCH must be the folder of a search, with a search.json. Received: '{folder.path}'.")
    trials = folder.records(TrialRecord)
    if not trials:
        raise ValueError(f"No trial has ended yet in '{folder.path}'.")
    page = pages.render("search.html", **_collect(_Search(folder, trials)))
    write_atomically(folder.report, lambda unfinished: unfinished.write_text(page, encoding="utf-8"))
    return folder.report


class _Search:
    """What is known of a search.

    Attributes:
        folder, trials, config, best: as its files have them.
        points: the trials that succeeded; `full` those of them with all epochs.
        top: the best of them; None if all have failed.
        winner: the run folder of the best trial's best execution; None without one.
        images: int, its validation images; 0 if they are unknown.
        learned: the validation accuracy of learned weights by width.
    """

    def __init__(self, folder: SearchFolder, trials: Sequence[TrialRecord]) -> None:
        self.folder, self.trials, self.config, self.best = folder, trials, folder.config(), folder.best()
        self.points = [_make_point(record, record.score) for record in trials if record.score is not None]
        self.full = [point for point in self.points if point.until is None] or self.points
        record = best_trial(trials)
        self.top = next((point for point in self.points if record and point.trial == record.trial), None)
        self.winner, self.summary = _find_winner(folder, record, self.best)
        self.images = int(self.summary["data"]["validation"]) if self.summary else 0
        baselines = folder.records(BaselineRecord)
        self.learned = dict(sorted((each.width, each.score) for each in baselines if each.score is not None))

    @property
    def title(self) -> str:
        return f"{self.config['model']} on {self.config['dataset']}: a search"

    def error_of(self, accuracy: float) -> float:
        """Returns the standard error of a validation accuracy; 0 if the number of images is unknown."""
        return pages.standard_error(accuracy, self.images)


def _make_point(record: TrialRecord, score: float) -> Point:
    first = record.executions[0]
    sizes = [execution.ticket_bytes for execution in record.executions if execution.ticket_bytes is not None]
    return Point(
        trial=record.trial,
        values=record.hyperparameters,
        until=record.until,
        k=first.k,
        width=first.width,
        accuracy=score,
        accuracies=tuple(execution.accuracy for execution in record.executions),
        bytes=sum(sizes) / len(sizes) if len(sizes) == len(record.executions) else None,
        kept=first.kept,
        weights=first.weights,
        layers=first.layers,
        history=first.history,
    )


def _find_winner(
    folder: SearchFolder, record: TrialRecord | None, best: BestRecord | None
) -> tuple[RunFolder | None, dict[str, Any] | None]:
    """Returns the run folder of the best execution and its summary. A page does without them where they are gone."""
    if record is None:
        return None, None
    execution = max(range(len(record.executions)), key=lambda number: record.executions[number].accuracy)
    run = RunFolder(folder.path / record.folder / str(execution))
    try:
        return run, run.summary()
    except DamagedError:
        return None, None


def _collect(search: _Search) -> dict[str, Any]:
    """Returns what the page shows."""
    table = _make_table(search)
    names = [column.name for column in table.columns if column.number and column.name not in ("trial", "spread")]
    versions = search.summary["versions"] if search.summary else search.folder.versions()
    # With a budget, k follows from the width.
    hidden = ("k",) if search.config["budget"] and search.config["k"] == 0.5 else ()
    masks = _read_masks(search)
    return {
        "title": search.title,
        "version": __version__,
        "state": _describe_state(search),
        "verdict": _judge(search),
        "tiles": _make_tiles(search),
        "winner": _describe_winner(search),
        "masks": masks,
        "groups": _make_figures(search),
        "table": table,
        "example": f"accuracy>90% {names[1]}<0.5",
        "table_note": "± is the spread over seeds." if search.config["executions"] > 1 else "",
        "command": format_command(search.config, search.folder.path.name),
        "circumstances": _describe_circumstances(search, versions),
        "versions": list_versions({**search.folder.versions(), **versions}),
        "arguments": [
            (name, str(value)) for name, value in search.config.items() if value is not None and name not in hidden
        ],
    }


def _describe_state(search: _Search) -> str:
    failed = len(search.trials) - len(search.points)
    count = f"{len(search.trials)} trials" if len(search.trials) != 1 else "1 trial"
    most = "up to " if search.config["tuner"] == "hyperband" else ""
    parts = [
        f"{count}{f', {failed} failed' if failed else ''}",
        f"tuner {search.config['tuner']}",
        f"{most}{search.config['epochs']} epochs each",
        f"seed {search.config['seed']}",
    ]
    if search.config["executions"] > 1:
        parts.append(f"{search.config['executions']} seeds a trial, whose mean counts")
    if search.config["budget"]:
        parts.append(f"tickets of {search.config['budget']:,} bytes at most")
    ended = "" if search.best else " This search has not ended."
    return "; ".join(parts) + f". Accuracies are those of validation images, after the last epoch.{ended}"


def _judge(search: _Search) -> str:
    """Returns what can be said of the best trial, in words: against learned weights and against the other trials."""
    top = search.top
    if top is None:
        return "No trial has succeeded."
    sentences = []
    error = search.error_of(top.accuracy)
    learned = search.learned.get(top.width)
    if learned is not None:
        difference, both = top.accuracy - learned, (error**2 + search.error_of(learned) ** 2) ** 0.5
        side = "above" if difference > 0 else "below"
        text = f"The best network is {100 * abs(difference):.2g} points {side} the same network with learned weights"
        if both and abs(difference) < 2 * both:
            text += f", within two standard errors ({200 * both:.2g} points): these images show no difference"
        sentences.append(text + ".")
    near = sum(point.accuracy >= top.accuracy - error for point in search.full) - 1
    if error and near:
        others = f"{near} other trials are" if near > 1 else "One other trial is"
        sentences.append(f"{others} within one standard error of the best.")
    if search.config["executions"] == 1 and len(search.full) > 3:
        sentences.append("The best of many trials is partly luck: expect a little less of new images.")
    return " ".join(sentences)


def _make_tiles(search: _Search) -> list[dict[str, str]]:
    top, best = search.top, search.best
    if top is None:
        return []
    text = f"± {search.error_of(top.accuracy):.2%}, the standard error of {search.images:,} images"
    first = {"title": "Best validation accuracy", "value": f"{top.accuracy:.2%}", "text": text if search.images else ""}
    if len(top.accuracies) > 1:
        seeds = f"{len(top.accuracies)} seeds: {min(top.accuracies):.2%} to {max(top.accuracies):.2%}"
        first["text"] = f"{first['text']}; {seeds}".strip("; ")
    tiles = [first]
    learned = search.learned.get(top.width)
    if learned is not None:
        text = f"± {search.error_of(learned):.2%}; the same network, width {top.width:.3g}"
        tiles.append({"title": "Learned weights", "value": f"{learned:.2%}", "text": text})
    if best and best.refit and best.test and best.trial == top.trial:
        tile = describe_accuracy("Test accuracy", best.test["accuracy"], best.refit.get("data", {}).get("test", 0))
        text = "; ".join(filter(None, (tile["text"], "trained again on all training images")))
        tiles.append({**tile, "text": text})
    share = top.kept / top.weights if top.weights else 1.0
    tiles.append({"title": "Weights kept", "value": f"{share:.1%}", "text": f"{top.kept:,} of {top.weights:,}"})
    if top.bytes:
        text = f"{100 * top.bytes / search.config['budget']:.0f} % of the budget" if search.config["budget"] else ""
        text = text or f"{8 * top.bytes / top.weights:.2f} bits for each weight"
        tiles.append({"title": "Ticket", "value": pages.format_bytes(top.bytes), "text": text})
    return tiles


def _describe_winner(search: _Search) -> dict[str, Any] | None:
    top = search.top
    if top is None:
        return None
    facts = [(name, f"{value:.4g}" if isinstance(value, float) else str(value)) for name, value in top.values.items()]
    if "k" not in top.values:
        facts.append(("k", f"{top.k:.4g}"))
    if "width" not in top.values:
        facts.append(("width", f"{top.width:.4g}"))
    if len(top.accuracies) > 1:
        facts.append(("standard deviation over seeds", f"{statistics.stdev(top.accuracies):.2%}"))
    if search.best and search.best.refit and search.best.trial == top.trial and search.best.refit.get("ticket_bytes"):
        facts.append(("ticket of the refit", f"{search.best.refit['ticket_bytes']:,} bytes"))
    lines = ["import keras_popup", "", "# A plain Keras model", 'model = keras_popup.load_ticket("best.ticket")']
    if not (search.folder.path / "best.ticket").exists():
        lines = ["import keras", "import keras_popup", "", 'model = keras.models.load_model("best.keras")']
    lines += ["logits = model.predict(images)  # pixels from 0 to 255", "", "# or, in a shell:"]
    lines += ["keras-popup evaluate .", "keras-popup predict . IMAGE..."]
    if not (search.best and search.best.test):
        lines.append("# its test accuracy: the command below with --resume --refit")
    return {"trial": top.trial, "facts": facts, "code": "\n".join(lines)}


def _read_masks(search: _Search) -> list[dict[str, str]]:
    try:
        masks = search.winner.masks() if search.winner else None
    except DamagedError:  # it is for pictures only
        masks = None
    return describe_maps(masks.kernels) if masks else []


def _make_figures(search: _Search) -> list[tuple[str, str, list[pages.Figure]]]:
    """Returns (heading, text, figures) for each part of the page that has figures."""
    top = search.top
    if top is None:
        return []
    full, learned = search.full, search.learned
    names = dict.fromkeys(name for point in full for name in point.values if name not in ("k", "width"))
    shares = explained_shares([point.values for point in full], [point.accuracy for point in full])
    groups = [
        (
            "What was found",
            "A point is a trial; the ring is the best. Point at one to see what it is, and it in the other figures.",
            [
                figures.over_k(full, learned),
                figures.over_width(full, learned),
                figures.front_of_bytes(full, search.config["budget"]),
                figures.plane(full) if not search.config["budget"] else None,
                *(figures.over_hyperparameter(full, name) for name in names),
            ],
        ),
        (
            "How sure it is",
            "",
            [
                figures.importance(shares),
                figures.spread_of_seeds(full),
                figures.best_over_trials(full),
                figures.curves(search.points, top.trial),
                figures.layers(top),
            ],
        ),
    ]
    drawn = [(heading, text, [figure for figure in all_of_it if figure]) for heading, text, all_of_it in groups]
    return [group for group in drawn if group[2]]


def _make_table(search: _Search) -> pages.Table:
    names = list(dict.fromkeys(name for record in search.trials for name in record.hyperparameters))
    numbers = {
        name: all(isinstance(record.hyperparameters.get(name, 0), (int, float)) for record in search.trials)
        for name in names
    }
    columns = [
        pages.Column("trial", "trial"),
        pages.Column("accuracy", "accuracy"),
        *([pages.Column("spread", "±")] if search.config["executions"] > 1 else []),
        *(pages.Column(name, name, numbers[name]) for name in names),
        *(pages.Column(name, name) for name in ("k",) if name not in names),
        *([pages.Column("epochs", "epochs")] if search.config["tuner"] == "hyperband" else []),
        pages.Column("kept", "kept"),
        *([pages.Column("bytes", "bytes")] if any(point.bytes for point in search.points) else []),
        pages.Column("seconds", "seconds"),
        *([pages.Column("error", "error", number=False)] if len(search.points) < len(search.trials) else []),
    ]
    points = {point.trial: point for point in search.points}
    top = search.top.trial if search.top else None
    order = sorted(search.trials, key=lambda record: (record.trial != top, -(record.score or -1.0), record.trial))
    return pages.Table(
        columns,
        [_make_row(record, points.get(record.trial)) for record in order],
        [_list_links(search.folder, record) for record in order],
        top,
    )


def _make_row(record: TrialRecord, point: Point | None) -> dict[str, tuple[str, Any]]:
    row = {name: _format_cell(value) for name, value in record.hyperparameters.items()}
    row |= {"trial": (str(record.trial), record.trial), "seconds": (f"{record.seconds:.0f}", record.seconds)}
    text = format_values(record.hyperparameters)
    if point is None:
        return {**row, "error": (record.error or "", ""), "hint": (f"trial {record.trial}: {text}; failed", "")}
    row["accuracy"] = (f"{point.accuracy:.2%}", point.accuracy)
    if len(point.accuracies) > 1:
        spread = statistics.stdev(point.accuracies)
        row["spread"] = (f"{100 * spread:.2f}", spread)
    row |= {"k": (f"{point.k:.4g}", point.k), "kept": (f"{point.kept:,}", point.kept)}
    row["epochs"] = (str(len(point.history)), len(point.history))
    if point.bytes:
        row["bytes"] = (f"{point.bytes:,.0f}", point.bytes)
    row["hint"] = (f"trial {record.trial}, {point.accuracy:.2%}: {text}, {point.kept:,} kept", "")
    return row


def _format_cell(value: Any) -> tuple[str, Any]:
    return (f"{value:.4g}" if isinstance(value, float) else str(value)), value


def _list_links(folder: SearchFolder, record: TrialRecord) -> list[tuple[str, str]]:
    """Returns the files of a trial that are there, as addresses from the folder of the search."""
    own = record.folder
    links = [(f"{own}/", "records"), (f"{own}/log.txt", "log")]
    for number in range(len(record.executions)):
        text = "ticket" if len(record.executions) == 1 else f"ticket {number}"
        links.append((f"{own}/{number}/model.ticket", text))
    return [(address, text) for address, text in links if (folder.path / address).exists()]


def _describe_circumstances(search: _Search, versions: Mapping[str, str]) -> list[tuple[str, str]]:
    own = [record for record in search.trials if record.same_as is None]
    rows = [("begun", pages.format_time(min(record.started for record in search.trials)))]
    rows.append(("last trial begun", pages.format_time(max(record.started for record in search.trials))))
    seconds = [record.seconds for record in own]
    rows.append(("time of all trials", pages.format_duration(sum(seconds))))
    rows.append(("time of a trial", f"{pages.format_duration(statistics.median(seconds))}, the median"))
    machine = pages.describe_machine(versions)
    return [*rows, ("machine", machine)] if machine else rows
