"""The figures of the page about a search. Needs plotly."""

import dataclasses
from collections.abc import Iterable
from typing import Any

from plotly import graph_objects

from keras_popup.records import History, LayerRecord

_MANY = 20  # from this number of trials on, the axis of accuracy does not show the worst
_SHOWN = 6  # it shows this many times the distance from the best to the median
_MOST_LINES = 8  # up to this number of widths, each has a line; more are points with a color scale
_COLORS = ("#3366cc", "#dc3912", "#ff9900", "#109618", "#990099", "#0099c6", "#dd4477", "#66aa00")
_ACCURACY = "validation accuracy"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
    """A trial that succeeded, as it is drawn.

    Attributes:
        trial: int, its number.
        values: dict, its hyperparameters.
        until: int, the epoch after which it stopped; None for all epochs.
        k, width: of its first execution.
        accuracy: float, its score.
        bytes: float, the mean size of its tickets; None without tickets.
        kept, weights, layers, history: of its first execution.
        text: HTML for its label.
    """

    trial: int
    values: dict[str, Any]
    until: int | None
    k: float
    width: float
    accuracy: float
    bytes: float | None
    kept: int
    weights: int
    layers: tuple[LayerRecord, ...]
    history: History
    text: str


def _grouped(points: list[Point], by: str) -> dict[float, list[Point]] | None:
    """Returns the points by one of their numbers; None if it has too many values."""
    values = sorted({getattr(point, by) for point in points})
    if len(values) > _MOST_LINES or (len(values) > 1 and len(points) < 2 * len(values)):
        return None
    return {value: [point for point in points if getattr(point, by) == value] for value in values}


