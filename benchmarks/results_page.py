"""Makes docs/results.md and its pictures from benchmarks/results/reproduce alone.

python benchmarks/results_page.py
"""

import argparse
import functools
import json
import shlex
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import reproduce
import trained_masks
from reproduce import CHOSEN, FRACTIONS, GROUPS, INITIALIZERS, METHODS, SEEDS, TRIED, TRIED_ON_CIFAR, WIDTHS, Row

from keras_popup.criteria import CRITERIA, TREATMENTS

DOCS = Path(__file__).parent.parent / "docs"
PICTURES = "img/results"

Record = dict[str, Any]


def record(row: Row) -> Record | None:
    return json.loads(row.result.read_text()) if row.result.exists() else None


def accuracies(rows: Iterable[Row], of: str = "test") -> list[float]:
    """Returns the accuracies in percent, of the rows that were run."""
    found = [record(row) for row in rows]
    return [100 * each[of]["accuracy"] for each in found if each and each.get(of)]


def told(rows: Sequence[Row], of: str = "test") -> str:
    """Returns the mean and the standard deviation over the seeds, as far as they were run."""
    values = accuracies(rows, of)
    if not values:
        return "not run"
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{spread}" + (
        f" ({len(values)} of {len(rows)})" if len(values) < len(rows) else ""
    )


def mean(rows: Sequence[Row], of: str = "test") -> float:
    return statistics.mean(accuracies(rows, of) or [float("nan")])


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *lines)) + "\n"


def fashion(method: str = "edge-popup", **arguments: Any) -> list[Row]:
    return [reproduce._fashion(method, seed=seed, **arguments) for seed in SEEDS]


def where(rows: Iterable[Row]) -> str:
    """Says of what data, precision and machine the rows are."""
    found = [each for each in map(record, rows) if each]
    if not found:
        return "None of these rows was run."
    first = found[0]["data"]
    held = f"{first['train']:,} images trained on, {first['validation']:,} for validation, {first['test']:,} tested"
    seeds = sorted({each["config"]["seed"] for each in found})
    parts = [
        sorted({f"{each['config']['dataset']} from {each['source']}" for each in found}),
        [held, f"augmentation {first['augment']}"],
        [f"seed {', '.join(map(str, seeds))}"],
        sorted({each["config"]["precision"] for each in found}),
        sorted({each["machine"] for each in found}),
        [f"TensorFlow {found[0]['versions']['tensorflow']}, Keras {found[0]['versions']['keras']}"],
    ]
    return "*" + "; ".join(", ".join(part) for part in parts) + "*"


def command(group: str) -> str:
    return f"    python benchmarks/reproduce.py --only {group}\n"


def yes(shown: bool | None) -> str:
    return {True: "yes", False: "**no**", None: "not run"}[shown]


def most(values: Iterable[float]) -> float:
    """Returns the largest, or NaN if one of them is not known."""
    several = list(values)
    return float("nan") if any(value != value for value in several) else max(several)


def least(values: Iterable[float]) -> float:
    return -most(-value for value in values)


def compared(first: float, second: float) -> bool | None:
    return None if first != first or second != second else first > second


def rates(model: str, tried: dict[str, Sequence[float]], row: Callable[..., Row]) -> str:
    lines = []
    for method, several in tried.items():
        found = {rate: accuracies([row(method, learning_rate=rate)], "validation") for rate in several}
        done = {rate: values[0] for rate, values in found.items() if values}
        best = max(done, key=lambda rate: done[rate], default=None)
        marked = {rate: f"**{value:.2f}**" if rate == best else f"{value:.2f}" for rate, value in done.items()}
        used = CHOSEN[model][method]
        remark = "" if used == best or best is None else ", which is not the best"
        cells = ", ".join(f"{rate:g}: {marked.get(rate, 'not run')}" for rate in several)
        lines.append((method, cells, f"{used:g}{remark}"))
    return table(("method", "learning rate: validation accuracy in %", "used below"), lines)


