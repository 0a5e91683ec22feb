"""One HTML page about a search, made from its records. Needs the extra `tuning`; loads no TensorFlow."""

import html
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keras_popup._files import write_atomically
from keras_popup.records import BaselineRecord, BestRecord, SearchFolder, TrialRecord, best_trial

try:
    import plotly.offline
except ImportError:
    raise ImportError("A report needs plotly. Install the extra: pip install 'keras-popup[tuning]'.") from None

from keras_popup.search import figures as figures
from keras_popup.search.figures import Point
from keras_popup.search.ranges import format_values

__all__ = ["write_report"]

_ACCURACY = "validation accuracy"

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1080px; margin: 2em auto; padding: 0 1em; color: #222; }
h1 { font-size: 1.5em; } h2 { font-size: 1.15em; margin: 2em 0 0; } p { margin: .4em 0; color: #444; }
table { border-collapse: collapse; margin: .6em 0; } td, th { padding: .15em .8em .15em 0; text-align: left; }
td.number { text-align: right; font-variant-numeric: tabular-nums; } code { white-space: pre-wrap; }
"""


def write_report(path: str | os.PathLike[str]) -> Path:
    """Writes report.html into the folder of a search, finished or not.

    Args:
        path: path of the search folder.

    Returns:
        The path of the page. It needs no network and no other file.

    Raises:
        ValueError: if it is not the folder of a search, if its files are damaged, or if no trial has ended.
    """
    folder = SearchFolder(path)
    if not folder.is_one():
        raise ValueError(f"SEARCH must be the folder of a search, with a search.json. Received: '{folder.path}'.")
    trials = folder.records(TrialRecord)
    if not trials:
        raise ValueError(f"No trial has ended yet in '{folder.path}'.")
    config = folder.config()
    body = _page(config, trials, folder.records(BaselineRecord), folder.best())
    title = f"{config['model']} on {config['dataset']}: a search"
    page = (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{html.escape(title)}</title>\n'
        f'<link rel="icon" href="data:,">\n<style>{_STYLE}</style>\n'
        f"<script>{plotly.offline.get_plotlyjs()}</script>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )
    write_atomically(folder.report, lambda unfinished: unfinished.write_text(page, encoding="utf-8"))
    return folder.report


def _page(
    config: dict[str, Any], trials: list[TrialRecord], baselines: list[BaselineRecord], best: BestRecord | None
) -> str:
    good = [_point(record, record.score) for record in trials if record.score is not None]
    failed = [record for record in trials if record.score is None]
    full = [point for point in good if point.until is None] or good
    winner = best_trial(trials)
    top = next((point for point in good if winner and point.trial == winner.trial), None)
    parts = [_head(config, trials, failed, best, top)]
    if top:
        learned = {each.width: each.score for each in baselines if each.score is not None}
        learned = dict(sorted(learned.items()))
        dashed = " Dashed: the same network with learned weights." if learned else ""
        parts += [
            _section("Accuracy over k", f"A point per trial.{dashed}", figures.over_k(full, learned)),
            _section("Accuracy over width", dashed.strip(), figures.over_width(full, learned)),
            _section("The plane of k and width", "", figures.plane(full)),
        ]
        if any(point.bytes for point in full):
            text = "The bytes of each trial's ticket. The line joins the tickets that no smaller one beats."
            drawn = figures.front_of_bytes(full, config["budget"])
            parts.append(_section("Accuracy against ticket bytes", text, drawn))
        text = "Drag along an axis to choose trials, drag an axis to move it."
        parts += [
            _section("All trials", text, figures.parallel(good)),
            _section("Learning curves", "The best trial in front.", figures.curves(good, top.trial)),
            _section("Kept shares of the best trial's layers", "", figures.layers(top)),
        ]
    if failed:
        rows = [(record.trial, format_values(record.hyperparameters), record.error) for record in failed]
        parts.append(f"<h2>Failed trials</h2>\n{_table(('trial', 'hyperparameters', 'error'), rows)}")
    hidden = ("k",) if config["budget"] and config["k"] == 0.5 else ()  # it follows from the width
    used = [(name, value) for name, value in config.items() if value is not None and name not in hidden]
    parts.append(f"<h2>All arguments</h2>\n{_table(('argument', 'value'), used)}")
    return "\n".join(parts)


def _point(record: TrialRecord, score: float) -> Point:
    """Returns a trial as it is drawn."""
    first = record.executions[0]
    sizes = [execution.ticket_bytes for execution in record.executions if execution.ticket_bytes is not None]
    return Point(
        trial=record.trial,
        values=record.hyperparameters,
        until=record.until,
        k=first.k,
        width=first.width,
        accuracy=score,
        bytes=sum(sizes) / len(sizes) if len(sizes) == len(record.executions) else None,
        kept=first.kept,
        weights=first.weights,
        layers=first.layers,
        history=first.history,
        text=html.escape(f"trial {record.trial}: {format_values(record.hyperparameters)}")
        + f"<br>k {first.k:.4g}, {first.kept:,} of {first.weights:,} kept",
    )


def _head(
    config: dict[str, Any],
    trials: list[TrialRecord],
    failed: list[TrialRecord],
    best: BestRecord | None,
    top: Point | None,
) -> str:
    count = f"{len(trials)} trials" + (f"; {len(failed)} failed" if failed else "")
    most = "up to " if config["tuner"] == "hyperband" else ""
    lines = [
        f"<h1>{html.escape(str(config['model']))} on {html.escape(str(config['dataset']))}</h1>",
        f"<p>{count}. Tuner: {config['tuner']}; {most}{config['epochs']} epochs each; seed {config['seed']}"
        + (f"; tickets of {config['budget']:,} bytes at most" if config["budget"] else "")
        + ". Accuracies are those of validation images, after the last epoch. Plots of many trials begin where "
        "most are; a double click shows all.</p>",
    ]
    if top:
        rows: list[tuple[str, Any]] = [
            ("trial", top.trial),
            ("hyperparameters", format_values(top.values)),
            ("k", f"{top.k:.4g}"),
            (_ACCURACY, f"{top.accuracy:.2%}"),
            ("weights kept", f"{top.kept:,} of {top.weights:,}"),
        ]
        if top.bytes:
            rows.append(("ticket", f"{top.bytes:,.0f} bytes"))
        if best and best.refit and best.test and best.trial == top.trial:
            rows.append(("trained again on all training images", ""))
            rows.append(("test accuracy", f"{best.test['accuracy']:.2%}"))
            rows += [("ticket", f"{best.refit['ticket_bytes']:,} bytes")] if top.bytes else []
        lines.append(f"<h2>The best</h2>\n{_table((), rows)}")
    return "\n".join(lines)


def _table(titles: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    head = "<tr>" + "".join(f"<th>{html.escape(title)}</th>" for title in titles) + "</tr>" if titles else ""
    body = "\n".join("<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table>{head}\n{body}\n</table>"


def _section(title: str, text: str, figure: Any) -> str:
    figure.update_layout(template="plotly_white", margin={"l": 60, "r": 20, "t": 30, "b": 50}, height=420)
    drawn = figure.to_html(
        full_html=False,
        include_plotlyjs=False,
        config={"displaylogo": False, "responsive": True},
        div_id=title.lower().replace(" ", "-").replace("'", ""),
    )
    return f"<h2>{html.escape(title)}</h2>\n<p>{html.escape(text)}</p>\n{drawn}"