def _axis(points: list[Point], also: Iterable[float] = ()) -> dict[str, Any]:
    """Returns an axis of accuracy. It starts where most trials are, so that the best are far enough apart."""
    accuracies = sorted(point.accuracy for point in points)
    best = max(accuracies[-1], *also, 0.0)
    low = accuracies[0]
    if len(accuracies) >= _MANY:
        low = max(low, accuracies[-1] - _SHOWN * (accuracies[-1] - accuracies[len(accuracies) // 2]))
    low = min(low, *also, best - 0.005)
    margin = 0.05 * (best - low)
    return {"title": _ACCURACY, "tickformat": ".1%", "range": [low - margin, best + margin]}


def _dots(points: list[Point], x: str, color: str, **more: Any) -> Any:
    """Returns points with colors by a number."""
    return graph_objects.Scatter(
        x=[getattr(point, x) for point in points],
        y=[point.accuracy for point in points],
        mode="markers",
        marker={
            "color": [getattr(point, color) for point in points],
            "colorscale": "Viridis",
            "colorbar": {"title": color},
        },
        text=[point.text for point in points],
        hovertemplate="%{y:.2%}<br>%{text}<extra></extra>",
        showlegend=False,
        **more,
    )


def _lines(groups: dict[float, list[Point]], x: str, name: str) -> list[Any]:
    drawn = []
    for number, (value, points) in enumerate(groups.items()):
        ordered = sorted(points, key=lambda point: getattr(point, x))
        drawn.append(
            graph_objects.Scatter(
                x=[getattr(point, x) for point in ordered],
                y=[point.accuracy for point in ordered],
                mode="lines+markers",
                name=f"{name} {value:g}",
                line={"color": _COLORS[number]},
                text=[point.text for point in ordered],
                hovertemplate="%{y:.2%}<br>%{text}<extra></extra>",
            )
        )
    return drawn


def over_k(points: list[Point], baselines: dict[float, float]) -> Any:
    """Draws accuracy over k, a line for each width, and the accuracy of learned weights by width."""
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
    figure.update_yaxes(_axis(points, baselines.values()))
    return figure


def over_width(points: list[Point], baselines: dict[float, float]) -> Any:
    """Draws accuracy over width, and that of learned weights."""
    figure = graph_objects.Figure([_dots(points, "width", "k")])
    by_width = _grouped(points, "width")
    if by_width and len(by_width) > 1:
        figure.add_scatter(
            x=list(by_width),
            y=[max(point.accuracy for point in group) for group in by_width.values()],
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
    figure.update_xaxes(title="width", type="log", tickvals=list(by_width) if by_width else None)
    figure.update_yaxes(_axis(points, baselines.values()))
    figure.update_layout(legend={"orientation": "h", "y": 1.1})
    return figure


def plane(points: list[Point]) -> Any:
    """Draws accuracy in the plane of k and width."""
    figure = graph_objects.Figure(
        graph_objects.Scatter(
            x=[point.k for point in points],
            y=[point.width for point in points],
            mode="markers",
            marker={
                "symbol": "square",
                "size": 22,
                "color": [point.accuracy for point in points],
                "colorscale": "Viridis",
                "cmin": _axis(points)["range"][0],
                "cmax": _axis(points)["range"][1],
                "colorbar": {"title": "accuracy", "tickformat": ".1%"},
            },
            text=[f"{point.accuracy:.2%}<br>{point.text}" for point in points],
            hovertemplate="%{text}<extra></extra>",
        )
    )
    figure.update_xaxes(title="k, the fraction of weights kept", range=[-0.03, 1.03])
    by_width = _grouped(points, "width")
    figure.update_yaxes(title="width", type="log", tickvals=list(by_width) if by_width else None)
    return figure


def _front(points: list[Point]) -> list[Point]:
    """Returns the points that no other point with as few bytes beats, sorted by bytes."""
    chosen: list[Point] = []
    for point in sorted((p for p in points if p.bytes), key=lambda p: (p.bytes or 0, -p.accuracy)):
        if not chosen or point.accuracy > chosen[-1].accuracy:
            chosen.append(point)
    return chosen


def front_of_bytes(points: list[Point], budget: int | None) -> Any:
    """Draws accuracy over the bytes of tickets, and the front."""
    sized = [point for point in points if point.bytes]
    groups = _grouped(sized, "width")
    figure = graph_objects.Figure()
    for drawn in _lines(groups, "bytes", "width") if groups else [_dots(sized, "bytes", "width")]:
        figure.add_trace(drawn.update(mode="markers"))
    best = _front(sized)
    figure.add_scatter(
        x=[point.bytes for point in best],
        y=[point.accuracy for point in best],
        mode="lines",
        line={"shape": "hv", "color": "#222", "width": 1},
        name="front",
        hoverinfo="skip",
    )
    if budget:
        figure.add_vline(x=budget, line_dash="dash", annotation_text="budget")
    figure.update_xaxes(title="bytes of the ticket", type="log")
    figure.update_yaxes(_axis(sized))
    return figure


def parallel(points: list[Point]) -> Any:
    """Draws all hyperparameters and results of all trials, side by side."""
    names = list(dict.fromkeys(name for point in points for name in point.values))
    columns: list[tuple[str, list[Any]]] = [(name, [point.values.get(name) for point in points]) for name in names]
    if "k" not in names:
        columns.append(("k", [point.k for point in points]))
    if any(point.until for point in points):
        columns.append(("epochs", [len(point.history) for point in points]))
    if all(point.bytes for point in points):
        columns.append(("bytes", [point.bytes for point in points]))
    columns += [("trial", [point.trial for point in points]), ("accuracy", [point.accuracy for point in points])]
    return graph_objects.Figure(
        graph_objects.Parcoords(
            line={
                "color": [point.accuracy for point in points],
                "colorscale": "Viridis",
                "cmin": _axis(points)["range"][0],
                "cmax": _axis(points)["range"][1],
                "showscale": True,
                "colorbar": {"tickformat": ".1%"},
            },
            dimensions=[_dimension(name, values) for name, values in columns],
            domain={"y": [0, 0.88]},  # labels are drawn above it
        )
    )


def _dimension(name: str, values: list[Any]) -> dict[str, Any]:
    if all(isinstance(value, (int, float)) for value in values):
        return {"label": name, "values": values}
    kinds = sorted({str(value) for value in values})
    return {
        "label": name,
        "values": [kinds.index(str(value)) for value in values],
        "tickvals": list(range(len(kinds))),
        "ticktext": kinds,
    }


def curves(points: list[Point], best: int) -> Any:
    """Draws validation accuracy over the epochs of all trials. The trial of number `best` is in front."""
    figure = graph_objects.Figure()
    for point in sorted(points, key=lambda point: point.trial == best):
        front = point.trial == best
        figure.add_scatter(
            x=[row["epoch"] for row in point.history],
            y=[row["val_accuracy"] for row in point.history],
            mode="lines+markers" if front else "lines",
            line={"color": "#dc3912" if front else "#3366cc", "width": 3 if front else 1},
            opacity=1.0 if front else 0.4,
            name=f"trial {point.trial}",
            text=[point.text] * len(point.history),
            hovertemplate="%{y:.2%}<br>%{text}<extra></extra>",
            showlegend=front,
        )
    figure.update_xaxes(title="epoch")
    figure.update_yaxes(_axis(points))
    return figure


def layers(point: Point) -> Any:
    """Draws the share of weights that a trial keeps in each layer."""
    shares = [layer.kept / layer.weights for layer in point.layers]
    figure = graph_objects.Figure(
        graph_objects.Bar(
            x=[layer.name for layer in point.layers],
            y=shares,
            text=[f"{layer.kept:,} of {layer.weights:,}" for layer in point.layers],
            hovertemplate="%{x}: %{y:.2%}<br>%{text}<extra></extra>",
            textposition="auto" if len(shares) <= 2 * _MOST_LINES else "none",
        )
    )
    figure.update_yaxes(title="share of weights kept", range=[0, 1], tickformat=".0%")
    return figure