def k_curve(picture: Path) -> str:
    by_k = {k: fashion(k=k) for k in FRACTIONS}
    figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
    points = [(k, accuracies(rows)) for k, rows in by_k.items() if accuracies(rows)]
    spread = [statistics.stdev(values) if len(values) > 1 else 0.0 for _, values in points]
    axes.errorbar([k for k, _ in points], [statistics.mean(v) for _, v in points], spread, marker="o", capsize=3)
    for method, style in (("learned weights", "k--"), ("supermask rescaled", "r:")):
        if accuracies(fashion(method)):
            axes.axhline(mean(fashion(method)), 0, 1, color=style[0], linestyle=style[1:], label=method)
    axes.set(xlabel="k, the fraction of weights kept", ylabel="test accuracy, %")
    axes.legend(loc="lower center")
    save(figure, picture)
    return table(("k", "test accuracy, %"), [(f"{k:g}", told(rows)) for k, rows in by_k.items()])


def methods() -> str:
    lines = [(name, told(fashion(name)), told(fashion(name), "test_draws"), kept(fashion(name))) for name in METHODS]
    random = [row for row in GROUPS["methods"] if row.config.method == "random"]
    lines.append(("random mask, untrained, k = 0.5", told(random), "", kept(random)))
    lines = [(name, told, drawn if drawn != "not run" else "", share) for name, told, drawn, share in lines]
    return table(("method", "test accuracy, %", "mean over 10 drawn masks, %", "share kept, %"), lines)


def kept(rows: Iterable[Row]) -> str:
    shares = [100 * each["kept"] / each["weights"] for each in map(record, rows) if each]
    return f"{statistics.mean(shares):.1f}" if shares else ""


def kernels() -> str:
    return table(
        ("kernels", "test accuracy, %"), [(name, told(fashion(kernel_initializer=name))) for name in INITIALIZERS]
    )


def widths(picture: Path) -> str:
    lines = []
    figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
    for method in ("edge-popup", "learned weights"):
        points = [(width, accuracies(fashion(method, width=width))) for width in WIDTHS]
        drawn = [(width, statistics.mean(v), statistics.stdev(v) if len(v) > 1 else 0.0) for width, v in points if v]
        if drawn:
            axes.errorbar(*zip(*drawn, strict=True), marker="o", capsize=3, label=method)
    axes.set(xscale="log", xlabel="width", ylabel="test accuracy, %")
    axes.set_xticks(WIDTHS, [f"{width:g}" for width in WIDTHS])
    axes.legend()
    save(figure, picture)
    for width in WIDTHS:
        edge, learned = fashion(width=width), fashion("learned weights", width=width)
        one = next((each for each in map(record, edge) if each), None)
        count = f"{one['kept']:,} of {one['weights']:,}" if one else ""
        gap = mean(learned) - mean(edge)
        lines.append((f"{width:g}", count, told(edge), told(learned), f"{gap:.2f}" if gap == gap else ""))
    return table(("width", "weights kept, k = 0.5", "edge-popup, %", "learned weights, %", "gap"), lines)


def plain(rows: Iterable[Row]) -> str:
    """A table of single runs."""
    lines = []
    for row in rows:
        each = record(row)
        config = row.config.with_protocol()
        what = config.method + (" rescaled" if config.rescale else "")
        what += f", k = {config.k:g}" if config.method == "edge-popup" else ""
        what += f", {config.kernel_initializer}" if config.method != "dense" else ""
        what += f", width {config.width:g}" if config.width != 1 else ""
        drawn = (
            f" ({100 * each['test_draws']['accuracy']:.2f} over drawn masks)" if each and "test_draws" in each else ""
        )
        lines.append(
            (
                f"{config.model}: {what}",
                f"{config.learning_rate:g}",
                str(config.epochs),
                config.precision,
                f"{100 * each['validation']['accuracy']:.2f}" if each and each["validation"] else "",
                f"{100 * each['test']['accuracy']:.2f}{drawn}" if each else "not run",
                f"{row.paper:g}" if row.paper else "",
            )
        )
    head = ("run", "learning rate", "epochs", "precision", "validation, %", "test accuracy, %", "the paper's, %")
    return table(head, lines)


