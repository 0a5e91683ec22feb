"""Draws the pictures of docs/results.md."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import trained_masks

from keras_popup._style import INK, MARK, matplotlib_settings
from keras_popup.criteria import CRITERIA, TREATMENTS
from reproduction.results import Results
from reproduction.rows import FRACTIONS, GROUPS, TRIED_ON_CIFAR, WIDTHS, fashion, fashion_seeds


def draw_all(results: Results, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with plt.rc_context({**matplotlib_settings(), "axes.grid": True, "axes.grid.axis": "y"}):
        accuracy_over_k(results, folder / "k.png")
        accuracy_over_width(results, folder / "widths.png")
        mask_change(results, folder / "mask-change.png")
        criteria(results, folder / "criteria.png")


def accuracy_over_k(results: Results, picture: Path) -> None:
    figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
    by_k = {k: results.accuracies(fashion_seeds(k=k)) for k in FRACTIONS}
    _curve(axes, by_k, "edge-popup")
    others = {
        "learned weights": results.accuracies(fashion_seeds("learned weights")),
        "the best supermask, no k": results.best_supermask(),
    }
    for (label, values), (color, line) in zip(others.items(), ((INK, "--"), (MARK, ":")), strict=True):
        if values:
            axes.axhline(statistics.mean(values), color=color, linestyle=line, label=label)
    axes.set(xlabel="k, the fraction of weights kept", ylabel="test accuracy, %")
    _cut_foot(axes, {k: statistics.mean(values) for k, values in by_k.items() if values})
    axes.legend(loc="lower center", bbox_to_anchor=(0.45, 0.1))
    _save(figure, picture)


def accuracy_over_width(results: Results, picture: Path) -> None:
    figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
    for method in ("edge-popup", "learned weights"):
        _curve(axes, {width: results.accuracies(fashion_seeds(method, width=width)) for width in WIDTHS}, method)
    axes.set(xscale="log", xlabel="width", ylabel="test accuracy, %")
    axes.set_xticks(WIDTHS, [f"{width:g}" for width in WIDTHS])
    axes.minorticks_off()
    axes.legend()
    _save(figure, picture)


def mask_change(results: Results, picture: Path) -> None:
    """Draws the share of each mask that an epoch changed, unless no row was run."""
    rows = {
        "edge-popup on Fashion-MNIST": fashion(),
        "supermask, rescaled, on Fashion-MNIST": fashion("supermask rescaled"),
        **{f"edge-popup, {model.capitalize()} on CIFAR-10": GROUPS[f"{model}-30"][0] for model in TRIED_ON_CIFAR},
    }
    histories = {title: record["history"] for title, row in rows.items() if (record := results.record(row))}
    if not histories:
        return
    rows_of_axes = -(-len(histories) // 2)
    size = (8.6, 3.1 * rows_of_axes)
    figure, several = plt.subplots(rows_of_axes, 2, figsize=size, layout="constrained", squeeze=False, sharey=True)
    for axes in several.ravel()[len(histories) :]:
        axes.remove()
    for axes, (title, history) in zip(several.ravel(), histories.items(), strict=False):
        for name, shares in history.items():
            if name.endswith("/changed"):
                percent = [100 * share for share in shares]
                axes.plot(range(1, len(shares) + 1), percent, marker=".", label=name.removesuffix("/changed"))
        axes.set(title=title, xlabel="epoch")
        axes.set_yscale("log", nonpositive="mask")
        axes.legend()
    for first in several[:, 0]:
        first.set(ylabel="share of the mask that changed, %")
    _save(figure, picture)


def criteria(results: Results, picture: Path) -> None:
    """Draws the accuracies of masked trained networks, unless there are none."""
    if not results.masked:
        return
    figure, several = plt.subplots(1, len(TREATMENTS), figsize=(10, 3.4), layout="constrained", sharey=True)
    for axes, treatment in zip(several, TREATMENTS, strict=True):
        for criterion in CRITERIA:
            by_k = {k: results.masked_networks(criterion, treatment, k) for k in trained_masks.FRACTIONS}
            _curve(axes, by_k, criterion)
        axes.set(title=f"weights: {treatment}", xlabel="k")
    several[0].set(ylabel="test accuracy, %")
    several[0].legend()
    _save(figure, picture)


def _cut_foot(axes: Any, means: Mapping[float, float]) -> None:
    """Lets the axis begin where most of the points are, and says what is below it."""
    if len(means) < 4:
        return
    ordered = sorted(means.values())
    foot = ordered[-1] - 4 * (ordered[-1] - ordered[len(ordered) // 2])
    below = {k: mean for k, mean in means.items() if mean < foot}
    if not below:
        return
    axes.set_ylim(bottom=foot)
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
    for number, (k, mean) in enumerate(below.items()):
        text, right = f"{mean:.0f} % at k = {k:g} ↓", k > 0.5
        place = {"xytext": (-4 if right else 4, 6 + 13 * number), "ha": "right" if right else "left"}
        axes.annotate(text, (k, foot), textcoords="offset points", color=INK, fontsize=8.5, bbox=box, **place)


def _curve(axes: Any, accuracies: Mapping[float, Sequence[float]], label: str) -> None:
    """Draws means and standard deviations, where there are accuracies."""
    several = {x: values for x, values in accuracies.items() if values}
    means = [statistics.mean(values) for values in several.values()]
    deviations = [statistics.stdev(values) if len(values) > 1 else 0.0 for values in several.values()]
    axes.errorbar(list(several), means, deviations, marker="o", capsize=3, label=label)


def _save(figure: Any, picture: Path) -> None:
    figure.savefig(picture, metadata={"Software": None})
    plt.close(figure)
