"""The figures of the page about a search. A figure that would say nothing is None."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from keras_popup.pages import Axis, Chart, Figure, Scale, bars, format_bytes, make_scale, percent_format
from keras_popup.records import History, LayerRecord
from keras_popup.search.statistics import best_so_far

_MANY = 8  # from this number of trials on, the axis of accuracy does not show the worst
_SHOWN = 6  # it shows this many times the distance from the best to the median
_MOST_COLORS = 6  # up to this number of values, each has a color; more are in five classes
_CLASSES = 5
_MOST_CURVES = 60
_MOST_ROWS = 12


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
    """A trial that succeeded, as it is drawn.

    Attributes:
        trial: int, its number.
        values: dict, its hyperparameters.
        until: int, the epoch after which it stopped; None for all epochs.
        k, width: of its first execution.
        accuracy: float, its score.
        accuracies: the validation accuracy of each execution.
        bytes: float, the mean size of its tickets; None without tickets.
        kept, weights, layers, history: of its first execution.
    """

    trial: int
    values: dict[str, Any]
    until: int | None
    k: float
    width: float
    accuracy: float
    accuracies: tuple[float, ...]
    bytes: float | None
    kept: int
    weights: int
    layers: tuple[LayerRecord, ...]
    history: History


@dataclasses.dataclass(frozen=True)
class Colors:
    """Colours of points by one of their numbers.

    Attributes:
        kind: function from a point to its class in the page's style.
        legend: the classes and their labels.
    """

    kind: Callable[[Point], str]
    legend: tuple[tuple[str, str], ...]


def _color_by(points: Sequence[Point], name: str) -> Colors:
    """Returns colors by `k` or `width`: a color for each value, or for each of five classes if there are many."""
    values = sorted({getattr(point, name) for point in points})
    if len(values) <= 1:
        return Colors(lambda point: "s0", ())
    if len(values) <= _MOST_COLORS:
        places = {value: number for number, value in enumerate(values)}
        return Colors(
            lambda point: f"s{places[getattr(point, name)]}",
            tuple((f"s{number}", f"{name} {value:g}") for number, value in enumerate(values)),
        )
    ends = [values[math.ceil(number * len(values) / _CLASSES)] for number in range(1, _CLASSES)]
    firsts = [values[0], *ends]
    lasts = [*(max(value for value in values if value < end) for end in ends), values[-1]]
    return Colors(
        lambda point: f"q{sum(getattr(point, name) >= end for end in ends)}",
        tuple(
            (f"q{number}", f"{name} {low:.3g} to {high:.3g}")
            for number, (low, high) in enumerate(zip(firsts, lasts, strict=True))
        ),
    )


def accuracy_axis(points: Sequence[Point], also: Iterable[float] = ()) -> tuple[Axis, str]:
    """Returns an axis of accuracy, and a sentence if it leaves trials out.

    It starts where most trials are, so that the best are far enough apart. Trials below it are at its foot.
    """
    also = list(also)
    accuracies = sorted(point.accuracy for point in points)
    best, low = max([*accuracies, *also]), accuracies[0]
    if len(accuracies) >= _MANY:
        low = max(low, accuracies[-1] - _SHOWN * (accuracies[-1] - accuracies[len(accuracies) // 2]))
    low = min([low, *also, best - 0.005])
    scale = make_scale([low, best])
    below = sum(accuracy < scale.low for accuracy in accuracies)
    several = f"{below} trials" if below > 1 else "One trial"
    text = f"{several} below {low:.1%}: at the foot." if below else ""
    return Axis("validation accuracy", scale, text=percent_format(scale)), text


def _height(point: Point, axis: Axis) -> float:
    return max(point.accuracy, axis.scale.low)


def _sort(points: Sequence[Point]) -> list[Point]:
    """Returns the points with the best one, as `best_trial` has it, at the end."""
    return sorted(points, key=lambda point: (point.accuracy, -(point.bytes or 0.0), -point.trial))


def _draw_points(
    chart: Chart, points: Sequence[Point], x: Callable[[Point], float], axis: Axis, kind: Callable[[Point], str]
) -> None:
    """Draws the points, the best on top and with a ring."""
    ordered = _sort(points)
    for point in ordered:
        chart.dots([(x(point), _height(point, axis))], kind(point), [point.trial])
    best = ordered[-1]
    chart.dots([(x(best), best.accuracy)], "best", [best.trial])


def over_k(points: Sequence[Point], learned: Mapping[float, float]) -> Figure | None:
    """Draws accuracy over k, colored by width, and the accuracy of learned weights by width."""
    if len({round(point.k, 6) for point in points}) < 3:
        return None
    axis, text = accuracy_axis(points, learned.values())
    colors = _color_by(points, "width")
    chart = Chart(Axis("k, the share of weights kept", Scale(0.0, 1.0), ticks=(0, 0.2, 0.4, 0.6, 0.8, 1)), axis)
    known = {point.width: colors.kind(point) for point in points}
    legend = list(colors.legend)
    for width, accuracy in learned.items():
        kind = f"dashed {known[width] if known.get(width, '').startswith('s') else 'grey'}"
        chart.rule(accuracy, kind)
        label = f"learned weights, width {width:g}" if len(learned) > 1 or colors.legend else "learned weights"
        legend.append((f"line {kind}", label))
    _draw_points(chart, points, lambda point: point.k, axis, colors.kind)
    return Figure("over-k", "Accuracy over k", chart.svg("accuracy over k"), text, tuple(legend))


def over_width(points: Sequence[Point], learned: Mapping[float, float]) -> Figure | None:
    """Draws accuracy over width, and that of learned weights."""
    widths = sorted({point.width for point in points})
    if len(widths) < 2:
        return None
    axis, text = accuracy_axis(points, learned.values())
    colors = _color_by(points, "k")
    chart = Chart(_number_axis("width", [*widths, *learned], log=True), axis)
    legend = list(colors.legend)
    if learned:
        chart.dots(learned.items(), "hollow")
        legend.append(("hollow", "learned weights"))
    _draw_points(chart, points, lambda point: point.width, axis, colors.kind)
    return Figure("over-width", "Accuracy over width", chart.svg("accuracy over width"), text, tuple(legend))


def _number_axis(title: str, values: Sequence[float], log: bool) -> Axis:
    """Returns an axis of numbers. A few values are its ticks, where their labels do not touch."""
    log = log and min(values) > 0
    scale = make_scale(values, log=log)
    few = sorted(set(values))
    places = [scale.place(value) for value in few]
    apart = all(b - a > 0.09 for a, b in itertools.pairwise(places))
    return Axis(title, scale, ticks=few if len(few) <= 8 and apart else None)


def over_hyperparameter(points: Sequence[Point], name: str) -> Figure | None:
    """Draws accuracy over a hyperparameter other than k and width: a number, or a name."""
    chosen = [point for point in points if name in point.values]
    values = [point.values[name] for point in chosen]
    if len(set(values)) < 2:
        return None
    axis, text = accuracy_axis(chosen)
    x: Callable[[Point], float]
    if all(isinstance(value, (int, float)) for value in values):
        log = min(values) > 0 and max(values) >= 20 * min(values)
        below = _number_axis(name, values, log)
        x = lambda point: float(point.values[name])  # noqa: E731
    else:
        kinds = sorted({str(value) for value in values})
        scale = Scale(-0.6, len(kinds) - 0.4)
        below = Axis(name, scale, ticks=range(len(kinds)), text=lambda tick: kinds[round(tick)])
        x = lambda point: float(kinds.index(str(point.values[name])))  # noqa: E731
    chart = Chart(below, axis)
    _draw_points(chart, chosen, x, axis, lambda point: "s0")
    return Figure(f"over-{_make_id(name)}", f"Accuracy over {name}", chart.svg(f"accuracy over {name}"), text)


def _make_id(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name)


def plane(points: Sequence[Point]) -> Figure | None:
    """Draws accuracy in the plane of k and width, where both were searched."""
    widths, fractions = {point.width for point in points}, {round(point.k, 6) for point in points}
    if len(widths) < 3 or len(fractions) < 3 or len(points) < 8:
        return None
    ordered = _sort(points)
    chart = Chart(
        Axis("k, the share of weights kept", Scale(0.0, 1.0), ticks=(0, 0.2, 0.4, 0.6, 0.8, 1)),
        _number_axis("width", sorted(widths), log=True),
    )
    kinds = [min(_CLASSES - 1, number * _CLASSES // len(ordered)) for number in range(len(ordered))]
    for point, kind in zip(ordered, kinds, strict=True):
        chart.dots([(point.k, point.width)], f"q{kind}", [point.trial])
    chart.dots([(ordered[-1].k, ordered[-1].width)], "best", [ordered[-1].trial])
    legend = []
    for kind in sorted(set(kinds)):
        inside = [point.accuracy for point, each in zip(ordered, kinds, strict=True) if each == kind]
        legend.append((f"q{kind}", f"{inside[0]:.1%} to {inside[-1]:.1%}"))
    return Figure("plane", "Width and k", chart.svg("accuracy in the plane of k and width"), "", tuple(legend))


def find_front(points: Sequence[Point]) -> list[Point]:
    """Returns the points that no other point with as few bytes beats, sorted by bytes."""
    chosen: list[Point] = []
    for point in sorted((p for p in points if p.bytes), key=lambda p: (p.bytes or 0, -p.accuracy)):
        if not chosen or point.accuracy > chosen[-1].accuracy:
            chosen.append(point)
    return chosen


def front_of_bytes(points: Sequence[Point], budget: int | None) -> Figure | None:
    """Draws accuracy over the bytes of tickets, and the front."""
    sized = [point for point in points if point.bytes]
    sizes = [float(point.bytes or 0) for point in sized]
    if len(set(sizes)) < 3:
        return None
    axis, text = accuracy_axis(sized)
    log = max(sizes) > 4 * min(sizes)
    scale = make_scale([*sizes, *([budget] if budget else [])], log=log)
    colors = _color_by(sized, "width")
    chart = Chart(Axis("bytes of the ticket", scale, text=format_bytes), axis)
    if budget:
        chart.border(budget, f"budget, {format_bytes(budget)}", "dashed mark")
    front = find_front(sized)
    corners = [(float(point.bytes or 0), _height(point, axis)) for point in front]
    if corners[-1][0] < max(sizes):
        corners.append((max(sizes), corners[-1][1]))
    if len(corners) > 1:
        chart.steps(corners, "ink thin")
    _draw_points(chart, sized, lambda point: float(point.bytes or 0), axis, colors.kind)
    legend = (*colors.legend, ("line ink thin", "no smaller ticket is better"))
    return Figure("bytes", "Accuracy over bytes", chart.svg("accuracy over the bytes of tickets"), text, legend)


def best_over_trials(points: Sequence[Point]) -> Figure | None:
    """Draws the best accuracy so far over the trials."""
    if len(points) < 4:
        return None
    ordered = sorted(points, key=lambda point: point.trial)
    axis, text = accuracy_axis(ordered)
    trials = [float(point.trial) for point in ordered]
    chart = Chart(Axis("trial", make_scale(trials, least=1.0)), axis)
    best = best_so_far([point.accuracy for point in ordered])
    corners = [(trial, max(each, axis.scale.low)) for trial, each in zip(trials, best, strict=True)]
    chart.steps(corners, "s0")
    _draw_points(chart, ordered, lambda point: float(point.trial), axis, lambda point: "grey")
    legend = (("line s0", "the best so far"), ("grey", "a trial"))
    return Figure("best-so-far", "The best so far", chart.svg("best accuracy so far over the trials"), text, legend)


def importance(shares: Mapping[str, float]) -> Figure | None:
    """Draws how much of the differences goes with each hyperparameter."""
    if not shares:
        return None
    rows = [(name, share, f"{100 * share:.0f} %") for name, share in shares.items()]
    text = (
        "The share of the differences in accuracy that goes with each hyperparameter alone, less what chance gives. "
        "Few trials, and two that matter together only, make it uncertain."
    )
    return Figure("importance", "Which hyperparameter mattered", bars(rows, "importance of hyperparameters"), text)


def spread_of_seeds(points: Sequence[Point], most: int = _MOST_ROWS) -> Figure | None:
    """Draws the accuracies of the seeds of the best trials."""
    several = sorted((point for point in points if len(point.accuracies) > 1), key=lambda point: -point.accuracy)
    if not several:
        return None
    shown = several[:most]
    values = [accuracy for point in shown for accuracy in point.accuracies]
    scale = make_scale(values, least=0.005)
    axis = Axis("validation accuracy", scale, text=percent_format(scale))
    labels = {number: f"{point.trial}" for number, point in enumerate(shown)}
    below = Axis("trial, the best first", Scale(-0.6, len(shown) - 0.4), range(len(shown)), lambda x: labels[round(x)])
    chart = Chart(below, axis)
    for number, point in enumerate(shown):
        chart.spread(number, min(point.accuracies), max(point.accuracies), "grey")
        chart.dots([(number, accuracy) for accuracy in point.accuracies], "grey", [point.trial] * len(point.accuracies))
        chart.dots([(number, point.accuracy)], "s0", [point.trial])
    legend = (("s0", "mean of the seeds"), ("grey", "a seed"))
    more = f"The best {len(shown)} of {len(several)} trials." if len(several) > len(shown) else ""
    return Figure("seeds", "The spread over seeds", chart.svg("accuracies of seeds"), more, legend)


def curves(points: Sequence[Point], best: int) -> Figure | None:
    """Draws validation accuracy over the epochs of the best trials. The trial of number `best` is in front."""
    if all(len(point.history) < 2 for point in points):
        return None
    chosen = sorted(points, key=lambda point: (point.trial != best, -point.accuracy))[:_MOST_CURVES]
    axis, text = accuracy_axis(chosen)
    epochs = max(len(point.history) for point in chosen)
    step = max(1, -(-epochs // 8))
    below = Axis("epoch", make_scale([1, epochs], least=1.0), ticks=range(step if step > 1 else 1, epochs + 1, step))
    chart = Chart(below, axis)
    for point in reversed(chosen):
        every = max(1, len(point.history) // 50)
        rows = [*point.history[:-1:every], point.history[-1]]
        line = [(row["epoch"], max(row["val_accuracy"], axis.scale.low)) for row in rows]
        chart.line(line, "best" if point.trial == best else "s0 thin", point.trial)
    more = f"The {len(chosen)} best of {len(points)} trials." if len(chosen) < len(points) else ""
    legend = (("line best", f"trial {best}, the best"), ("line s0 thin", "the other trials"))
    text = f"{more} {text}".strip()
    return Figure("curves", "Learning curves", chart.svg("validation accuracy over epochs"), text, legend)


def layers(point: Point) -> Figure | None:
    """Draws the share of weights that a trial keeps in each layer, unless it is the same in all."""
    shares = [layer.kept / layer.weights for layer in point.layers]
    if len(shares) < 2 or max(shares) - min(shares) < 0.005:
        return None
    rows = [(layer.name, share, f"{100 * share:.1f} %") for layer, share in zip(point.layers, shares, strict=True)]
    return Figure("layers", f"Kept in each layer of trial {point.trial}", bars(rows, "share kept in each layer"))