def mask_change(picture: Path) -> str:
    rows = [
        ("edge-popup on Fashion-MNIST", reproduce._fashion()),
        ("supermask, rescaled, on Fashion-MNIST", reproduce._fashion("supermask rescaled")),
        *[(f"{row.config.model} on CIFAR-10", row) for row in GROUPS["conv2-30"][1:2] + GROUPS["conv4-30"][1:2]],
    ]
    drawn = [(title, each) for title, row in rows if (each := record(row))]
    if not drawn:
        return "Not run.\n"
    figure, several = plt.subplots(1, len(drawn), figsize=(4.2 * len(drawn), 3.3), layout="constrained", squeeze=False)
    for axes, (title, each) in zip(several[0], drawn, strict=True):
        layers = [name.removesuffix("/changed") for name in each["history"][0] if name.endswith("/changed")]
        for layer in layers:
            values = [100 * epoch[f"{layer}/changed"] for epoch in each["history"]]
            axes.plot([epoch["epoch"] for epoch in each["history"]], values, label=layer)
        axes.set(title=title, xlabel="epoch", ylabel="share of the mask that changed, %", yscale="log")
        axes.legend()
    save(figure, picture)
    return f"![Share of each mask that changes in an epoch]({PICTURES}/{picture.name})\n"


def chart_of_criteria(picture: Path) -> str:
    if not trained_masks.RESULT.exists():
        return "Not run.\n"
    rows = json.loads(trained_masks.RESULT.read_text())["rows"]
    figure, several = plt.subplots(1, 3, figsize=(12, 3.5), layout="constrained", sharey=True)
    best: dict[tuple[str, str], tuple[float, float]] = {}
    for axes, treatment in zip(several, TREATMENTS, strict=True):
        for criterion in CRITERIA:
            points = []
            for k in trained_masks.FRACTIONS:
                own = [
                    row for row in rows if (row["criterion"], row["treatment"], row["k"]) == (criterion, treatment, k)
                ]
                values = [100 * row["accuracy"] for row in own]
                spread = statistics.stdev(values) if len(values) > 1 else 0.0
                points.append((k, statistics.mean(values), spread))
            axes.errorbar(*zip(*points, strict=True), marker="o", capsize=3, label=criterion)
            k, value, _ = max(points, key=lambda point: point[1])
            best[criterion, treatment] = value, k
        axes.set(title=f"weights: {treatment}", xlabel="k")
    several[0].set(ylabel="test accuracy, %")
    several[0].legend()
    save(figure, picture)
    lines = [
        (criterion, *[f"{value:.2f} (k = {k:g})" for value, k in (best[criterion, name] for name in TREATMENTS)])
        for criterion in CRITERIA
    ]
    return f"![Accuracy of masked trained networks]({PICTURES}/{picture.name})\n\n" + table(
        ("best over k", *TREATMENTS), lines
    )


def save(figure: Any, picture: Path) -> None:
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, metadata={"Software": None})
    plt.close(figure)


