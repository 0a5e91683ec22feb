"""Draws the pictures of docs/results.md."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import trained_masks

from keras_popup._style import INK, MARK, matplotlib_settings
from keras_popup.criteria import CRITERIA, TREATMENTS
from reproduction.results import Results
from reproduction.rows import (
    FRACTIONS,
    FRACTIONS_ON_CIFAR,
    GROUPS,
    IN_30_EPOCHS,
    INITIALIZERS,
    KEPT,
    KEPT_ON_IMAGENET,
    METHODS,
    PAPERS,
    RATES_OF_EDGE_POPUP,
    RESNET34_ON_IMAGENET,
    WIDTHS,
    WIDTHS_OF_KEPT,
    Row,
    fashion,
    fashion_of_kept,
    fashion_seeds,
    narrow_conv4_seeds,
)

_OPTIMIZERS = {"sgd": "SGD", "adam": "Adam"}


def draw_all(results: Results, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with plt.rc_context({**matplotlib_settings(), "axes.grid": True, "axes.grid.axis": "y"}):
        accuracy_over_k(results, folder / "k.png")
        accuracy_over_width(results, folder / "widths.png")
        initializers(results, folder / "initializers.png")
        accuracy_over_depth(results, folder / "depth.png")
        mask_change(results, folder / "mask-change.png")
        supermasks_over_epochs(results, folder / "supermasks.png")
        criteria(results, folder / "criteria.png")


def accuracy_over_k(results: Results, picture: Path) -> None:
    """Draws the dense network in whole and where the methods differ, Conv2 and a narrow Conv4."""
    figure, ((whole, enlarged), (conv2, conv4)) = plt.subplots(2, 2, figsize=(9, 6.5), layout="constrained")
    fashion_curve = {k: results.accuracies(fashion_seeds(k=k)) for k in FRACTIONS}
    for axes in (whole, enlarged):
        _curve(axes, fashion_curve, "edge-popup")
        _level(axes, results.accuracies(fashion_seeds("learned weights")), "learned weights")
        _level(axes, results.best_supermask(), "the best supermask, no k", MARK, ":")
    whole.set(title="Fashion-MNIST, fc", ylabel="test accuracy, %")
    enlarged.set(title="the same, enlarged", ylim=(83, 90.5))
    of_conv2 = {row.config.k: results.accuracies([row]) for row in GROUPS["conv2-15"] if _has_signed_constants(row)}
    _curve(conv2, of_conv2, "edge-popup, one seed")
    conv2.plot(0.5, PAPERS["edge-popup"]["conv2"], "*", color=INK, label="the paper, 100 epochs")
    conv2.set(title="CIFAR-10, Conv2, 15 epochs", ylabel="test accuracy, %", ylim=(50, None))
    _curve(conv4, {k: results.accuracies(narrow_conv4_seeds(k=k)) for k in FRACTIONS_ON_CIFAR}, "edge-popup")
    _level(conv4, results.accuracies(narrow_conv4_seeds("learned weights")), "learned weights")
    conv4.set(title="CIFAR-10, Conv4 of width 0.25, 6 epochs")
    for axes in (whole, conv2, conv4):
        axes.legend(loc="lower center", fontsize=8)
    for axes in (whole, enlarged, conv2, conv4):
        axes.set(xlabel="k, the fraction of weights kept")
    _save(figure, picture)


def accuracy_over_width(results: Results, picture: Path) -> None:
    """Draws the accuracy over the width, at one k and for as many weights, and over the weights kept or learned."""
    figure, ((by_width, by_weights), (of_kept, imagenet)) = plt.subplots(2, 2, figsize=(9, 6.5), layout="constrained")
    by_weights.sharey(by_width)
    for method in ("edge-popup", "learned weights"):
        rows = {width: fashion_seeds(method, width=width) for width in WIDTHS}
        _curve(by_width, {width: results.accuracies(seeds) for width, seeds in rows.items()}, method)
        kept = {width: found[0]["kept"] for width, seeds in rows.items() if (found := results.found(seeds))}
        _curve(by_weights, {kept[width]: results.accuracies(rows[width]) for width in kept}, method)
    by_width.set(xscale="log", xlabel="width", ylabel="test accuracy, %")
    by_width.set_xticks(WIDTHS, [f"{width:g}" for width in WIDTHS])
    by_weights.set(xscale="log", xlabel="weights that are kept, or learned")
    _curve(of_kept, {width: results.accuracies(fashion_of_kept(width)) for width in WIDTHS_OF_KEPT}, "edge-popup")
    of_kept.set(xscale="log", xlabel="width", ylabel="test accuracy, %")
    of_kept.set_xticks(WIDTHS_OF_KEPT, [f"{width:g}" for width in WIDTHS_OF_KEPT])
    for axes in (by_width, by_weights, of_kept):
        axes.minorticks_off()
    best = {KEPT_ON_IMAGENET[row.config.model]: row for row in GROUPS["imagenet"] if _has_signed_constants(row)}
    imagenet.plot(list(best), [row.paper for row in best.values()], "*-", label="edge-popup")
    imagenet.plot(*RESNET34_ON_IMAGENET, "*", label="learned weights")
    for million, row in best.items():
        _name(imagenet, row.config.model, (million, row.paper), (-20, 6))
    _name(imagenet, "resnet34", RESNET34_ON_IMAGENET, (-8, -11))
    by_width.set(title="Fashion-MNIST, fc", ylabel="test accuracy, %")
    by_weights.set(title="the same")
    of_kept.set(title=f"Fashion-MNIST, fc, {KEPT:,} weights kept")
    imagenet.set(title="the paper: ImageNet, k = 0.3", xlabel="million weights", xlim=(5, 26), ylim=(67, 75))
    for axes in (by_width, by_weights, of_kept, imagenet):
        axes.legend(loc="lower right", fontsize=8)
    _save(figure, picture)


def _name(axes: Any, text: str, place: tuple[float, float], shift: tuple[float, float]) -> None:
    axes.annotate(text, place, shift, textcoords="offset points", fontsize=8)


def _has_signed_constants(row: Row) -> bool:
    return row.config.kernel_initializer == "signed_constant"


def initializers(results: Results, picture: Path) -> None:
    """Draws the accuracy of each kind of kernel, and what the paper has on ImageNet."""
    figure, (axes, imagenet) = plt.subplots(1, 2, figsize=(10, 3), layout="constrained", width_ratios=(3, 2))
    for number, rate in enumerate(RATES_OF_EDGE_POPUP):
        values = [results.accuracies(fashion_seeds(kernel_initializer=n, learning_rate=rate)) for n in INITIALIZERS]
        means = [statistics.mean(several) if several else float("nan") for several in values]
        deviations = [statistics.stdev(several) if len(several) > 1 else 0.0 for several in values]
        places = [place + 0.1 * (2 * number - 1) for place in range(len(INITIALIZERS))]
        axes.errorbar(places, means, deviations, fmt="o", capsize=3, label=f"learning rate {rate:g}")
    axes.set_xticks(range(len(INITIALIZERS)), INITIALIZERS, fontsize=8)
    axes.set(title="Fashion-MNIST, fc, k = 0.5", ylabel="test accuracy, %")
    axes.legend(loc="lower left")
    for name in INITIALIZERS:
        if of_it := [row for row in GROUPS["imagenet"] if row.config.kernel_initializer == name]:
            imagenet.plot([row.config.model for row in of_it], [row.paper for row in of_it], "*", label=name)
    imagenet.set(title="the paper: ImageNet, k = 0.3")
    imagenet.margins(x=0.2)
    imagenet.legend(loc="lower right", fontsize=8)
    _save(figure, picture)


def accuracy_over_depth(results: Results, picture: Path) -> None:
    """Draws networks of 2 to 8 convolutions, beside the papers'."""
    models = list(PAPERS["edge-popup"])
    groups = ("conv2-100", "conv2-100-original", "larger", "zhou", "zhou-original")
    rows = [row for group in groups for row in GROUPS[group] if row.paper and results.record(row)]
    in_30_epochs = {model: results.at_30_epochs(model) for model in IN_30_EPOCHS}
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for number, (method, papers) in enumerate(PAPERS.items()):
        style = {"color": f"C{number}", "linestyle": ""}
        shift = 0.06 * (number - 1)
        axes.plot(
            [models.index(model) for model in papers], list(papers.values()), "*:", color=style["color"], label=method
        )
        for row in rows:
            if row.config.method == METHODS[method]["method"]:
                place = models.index(row.config.model) + shift
                axes.plot(place, results.accuracies([row]), marker="o" if row.data else "s", **style)
        for model, of_methods in in_30_epochs.items():
            values = dict(zip(("edge-popup", "supermask", "learned weights"), of_methods, strict=True))[method]
            axes.plot([models.index(model) + shift] * len(values), values, marker="_", **style)
    for marker, label in {
        "*": "the papers",
        "o": "original images",
        "s": "JPEG copy",
        "_": "JPEG copy, 30 epochs",
    }.items():
        axes.plot([], [], marker, color=INK, label=label)
    axes.set_xticks(range(len(models)), [model.capitalize() for model in models])
    axes.set(title="CIFAR-10", ylabel="test accuracy, %")
    axes.legend(loc="lower right", fontsize=8, ncols=2)
    _save(figure, picture)


