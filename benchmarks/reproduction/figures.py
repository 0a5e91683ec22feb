"""Draws the pictures of docs/results.md."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import trained_masks

from keras_popup.criteria import CRITERIA, TREATMENTS
from reproduction.results import Results
from reproduction.rows import FRACTIONS, GROUPS, TRIED_ON_CIFAR, WIDTHS, fashion, fashion_seeds


def draw_all(results: Results, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    accuracy_over_k(results, folder / "k.png")
    accuracy_over_width(results, folder / "widths.png")
    mask_change(results, folder / "mask-change.png")
    criteria(results, folder / "criteria.png")


def accuracy_over_k(results: Results, picture: Path) -> None:
    figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
    _curve(axes, {k: results.accuracies(fashion_seeds(k=k)) for k in FRACTIONS}, "edge-popup")
    others = {
        "learned weights": results.accuracies(fashion_seeds("learned weights")),
        "the best supermask, no k": results.best_supermask(),
    }
    for (label, values), (color, line) in zip(others.items(), (("k", "--"), ("r", ":")), strict=True):
        if values:
            axes.axhline(statistics.mean(values), color=color, linestyle=line, label=label)
    axes.set(xlabel="k, the fraction of weights kept", ylabel="test accuracy, %")
    axes.legend(loc="lower center")
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
    size = (4.2 * len(histories), 3.3)
    figure, several = plt.subplots(1, len(histories), figsize=size, layout="constrained", squeeze=False, sharey=True)
    for axes, (title, history) in zip(several[0], histories.items(), strict=True):
        for name, shares in history.items():
            if name.endswith("/changed"):
                percent = [100 * share for share in shares]
                axes.plot(range(1, len(shares) + 1), percent, marker=".", label=name.removesuffix("/changed"))
        axes.set(title=title, xlabel="epoch")
        axes.set_yscale("log", nonpositive="mask")
        axes.legend()
    several[0][0].set(ylabel="share of the mask that changed, %")
    _save(figure, picture)


def criteria(results: Results, picture: Path) -> None:
    """Draws the accuracies of masked trained networks, unless there are none."""
    if not results.masked:
        return
    figure, several = plt.subplots(1, len(TREATMENTS), figsize=(12, 3.5), layout="constrained", sharey=True)
    for axes, treatment in zip(several, TREATMENTS, strict=True):
        for criterion in CRITERIA:
            by_k = {k: results.masked_networks(criterion, treatment, k) for k in trained_masks.FRACTIONS}
            _curve(axes, by_k, criterion)
        axes.set(title=f"weights: {treatment}", xlabel="k")
    several[0].set(ylabel="test accuracy, %")
    several[0].legend()
    _save(figure, picture)


def _curve(axes: Any, accuracies: Mapping[float, Sequence[float]], label: str) -> None:
    """Draws means and standard deviations, where there are accuracies."""
    several = {x: values for x, values in accuracies.items() if values}
    means = [statistics.mean(values) for values in several.values()]
    deviations = [statistics.stdev(values) if len(values) > 1 else 0.0 for values in several.values()]
    axes.errorbar(list(several), means, deviations, marker="o", capsize=3, label=label)


def _save(figure: Any, picture: Path) -> None:
    figure.savefig(picture, metadata={"Software": None})
    plt.close(figure)
