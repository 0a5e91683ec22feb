"""The figures of the page about a run."""

from collections.abc import Sequence

from keras_popup.pages import Axis, Chart, Figure, bars, make_scale, percent_format
from keras_popup.records import History, LayerRecord, MaskRecord

_MOST_LINES = 8


def learning_curves(history: History) -> list[Figure]:
    """Draws accuracy and loss over the epochs, of training and validation images."""
    figures = []
    for metric in ("accuracy", "loss"):
        names = [name for name in (metric, f"val_{metric}") if name in history[0]]
        lines = [[row[name] for row in history] for name in names]
        scale = make_scale([value for line in lines for value in line], least=1e-3)
        axis = Axis(metric, scale)
        if metric == "accuracy":
            axis = Axis(metric, scale, text=percent_format(scale))
        chart = Chart(_epochs(history), axis)
        for number, line in enumerate(lines):
            _draw_line(chart, line, f"s{number}")
        legend = (("line s0", "training images"), ("line s1", "validation images"))
        figures.append(
            Figure(metric, metric.capitalize(), chart.svg(f"{metric} over the epochs"), legend=legend[: len(names)])
        )
    return figures


def _epochs(history: History) -> Axis:
    last = len(history)
    step = max(1, -(-last // 8))
    return Axis("epoch", make_scale([1, last], least=1.0), ticks=[*range(step if step > 1 else 1, last + 1, step)])


def _draw_line(chart: Chart, values: Sequence[float], kind: str) -> None:
    points = list(enumerate(values, 1))
    if len(points) > 1:
        chart.line(points, kind)
    if len(points) <= 40:
        chart.dots(points, kind)


def over_epochs(history: History) -> list[Figure]:
    """Draws how the masks changed, where the history has statistics of them."""
    kinds = (
        ("changed", "Share of each mask that changed", "Of the weights of a layer, against the epoch before."),
        ("kept", "Share of weights kept", ""),
        ("dead_outputs", "Output channels without a weight", ""),
    )
    figures = []
    for kind, title, text in kinds:
        names = [name for name in history[-1] if name.endswith(f"/{kind}")]
        lines = {name.removesuffix(f"/{kind}"): [row.get(name, 0.0) for row in history] for name in names}
        if not lines or len(history) < 2:
            continue
        values = [value for line in lines.values() for value in line]
        if kind != "changed" and max(max(line) - min(line) for line in lines.values()) < 1e-6:
            continue  # nothing happens in it
        scale = make_scale([0.0, *values], least=1e-3)
        axis = Axis("", scale) if kind == "dead_outputs" else Axis("", scale, text=percent_format(scale))
        chart = Chart(_epochs(history), axis)
        shown = list(lines)[:_MOST_LINES]
        for number, name in enumerate(shown):
            _draw_line(chart, lines[name], f"s{number}")
        more = f" The first {len(shown)} of {len(lines)} layers." if len(lines) > len(shown) else ""
        legend = tuple((f"line s{number}", name) for number, name in enumerate(shown))
        figures.append(Figure(kind.replace("_", "-"), title, chart.svg(title), f"{text}{more}".strip(), legend))
    return figures


def kept_shares(layers: Sequence[LayerRecord]) -> list[Figure]:
    """Draws the share of weights that each layer keeps, unless it is the same in all."""
    shares = [layer.kept / layer.weights for layer in layers]
    if len(layers) < 2 or max(shares) - min(shares) < 0.005:
        return []
    rows = [(layer.name, share, f"{100 * share:.1f} %") for layer, share in zip(layers, shares, strict=True)]
    title = "Share of weights kept in each layer"
    return [Figure("kept-shares", title, bars(rows, title), wide=len(rows) > 12)]


def scores(masks: Sequence[MaskRecord], most: int = 6) -> list[Figure]:
    """Draws how the scores of the largest kernels are spread."""
    chosen = sorted(masks, key=lambda mask: -mask.weights)[:most]
    figures = []
    for number, mask in enumerate(each for each in masks if each in chosen):
        parts = len(mask.scores_kept)
        edges = [mask.low + (mask.high - mask.low) * place / parts for place in range(parts + 1)]
        tops = [kept + left for kept, left in zip(mask.scores_kept, mask.scores_left_out, strict=True)]
        x = make_scale([mask.low, mask.high], margin=0.02, least=1e-9)
        chart = Chart(Axis("score", x), Axis("weights", make_scale([0, max(tops)], margin=0.0, least=1.0)), height=280)
        kept = [(edges[i], edges[i + 1], 0.0, float(each)) for i, each in enumerate(mask.scores_kept)]
        left = [(edges[i], edges[i + 1], float(mask.scores_kept[i]), float(top)) for i, top in enumerate(tops)]
        chart.columns(kept, "s0")
        chart.columns(left, "left-out")
        title = f"{mask.path}: {mask.kept:,} of {mask.weights:,} kept"
        legend = (("rect s0", "kept"), ("rect left-out", "not kept"))
        figures.append(Figure(f"scores-{number}", title, chart.svg(f"scores of {mask.path}"), legend=legend))
    return figures
