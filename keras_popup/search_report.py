"""One HTML page about a search, from its records. Needs the extra `tuning`; loads no TensorFlow."""

import html
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from keras_popup.records import SearchFolder, write_atomically

__all__ = ["write_report"]

Record = dict[str, Any]

_MOST_LINES = 8  # widths that get a line each; more are points with a color scale
_COLORS = ("#3366cc", "#dc3912", "#ff9900", "#109618", "#990099", "#0099c6", "#dd4477", "#66aa00")
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
        path: of the search folder.

    Returns:
        The path of the page. It needs no network and no other file.

    Raises:
        ValueError: if it is not the folder of a search, or damaged.
        ImportError: if plotly is missing.
    """
    folder = SearchFolder(path)
    if not folder.is_one():
        raise ValueError(f"SEARCH must be the folder of a search, with a search.json. Received: '{folder.path}'.")
    trials = folder.lines("trials.jsonl")
    if not trials:
        raise ValueError(f"No trial has ended yet in '{folder.path}'.")
    try:
        import plotly.offline
    except ImportError:
        raise ImportError("A report needs plotly. Install the extra: pip install 'keras-popup[tuning]'.") from None
    config = folder.read("search.json", "config")["config"]
    baselines = [each for each in folder.lines("baselines.jsonl") if each["score"] is not None]
    best = folder.read("best.json") if (folder.path / "best.json").exists() else None
    body = _page(config, trials, baselines, best)
    title = f"{config['model']} on {config['dataset']}: a search"
    page = (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{html.escape(title)}</title>\n'
        f'<link rel="icon" href="data:,">\n<style>{_STYLE}</style>\n'
        f"<script>{plotly.offline.get_plotlyjs()}</script>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )
    write_atomically(folder.report, lambda unfinished: unfinished.write_text(page, encoding="utf-8"))
    return folder.report


def _page(config: Record, trials: list[Record], baselines: list[Record], best: Record | None) -> str:
    good = [_point(record) for record in trials if record["score"] is not None and record["executions"]]
    failed = [record for record in trials if record["score"] is None]
    full = [point for point in good if point["until"] is None] or good
    parts = [_head(config, trials, failed, best, max(full, key=lambda point: point["accuracy"], default=None))]
    if full:
        lines = _baseline_by_width(baselines)
        sections: list[tuple[str, str, Callable[[], Any]]] = [
            (
                "Accuracy over k",
                "A point per trial. Dashed: the same network with learned weights.",
                lambda: _over_k(full, lines),
            ),
            ("Accuracy over width", "Dashed: learned weights.", lambda: _over_width(full, lines)),
            ("The plane of k and width", "", lambda: _plane(full)),
        ]
        if any(point["bytes"] for point in full):
            text = "What a trial's ticket really takes. The line joins those that no smaller one beats."
            sections.append(("Accuracy against ticket bytes", text, lambda: _front(full, config["budget"])))
        sections += [
            ("All trials", "Drag along an axis to choose trials, drag an axis to move it.", lambda: _parallel(good)),
            ("Learning curves", "Validation accuracy; the best trial in front.", lambda: _curves(good)),
        ]
        winner = max(full, key=lambda point: point["accuracy"])
        sections.append(("Kept shares of the best trial's layers", "", lambda: _layers(winner)))
        parts += [_section(title, text, figure()) for title, text, figure in sections]
    if failed:
        rows = [(record["trial"], _said(record["hyperparameters"]), record["error"]) for record in failed]
        parts.append(f"<h2>Failed trials</h2>\n{_table(('trial', 'hyperparameters', 'error'), rows)}")
    given = [(name, value) for name, value in config.items() if value is not None]
    parts.append(f"<h2>All arguments</h2>\n{_table(('argument', 'value'), given)}")
    return "\n".join(parts)


def _point(record: Record) -> Record:
    """Returns what is drawn of a trial: means over its executions."""
    executions = record["executions"]
    sizes = [each["ticket_bytes"] for each in executions]
    return {
        "trial": record["trial"],
        "values": record["hyperparameters"],
        "until": record["until"],
        "k": executions[0]["k"],
        "width": executions[0]["width"],
        "accuracy": record["score"],
        "bytes": sum(sizes) / len(sizes) if None not in sizes else None,
        "kept": executions[0]["kept"],
        "weights": executions[0]["weights"],
        "layers": executions[0]["layers"],
        "history": executions[0]["history"],
        "text": html.escape(f"trial {record['trial']}: {_said(record['hyperparameters'])}")
        + f"<br>k {executions[0]['k']:.4g}, {executions[0]['kept']:,} of {executions[0]['weights']:,} kept",
    }


def _said(values: Record) -> str:
    texts = {name: f"{each:.4g}" if isinstance(each, float) else str(each) for name, each in values.items()}
    return ", ".join(f"{name} {text}" for name, text in texts.items())


def _head(config: Record, trials: list[Record], failed: list[Record], best: Record | None, top: Any) -> str:
    count = f"{len(trials)} trials" + (f", {len(failed)} of which failed" if failed else "")
    lines = [
        f"<h1>{html.escape(str(config['model']))} on {html.escape(str(config['dataset']))}</h1>",
        f"<p>{count}; chosen by {config['tuner']}, {config['epochs']} epochs each, seed {config['seed']}"
        + (f", tickets of {config['budget']:,} bytes at most" if config["budget"] else "")
        + ". Accuracies are those of validation images, after the last epoch.</p>",
    ]
    if top:
        rows = [
            ("trial", top["trial"]),
            ("hyperparameters", _said(top["values"])),
            ("k", f"{top['k']:.4g}"),
            (_ACCURACY, f"{top['accuracy']:.2%}"),
            ("weights kept", f"{top['kept']:,} of {top['weights']:,}"),
        ]
        if top["bytes"]:
            rows.append(("ticket", f"{top['bytes']:,.0f} bytes"))
        if best and best["test"]:
            rows.append(("test accuracy, trained again on all training images", f"{best['test']['accuracy']:.2%}"))
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


def _baseline_by_width(baselines: list[Record]) -> dict[float, float]:
    return {each["width"]: each["score"] for each in sorted(baselines, key=lambda each: each["width"])}


def _grouped(points: list[Record], by: str) -> dict[float, list[Record]] | None:
    """Returns the points by one of their numbers, None if that takes too many values."""
    values = sorted({point[by] for point in points})
    if len(values) > _MOST_LINES:
        return None
    return {value: [point for point in points if point[by] == value] for value in values}


def _dots(points: list[Record], x: str, color: str, **more: Any) -> Any:
    """Returns points colored by a number."""
    from plotly import graph_objects

    return graph_objects.Scatter(
        x=[point[x] for point in points],
        y=[point["accuracy"] for point in points],
        mode="markers",
        marker={"color": [point[color] for point in points], "colorscale": "Viridis", "colorbar": {"title": color}},
        text=[point["text"] for point in points],
        hovertemplate="%{y:.2%}<br>%{text}<extra></extra>",
        showlegend=False,
        **more,
    )


def _lines(groups: dict[float, list[Record]], x: str, name: str) -> list[Any]:
    from plotly import graph_objects

    drawn = []
    for number, (value, points) in enumerate(groups.items()):
        ordered = sorted(points, key=lambda point: point[x])
        drawn.append(
            graph_objects.Scatter(
                x=[point[x] for point in ordered],
                y=[point["accuracy"] for point in ordered],
                mode="lines+markers",
                name=f"{name} {value:g}",
                line={"color": _COLORS[number]},
                text=[point["text"] for point in ordered],
                hovertemplate="%{y:.2%}<br>%{text}<extra></extra>",
            )
        )
    return drawn


def _over_k(points: list[Record], baselines: dict[float, float]) -> Any:
    from plotly import graph_objects

    groups = _grouped(points, "width")
    figure = graph_objects.Figure(_lines(groups, "k", "width") if groups else [_dots(points, "k", "width")])
    colors = dict(zip(groups, _COLORS, strict=False)) if groups else {}
    for width, accuracy in baselines.items():
        figure.add_scatter(
            x=[0, 1],
            y=[accuracy, accuracy],
            mode="lines",
            line={"dash": "dash", "width": 1, "color": colors.get(width, "#888")},
            name=f"learned, width {width:g}",
            hovertemplate="%{y:.2%}<extra>learned weights</extra>",
        )
    figure.update_xaxes(title="k, the fraction of weights kept", range=[0, 1])
    figure.update_yaxes(title=_ACCURACY, tickformat=".0%")
    return figure


def _over_width(points: list[Record], baselines: dict[float, float]) -> Any:
    from plotly import graph_objects

    figure = graph_objects.Figure([_dots(points, "width", "k")])
    by_width = _grouped(points, "width")
    if by_width and len(by_width) > 1:
        figure.add_scatter(
            x=list(by_width),
            y=[max(point["accuracy"] for point in group) for group in by_width.values()],
            mode="lines",
            line={"color": "#3366cc", "width": 1},
            name="the best of each width",
        )
    if baselines:
        figure.add_scatter(
            x=list(baselines),
            y=list(baselines.values()),
            mode="lines+markers",
            line={"dash": "dash", "color": "#888"},
            name="learned weights",
        )
    figure.update_xaxes(title="width", type="log", tickvals=sorted({point["width"] for point in points})[:_MOST_LINES])
    figure.update_yaxes(title=_ACCURACY, tickformat=".0%")
    figure.update_layout(legend={"orientation": "h", "y": 1.1})
    return figure


def _plane(points: list[Record]) -> Any:
    from plotly import graph_objects

    figure = graph_objects.Figure(
        graph_objects.Scatter(
            x=[point["k"] for point in points],
            y=[point["width"] for point in points],
            mode="markers",
            marker={
                "symbol": "square",
                "size": 22,
                "color": [point["accuracy"] for point in points],
                "colorscale": "Viridis",
                "colorbar": {"title": "accuracy", "tickformat": ".0%"},
            },
            text=[f"{point['accuracy']:.2%}<br>{point['text']}" for point in points],
            hovertemplate="%{text}<extra></extra>",
        )
    )
    figure.update_xaxes(title="k, the fraction of weights kept", range=[-0.03, 1.03])
    widths = sorted({point["width"] for point in points})
    figure.update_yaxes(title="width", type="log", tickvals=widths if len(widths) <= _MOST_LINES else None)
    return figure


def front(points: list[Record]) -> list[Record]:
    """Returns the points that no point of the same or fewer bytes beats, by their bytes."""
    chosen: list[Record] = []
    for point in sorted((p for p in points if p["bytes"]), key=lambda p: (p["bytes"], -p["accuracy"])):
        if not chosen or point["accuracy"] > chosen[-1]["accuracy"]:
            chosen.append(point)
    return chosen


def _front(points: list[Record], budget: int | None) -> Any:
    from plotly import graph_objects

    sized = [point for point in points if point["bytes"]]
    groups = _grouped(sized, "width")
    figure = graph_objects.Figure()
    for drawn in _lines(groups, "bytes", "width") if groups else [_dots(sized, "bytes", "width")]:
        figure.add_trace(drawn.update(mode="markers"))
    best = front(sized)
    figure.add_scatter(
        x=[point["bytes"] for point in best],
        y=[point["accuracy"] for point in best],
        mode="lines",
        line={"shape": "hv", "color": "#222", "width": 1},
        name="front",
        hoverinfo="skip",
    )
    if budget:
        figure.add_vline(x=budget, line_dash="dash", annotation_text="budget")
    figure.update_xaxes(title="bytes of the ticket", type="log")
    figure.update_yaxes(title=_ACCURACY, tickformat=".0%")
    return figure


def _parallel(points: list[Record]) -> Any:
    from plotly import graph_objects

    names = list(dict.fromkeys(name for point in points for name in point["values"]))
    columns: list[tuple[str, list[Any]]] = [(name, [point["values"].get(name) for point in points]) for name in names]
    if "k" not in names:
        columns.append(("k", [point["k"] for point in points]))
    if any(point["until"] for point in points):
        columns.append(("epochs", [len(point["history"]) for point in points]))
    if all(point["bytes"] for point in points):
        columns.append(("bytes", [point["bytes"] for point in points]))
    columns += [("trial", [point["trial"] for point in points]), ("accuracy", [point["accuracy"] for point in points])]
    return graph_objects.Figure(
        graph_objects.Parcoords(
            line={
                "color": [point["accuracy"] for point in points],
                "colorscale": "Viridis",
                "showscale": True,
                "colorbar": {"tickformat": ".0%"},
            },
            dimensions=[_dimension(name, values) for name, values in columns],
            domain={"y": [0, 0.88]},  # labels are drawn above it
        )
    )


def _dimension(name: str, values: list[Any]) -> Record:
    if all(isinstance(value, (int, float)) for value in values):
        return {"label": name, "values": values}
    kinds = sorted({str(value) for value in values})
    return {
        "label": name,
        "values": [kinds.index(str(value)) for value in values],
        "tickvals": list(range(len(kinds))),
        "ticktext": kinds,
    }


def _curves(points: list[Record]) -> Any:
    from plotly import graph_objects

    figure = graph_objects.Figure()
    ordered = sorted(points, key=lambda point: point["accuracy"])
    for point in ordered:
        best = point is ordered[-1]
        figure.add_scatter(
            x=[row["epoch"] for row in point["history"]],
            y=[row["val_accuracy"] for row in point["history"]],
            mode="lines+markers" if best else "lines",
            line={"color": "#dc3912" if best else "#3366cc", "width": 3 if best else 1},
            opacity=1.0 if best else 0.4,
            name=f"trial {point['trial']}",
            text=[point["text"]] * len(point["history"]),
            hovertemplate="%{y:.2%}<br>%{text}<extra></extra>",
            showlegend=best,
        )
    figure.update_xaxes(title="epoch")
    figure.update_yaxes(title=_ACCURACY, tickformat=".0%")
    return figure


def _layers(point: Record) -> Any:
    from plotly import graph_objects

    shares = [layer["kept"] / layer["weights"] for layer in point["layers"]]
    figure = graph_objects.Figure(
        graph_objects.Bar(
            x=[layer["name"] for layer in point["layers"]],
            y=shares,
            text=[f"{layer['kept']:,} of {layer['weights']:,}" for layer in point["layers"]],
            hovertemplate="%{x}: %{y:.2%}<br>%{text}<extra></extra>",
            textposition="auto" if len(shares) <= 2 * _MOST_LINES else "none",
        )
    )
    figure.update_yaxes(title="share of weights kept", range=[0, 1], tickformat=".0%")
    return figure