def claims() -> str:
    edge, masks = fashion(), [fashion(name) for name in METHODS if name.startswith("supermask")]
    best_mask = most(mean(rows, of) for rows in masks for of in ("test", "test_draws"))
    middle = [mean(fashion(k=k)) for k in (0.3, 0.5, 0.7)]
    outer = [mean(fashion(k=k)) for k in FRACTIONS if not 0.3 <= k <= 0.7]
    by_kernel = [mean(fashion(kernel_initializer=name)) for name in INITIALIZERS]
    gaps = [mean(fashion("learned weights", width=width)) - mean(fashion(width=width)) for width in WIDTHS]
    edge_100, learned_100 = (accuracies([row]) for row in GROUPS["conv2-100"][:2])
    cifar = {
        model: (
            most(mean([row]) for row in GROUPS[f"{model}-30"][:2]),
            *[mean([row]) for row in GROUPS[f"{model}-30"][2:]],
        )
        for model in ("conv2", "conv4")
    }
    lines = [
        (
            "edge-popup, k in [0.3, 0.7], beats the supermask: Fashion-MNIST",
            f"{least(middle):.2f} and more; {best_mask:.2f} at best",
            yes(compared(least(middle), best_mask)),
        ),
        *[
            (f"the same: {model} on CIFAR-10, 30 epochs", f"{found[0]:.2f}; {found[1]:.2f}", yes(compared(*found[:2])))
            for model, found in cifar.items()
        ],
        (
            "within 2 points of the same network with learned weights: Fashion-MNIST",
            f"{mean(edge):.2f}; {mean(fashion('learned weights')):.2f}",
            yes(compared(mean(edge) + 2, mean(fashion("learned weights")))),
        ),
        (
            "the same: Conv2 on CIFAR-10, 100 epochs, by the paper's protocol",
            "; ".join(f"{value:.2f}" for value in [*edge_100, *learned_100]),
            yes(compared(edge_100[0] + 2, learned_100[0]) if edge_100 and learned_100 else None),
        ),
        (
            "that run reaches the paper's 77.7 %",
            "; ".join(f"{value:.2f}" for value in edge_100),
            yes(edge_100[0] >= GROUPS["conv2-100"][0].paper if edge_100 else None),
        ),
        (
            "the gap to learned weights closes with width: Fashion-MNIST",
            " → ".join(f"{gap:.2f}" for gap in gaps),
            yes(compared(gaps[0], gaps[-1])),
        ),
        (
            "the gap closes with depth: Conv2, Conv4, 30 epochs",
            " → ".join(f"{found[2] - found[0]:.2f}" for found in cifar.values()),
            yes(compared(*[found[2] - found[0] for found in cifar.values()])),
        ),
        (
            "over k an inverted U, its top in [0.3, 0.7]: Fashion-MNIST",
            f"{most(middle):.2f} at most inside; {most(outer):.2f} outside",
            yes(compared(most(middle), most(outer))),
        ),
        (
            "signed constants beat Kaiming normal: Fashion-MNIST",
            f"{by_kernel[0]:.2f}; {by_kernel[1]:.2f}",
            yes(compared(by_kernel[0], by_kernel[1])),
        ),
        (
            "both beat the other kernels: Fashion-MNIST",
            "; ".join(f"{value:.2f}" for value in by_kernel),
            yes(compared(least(by_kernel[:2]), most(by_kernel[2:]))),
        ),
    ]
    return table(
        ("claim", "test accuracy, %", "seen here"),
        [tuple(cell.replace("nan", "not run") for cell in line) for line in lines],
    )


def not_run() -> str:
    rows = {row.name: row for members in GROUPS.values() for row in members if not row.result.exists()}
    lines = []
    for row in rows.values():
        paper = f" (the paper: {row.paper:g} %)" if row.paper else ""
        lines.append(f"- {row.name}{paper}:\n\n      keras-popup {shlex.join(row.command({}))}")
    return "\n".join(lines) + "\n"


def page(pictures: Path) -> str:
    """Returns the text, and draws the pictures into a folder."""
    text = (Path(__file__).parent / "results_page.md").read_text()
    of_fashion = [row for group in ("k-curve", "methods", "initializers", "widths") for row in GROUPS[group]]
    parts = {
        "claims": claims(),
        "where_fashion": where(of_fashion),
        "rates": rates("fc", TRIED, reproduce._fashion),
        **{
            f"rates_{model}": rates(model, TRIED_ON_CIFAR, functools.partial(reproduce._cifar, model, epochs=5))
            for model in ("conv2", "conv4")
        },
        "k_curve": k_curve(pictures / "k.png"),
        "methods": methods(),
        "kernels": kernels(),
        "widths": widths(pictures / "widths.png"),
        "conv_30": plain([*GROUPS["conv2-30"], *GROUPS["conv4-30"], *GROUPS["float32"]]),
        "where_30": where([*GROUPS["conv2-30"], *GROUPS["conv4-30"], *GROUPS["float32"]]),
        "conv2_100": plain(GROUPS["conv2-100"]),
        "where_100": where(GROUPS["conv2-100"]),
        "conv2_15": plain(GROUPS["conv2-15"]),
        "where_15": where(GROUPS["conv2-15"]),
        "larger": plain(GROUPS["larger"]),
        "imagenet": plain(GROUPS["imagenet"]),
        "mask_change": mask_change(pictures / "mask-change.png"),
        "criteria": chart_of_criteria(pictures / "criteria.png"),
        "not_run": not_run(),
        "pictures": PICTURES,
    }
    return text.format(**parts)


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    (DOCS / "results.md").write_text(page(DOCS / PICTURES))


if __name__ == "__main__":
    main()