def mask_change(results: Results, picture: Path) -> None:
    """Draws the share of each mask that an epoch changed, unless no row was run."""
    rows = {
        "edge-popup on Fashion-MNIST": fashion(),
        "supermask, rescaled, on Fashion-MNIST": fashion("supermask rescaled"),
        **{f"edge-popup, {model.capitalize()} on CIFAR-10": GROUPS[f"{model}-30"][0] for model in IN_30_EPOCHS},
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


def supermasks_over_epochs(results: Results, picture: Path) -> None:
    """Draws how supermasks learn by the protocol of Zhou et al., and how random their masks still are."""
    rows = [*GROUPS["zhou"], *GROUPS["zhou-original"]]
    found = [(row, record) for row in rows if (record := results.record(row))]
    if not found:
        return
    figure, (accuracy, randomness) = plt.subplots(1, 2, figsize=(10, 3.5), layout="constrained")
    for number, (row, record) in enumerate(found):
        config = row.config.with_protocol()
        images = "original images" if row.data else "JPEG copy"
        optimizer = f"{_OPTIMIZERS[config.optimizer]} {config.learning_rate:g}" + ", cosine" * (
            config.schedule == "cosine"
        )
        label = f"{config.model.capitalize()}, {optimizer}, {images}"
        style = {"color": f"C{number}", "label": label, "linestyle": "--" if row.data else "-"}
        history, weights = record["history"], {layer["name"]: layer["weights"] for layer in record["layers"]}
        epochs = range(1, record["epochs"] + 1)
        accuracy.plot(epochs, [100 * value for value in history["val_accuracy"]], **style)
        of_layers = [history[f"{name}/randomness"] for name in weights]
        randomness.plot(epochs, np.average(of_layers, axis=0, weights=list(weights.values())), **style)
    for paper in {row.paper for row, _ in found}:
        accuracy.axhline(paper, color=INK, linestyle=":", linewidth=1)
    accuracy.set(xlabel="epoch", ylabel="validation accuracy, %")
    randomness.set(xlabel="epoch", ylabel="mean of 4 p (1 - p)", ylim=(0, 1))
    accuracy.legend(loc="lower right", fontsize=8)
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


def _curve(axes: Any, accuracies: Mapping[float, Sequence[float]], label: str) -> None:
    """Draws means and standard deviations, where there are accuracies."""
    several = {x: values for x, values in accuracies.items() if values}
    means = [statistics.mean(values) for values in several.values()]
    deviations = [statistics.stdev(values) if len(values) > 1 else 0.0 for values in several.values()]
    axes.errorbar(list(several), means, deviations, marker="o", capsize=3, label=label)


def _level(axes: Any, accuracies: Sequence[float], label: str, color: str = INK, line: str = "--") -> None:
    """Draws a mean as a line, where there are accuracies."""
    if accuracies:
        axes.axhline(statistics.mean(accuracies), color=color, linestyle=line, label=label)


def _save(figure: Any, picture: Path) -> None:
    figure.savefig(picture, metadata={"Software": None})
    plt.close(figure)
