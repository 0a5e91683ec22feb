"""Makes docs/results.md and its pictures from the files in benchmarks/results alone.

python benchmarks/results_page.py
"""

import argparse
import dataclasses
import functools
import itertools
import json
import math
import shlex
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import reproduce
import trained_masks
from reproduce import (
    CHOSEN,
    FRACTIONS,
    GROUPS,
    INITIALIZERS,
    METHODS,
    RATES_OF_EDGE_POPUP,
    SEEDS,
    TRIED,
    TRIED_ON_CIFAR,
    WIDTHS,
    Row,
)

from keras_popup.criteria import CRITERIA, TREATMENTS
from keras_popup.training import given

DOCS = Path(__file__).parent.parent / "docs"
PICTURES = "img/results"
OF_ONE_SEED = 1.0
"""The difference in points that two single runs must have to be told apart.

Two standard errors, of networks that are right about another image in 25 % of 10,000: 2 sqrt(0.25 / 10,000).
"""

Record = dict[str, Any]


def record(row: Row) -> Record | None:
    """Returns the result of a row, if it was run and the loss stayed finite."""
    found = json.loads(row.result.read_text()) if row.result.exists() else None
    return None if found and found.get("diverged") else found


def absent(row: Row) -> str:
    """Says why a row has no result."""
    return "diverged" if row.result.exists() else "not run"


def accuracies(rows: Iterable[Row], of: str = "test") -> list[float]:
    """Returns the accuracies in percent, of the rows that were run."""
    found = [record(row) for row in rows]
    return [100 * each[of]["accuracy"] for each in found if each and each.get(of)]


def told(rows: Sequence[Row], of: str = "test") -> str:
    """Returns the mean and the standard deviation over the seeds, as far as they were run."""
    values = accuracies(rows, of)
    if not values:
        return absent(rows[0])
    return spread(values) + (f" ({len(values)} of {len(rows)})" if len(values) < len(rows) else "")


def spread(values: Sequence[float]) -> str:
    if not values:
        return "no result"
    return f"{statistics.mean(values):.2f}" + (f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else "")


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
    held = {
        f"{data['train']:,} images trained on, {data['validation']:,} for validation, {data['test']:,} tested; "
        f"augmentation {data['augment']}"
        for data in (each["data"] for each in found)
    }
    seeds = sorted({each["config"]["seed"] for each in found})
    parts = [
        sorted({f"{each['config']['dataset']} from {each['source']}" for each in found}),
        sorted(held),
        [f"seed {', '.join(map(str, seeds))}"],
        sorted({each["config"]["precision"] for each in found}),
        sorted({f"{each['machine']}, on {', '.join(each['devices']['names'])}" for each in found}),
        sorted({f"TensorFlow {each['versions']['tensorflow']}, Keras {each['versions']['keras']}" for each in found}),
    ]
    took = f"up to {max(each['seconds'] for each in found) / 60:.0f} minutes a run, beside other work"
    return "*" + "; ".join([*(", ".join(part) for part in parts), took]) + "*"


def verdict(first: Sequence[float], second: Sequence[float], margin: float = 0.0) -> str:
    """Says whether the first accuracies are better than the second less a margin, in points."""
    return above_0(average(first) + margin - average(second), first, second)


def above_0(difference: float, *runs: Sequence[float]) -> str:
    """Says whether a sum and difference of mean accuracies is more than 0.

    It tells nothing if it is less than two of its standard errors, or, of single seeds, than `OF_ONE_SEED` if it is of
    two runs.
    """
    if not all(runs):
        return "no result"
    least = OF_ONE_SEED * math.sqrt(len(runs) / 2)
    if all(len(values) > 1 for values in runs):
        least = 2 * math.sqrt(sum(statistics.variance(values) / len(values) for values in runs))
    return "not told apart" if abs(difference) < least else yes(difference > 0)


def rises(several: Sequence[Sequence[float]]) -> str:
    """Says whether accuracies rise at each step."""
    return worst(verdict(later, earlier) for earlier, later in itertools.pairwise(several))


def closes(pairs: Sequence[tuple[Sequence[float], Sequence[float]]]) -> str:
    """Says whether the second accuracies are ahead of the first by less at each step.

    It tells nothing if the first are ahead: then the second are no measure of what there is to reach.
    """
    if any(verdict(first, second) == "yes" for first, second in pairs):
        return "not told apart"
    return worst(
        above_0(behind(*earlier) - behind(*later), *earlier, *later) for earlier, later in itertools.pairwise(pairs)
    )


def behind(first: Sequence[float], second: Sequence[float]) -> float:
    return average(second) - average(first)


def worst(verdicts: Iterable[str]) -> str:
    found = list(verdicts)
    return next(each for each in ("no result", "**no**", "not told apart", "yes") if each in found)


def yes(shown: bool) -> str:
    return "yes" if shown else "**no**"


def complete(rows: Sequence[Row], of: str = "test") -> list[float]:
    """Returns the accuracies in percent if there is one of every row, and none otherwise."""
    found = accuracies(rows, of)
    return found if len(found) == len(rows) else []


def best_supermask() -> list[float]:
    """Returns the accuracies on Fashion-MNIST, in percent, of the variant and the way of testing that are best."""
    variants = [fashion(name) for name in METHODS if name.startswith("supermask")]
    return best_of(complete(rows, of) for rows in variants for of in ("test", "test_draws"))


def average(values: Sequence[float]) -> float:
    return statistics.mean(values) if values else math.nan


def best_of(several: Iterable[list[float]]) -> list[float]:
    """Returns those of the highest mean; none, if some were not run."""
    found = list(several)
    return max(found, key=statistics.mean) if all(found) else []


def rates(model: str, tried: dict[str, Sequence[float]], row: Callable[..., Row]) -> str:
    lines = []
    for method, several in tried.items():
        found = {rate: accuracies([row(method, learning_rate=rate)], "validation") for rate in several}
        done = {rate: values[0] for rate, values in found.items() if values}
        best = max(done, key=lambda rate: done[rate], default=None)
        marked = {rate: f"**{value:.2f}**" if rate == best else f"{value:.2f}" for rate, value in done.items()}
        used = CHOSEN[model][method]
        remark = "" if used == best else ", which is not the best"
        tried_all = all(row(method, learning_rate=rate).result.exists() for rate in several)
        if tried_all and best in (several[0], several[-1]):
            remark += "; the best is at the end of those tried"
        cells = [f"{rate:g}: {marked.get(rate) or absent(row(method, learning_rate=rate))}" for rate in several]
        lines.append((method, ", ".join(cells), f"{used:g}{remark}" if done else "not chosen yet"))
    return table(("method", "learning rate: validation accuracy in %", "used below"), lines)


def k_curve(picture: Path) -> str:
    by_k = {k: fashion(k=k) for k in FRACTIONS}
    figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
    curve(axes, {k: accuracies(rows) for k, rows in by_k.items()}, "edge-popup")
    others = {"learned weights": accuracies(fashion("learned weights")), "the best supermask, no k": best_supermask()}
    for (label, found), style in zip(others.items(), ("k--", "r:"), strict=True):
        if found:
            axes.axhline(statistics.mean(found), 0, 1, color=style[0], linestyle=style[1:], label=label)
    axes.set(xlabel="k, the fraction of weights kept", ylabel="test accuracy, %")
    axes.legend(loc="lower center")
    save(figure, picture)
    return table(("k", "test accuracy, %"), [(f"{k:g}", told(rows)) for k, rows in by_k.items()])


def curve(axes: Any, found: dict[float, list[float]], label: str | None = None) -> None:
    """Draws means and standard deviations of accuracies, where there are some."""
    several = {x: values for x, values in found.items() if values}
    means = [statistics.mean(values) for values in several.values()]
    deviations = [statistics.stdev(values) if len(values) > 1 else 0.0 for values in several.values()]
    axes.errorbar(list(several), means, deviations, marker="o", capsize=3, label=label)


def methods() -> str:
    several = {name: fashion(name) for name in METHODS}
    several["random mask, untrained, k = 0.5"] = [row for row in GROUPS["methods"] if row.config.method == "random"]
    lines = []
    for name, rows in several.items():
        drawn = told(rows, "test_draws") if accuracies(rows, "test_draws") else ""
        lines.append((name, told(rows), drawn, kept(rows)))
    return table(("method", "test accuracy, %", "mean over 10 drawn masks, %", "share kept, %"), lines)


def kept(rows: Iterable[Row]) -> str:
    shares = [100 * each["kept"] / each["weights"] for each in map(record, rows) if each]
    return f"{statistics.mean(shares):.1f}" if shares else ""


def kernels() -> str:
    rates = [f"test accuracy, %, at {rate:g}" for rate in RATES_OF_EDGE_POPUP]
    return table(
        ("kernels", *rates),
        [
            (name, *[told(fashion(kernel_initializer=name, learning_rate=rate)) for rate in RATES_OF_EDGE_POPUP])
            for name in INITIALIZERS
        ],
    )


def widths(picture: Path) -> str:
    lines = []
    figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
    for method in ("edge-popup", "learned weights"):
        curve(axes, {width: accuracies(fashion(method, width=width)) for width in WIDTHS}, method)
    axes.set(xscale="log", xlabel="width", ylabel="test accuracy, %")
    axes.set_xticks(WIDTHS, [f"{width:g}" for width in WIDTHS])
    axes.minorticks_off()
    axes.legend()
    save(figure, picture)
    for width in WIDTHS:
        edge, learned = fashion(width=width), fashion("learned weights", width=width)
        one = next((each for each in map(record, edge) if each), None)
        count = f"{one['kept']:,} of {one['weights']:,}" if one else ""
        gap = behind(complete(edge), complete(learned))
        lines.append((f"{width:g}", count, told(edge), told(learned), "" if math.isnan(gap) else f"{gap:.2f}"))
    return table(("width", "weights kept, k = 0.5", "edge-popup, %", "learned weights, %", "gap"), lines)


def plain(rows: Iterable[Row]) -> str:
    """A table of single runs."""
    lines = []
    for row in rows:
        each = record(row)
        config = row.config.with_protocol()
        what = "learned weights" if config.method == "dense" else config.method
        what += " rescaled" if config.rescale else ""
        what += f", k = {config.k:g}" if config.method == "edge-popup" else ""
        what += f", {config.kernel_initializer}" if config.method != "dense" else ""
        what += f", width {config.width:g}" if config.width != 1 else ""
        what += f", warmup_epochs = {config.warmup_epochs:g}" if row.config.warmup_epochs else ""
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
                f"{100 * each['test']['accuracy']:.2f}{drawn}" if each else absent(row),
                ("≈ " if config.method == "dense" else "") + f"{row.paper:g}" if row.paper else "",
            )
        )
    head = ("run", "learning rate", "epochs", "precision", "validation, %", "test accuracy, %", "the paper's, %")
    return table(head, lines)


def precision() -> str:
    """Says what mixed_bfloat16 costs, by the pairs of runs that differ in nothing else."""
    said = []
    for row in GROUPS["float32"]:
        mixed = Row(dataclasses.replace(row.config, precision="mixed_bfloat16"))
        difference = behind(complete([row]), complete([mixed]))
        which = "learned weights" if row.config.method == "dense" else row.config.method
        points = "not run" if math.isnan(difference) else f"{difference:+.2f} points"
        said.append(f"{which}, {row.config.epochs} epochs: {points}")
    return f"Conv2 in mixed_bfloat16 against float32, all else the same: {'; '.join(said)}.\n"


def mask_change(picture: Path) -> str:
    rows = [
        ("edge-popup on Fashion-MNIST", reproduce._fashion()),
        ("supermask, rescaled, on Fashion-MNIST", reproduce._fashion("supermask rescaled")),
        *[(f"edge-popup, {model.capitalize()} on CIFAR-10", GROUPS[f"{model}-30"][0]) for model in TRIED_ON_CIFAR],
    ]
    drawn = [(title, each) for title, row in rows if (each := record(row))]
    if not drawn:
        return "Not run.\n"
    size = (4.2 * len(drawn), 3.3)
    figure, several = plt.subplots(1, len(drawn), figsize=size, layout="constrained", squeeze=False, sharey=True)
    for axes, (title, each) in zip(several[0], drawn, strict=True):
        layers = [name.removesuffix("/changed") for name in each["history"][0] if name.endswith("/changed")]
        for layer in layers:
            values = [100 * epoch[f"{layer}/changed"] for epoch in each["history"]]
            axes.plot([epoch["epoch"] for epoch in each["history"]], values, marker=".", label=layer)
        axes.set(title=title, xlabel="epoch")
        axes.set_yscale("log", nonpositive="mask")
        axes.legend()
    several[0][0].set(ylabel="share of the mask that changed, %")
    save(figure, picture)
    return f"![Share of each mask that changes in an epoch]({PICTURES}/{picture.name})\n"


def chart_of_criteria(picture: Path) -> str:
    if not trained_masks.RESULT.exists():
        return "Not run.\n"
    figure, several = plt.subplots(1, 3, figsize=(12, 3.5), layout="constrained", sharey=True)
    at_half: dict[tuple[str, str], str] = {}
    for axes, treatment in zip(several, TREATMENTS, strict=True):
        for criterion in CRITERIA:
            found = {k: masked_networks(criterion, treatment, k) for k in trained_masks.FRACTIONS}
            curve(axes, found, criterion)
            at_half[criterion, treatment] = spread(found[0.5])
        axes.set(title=f"weights: {treatment}", xlabel="k")
    several[0].set(ylabel="test accuracy, %")
    several[0].legend()
    save(figure, picture)
    lines = [(criterion, *[at_half[criterion, name] for name in TREATMENTS]) for criterion in CRITERIA]
    return f"![Accuracy of masked trained networks]({PICTURES}/{picture.name})\n\n" + table(
        ("k = 0.5", *TREATMENTS), lines
    )


def save(figure: Any, picture: Path) -> None:
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, metadata={"Software": None})
    plt.close(figure)


def claims() -> str:
    edge, learned = complete(fashion()), complete(fashion("learned weights"))
    mask = best_supermask()
    by_k = {k: complete(fashion(k=k)) for k in FRACTIONS}
    over_k = list(by_k.values())
    averages = [average(values) for values in over_k]
    top = averages.index(max(averages))
    middle = (0.3, 0.5, 0.7)
    by_width = [(complete(fashion(width=width)), complete(fashion("learned weights", width=width))) for width in WIDTHS]
    doubled = {
        narrow: (complete(fashion(width=wide)), complete(fashion("learned weights", width=narrow)))
        for narrow, wide in itertools.pairwise(WIDTHS)
    }
    plain_mask, rescaled_mask = (complete(fashion(f"supermask{how}"), "test_draws") for how in ("", " rescaled"))
    copy, original = ([complete([row]) for row in GROUPS[group]] for group in ("conv2-100", "conv2-100-original"))
    paper = GROUPS["conv2-100"][0].paper
    at_30 = {model: at_30_epochs(model) for model in TRIED_ON_CIFAR}
    by_depth = [(edge, dense) for edge, _, dense in at_30.values()]
    constant_15, normal_15 = (
        {row.config.k: complete([row]) for row in GROUPS["conv2-15"] if row.config.kernel_initializer == name}
        for name in INITIALIZERS[:2]
    )
    of_zhou = {"conv2": 66.0, "conv4": 72.5}
    of_criteria = {name: masked_networks(name, "signed_constant", 0.5) for name in CRITERIA}
    lines = [
        (
            "edge-popup beats the supermask, k from 0.3 to 0.7: Fashion-MNIST",
            "; ".join(f"k = {k}: {spread(by_k[k])}" for k in middle) + f"; the best supermask {spread(mask)}",
            worst(verdict(by_k[k], mask) for k in middle),
        ),
        *[
            (
                f"the same, k = 0.5: {model.capitalize()} on CIFAR-10, 30 epochs, one seed",
                f"edge-popup {spread(edge)}; supermask rescaled {spread(mask)} (Zhou et al. report {of_zhou[model]})",
                worst(verdict(edge, other) for other in (mask, [of_zhou[model]])),
            )
            for model, (edge, mask, _) in at_30.items()
        ],
        (
            "edge-popup is within 2 points of learned weights: Fashion-MNIST",
            f"edge-popup {spread(edge)}; learned weights {spread(learned)}",
            verdict(edge, learned, margin=2),
        ),
        *[
            (
                f"the same: Conv2 on {data}, the paper's protocol of 100 epochs, one seed",
                f"edge-popup {spread(edge)}; learned weights {spread(learned)}",
                verdict(edge, learned, margin=2),
            )
            for data, (edge, learned, *_) in (("CIFAR-10", copy), ("the original CIFAR-10", original))
        ],
        (
            f"that run reaches the paper's {paper:g} %",
            f"original {spread(original[0])}; JPEG copy {spread(copy[0])}, at a learning rate of 0.5 {spread(copy[2])}",
            yes(average(original[0]) >= given(paper)) if original[0] else "no result",
        ),
        (
            "the gap to learned weights closes with width: Fashion-MNIST",
            "; ".join(f"width {width:g}: {behind(*pair):.2f}" for width, pair in zip(WIDTHS, by_width, strict=True)),
            closes(by_width),
        ),
        (
            "half of a network twice as wide is within 0.5 points of learned weights, if both are wide: Fashion-MNIST",
            "; ".join(
                f"width {2 * narrow:g} against {narrow:g}: {average(wide) - average(dense):+.2f}"
                for narrow, (wide, dense) in doubled.items()
            ),
            verdict(*doubled[WIDTHS[-2]], margin=0.5),
        ),
        (
            "the gap closes with depth: CIFAR-10, 30 epochs, one seed",
            "; ".join(
                f"{model.capitalize()}: {behind(*pair):.2f}" for model, pair in zip(at_30, by_depth, strict=True)
            ),
            closes(by_depth),
        ),
        (
            "accuracy rises with k to a top in 0.3 to 0.7 and falls again: Fashion-MNIST",
            "; ".join(f"{k:g}: {each:.2f}" for k, each in zip(FRACTIONS, averages, strict=True)),
            worst([rises(over_k[: top + 1]), rises(over_k[top:][::-1]), yes(FRACTIONS[top] in middle)]),
        ),
        (
            "k from 0.3 to 0.7 is better than 0.1 and 0.9: Conv2 on CIFAR-10, 15 epochs, one seed",
            "; ".join(f"{k:g}: {spread(each)}" for k, each in constant_15.items()),
            worst(verdict(constant_15[k], constant_15[outer]) for k in middle for outer in (0.1, 0.9)),
        ),
        better_kernels("signed_constant", "kaiming_normal"),
        (
            "kernels: signed_constant beats kaiming_normal: Conv2 on CIFAR-10, 15 epochs, one seed",
            f"{spread(constant_15[0.5])}; {spread(normal_15[0.5])}",
            verdict(constant_15[0.5], normal_15[0.5]),
        ),
        better_kernels("kaiming_normal", "kaiming_uniform"),
        better_kernels("kaiming_normal", "xavier_normal"),
        (
            "Zhou et al.: rescaling makes a supermask better: Fashion-MNIST",
            f"rescaled {spread(rescaled_mask)}; not {spread(plain_mask)} (means over drawn masks)",
            verdict(rescaled_mask, plain_mask),
        ),
        (
            "Zhou et al.: of untrained signed constants, `large_final_same_sign` is a better mask than `large_final`, "
            "k = 0.5: Fashion-MNIST",
            f"{spread(of_criteria['large_final_same_sign'])}; {spread(of_criteria['large_final'])}",
            verdict(of_criteria["large_final_same_sign"], of_criteria["large_final"]),
        ),
    ]
    return table(
        ("claim", "test accuracy or difference, %", "seen here"),
        [
            tuple(cell.replace(": +nan", ": no result").replace(": nan", ": no result") for cell in line)
            for line in lines
        ],
    )


def better_kernels(better: str, worse: str) -> tuple[str, str, str]:
    """Returns the line of a claim on kernels, on Fashion-MNIST at both learning rates."""
    found = {
        rate: [complete(fashion(kernel_initializer=name, learning_rate=rate)) for name in (better, worse)]
        for rate in RATES_OF_EDGE_POPUP
    }
    verdicts = {rate: verdict(*both) for rate, both in found.items()}
    return (
        f"kernels: {better} beats {worse}: Fashion-MNIST",
        "; ".join(f"at {rate:g}: {spread(first)}, {spread(second)}" for rate, (first, second) in found.items()),
        (
            "; ".join(f"at {rate:g}: {each}" for rate, each in verdicts.items())
            if len(set(verdicts.values())) > 1
            else verdicts[RATES_OF_EDGE_POPUP[0]]
        ),
    )


def at_30_epochs(model: str) -> tuple[list[float], list[float], list[float]]:
    """Returns the accuracies of edge-popup, the supermask and learned weights on CIFAR-10.

    Once all have ended: of several runs of a method the one with the better validation accuracy counts.
    """
    rows = GROUPS[f"{model}-30"]
    if not all(row.result.exists() for row in rows):
        return [], [], []
    edge, masks, learned = (
        [row for row in rows if row.config.method == method] for method in ("edge-popup", "supermask", "dense")
    )
    best = max(complete([row], of) for row in masks for of in ("test", "test_draws"))
    chosen = [max(several, key=lambda row: complete([row], "validation")) for several in (edge, learned)]
    return complete([chosen[0]]), best, complete([chosen[1]])


@functools.cache
def masked_rows() -> list[Record]:
    return json.loads(trained_masks.RESULT.read_text())["rows"] if trained_masks.RESULT.exists() else []


def masked_networks(criterion: str, treatment: str, k: float) -> list[float]:
    """Returns the accuracies in percent that trained_masks.py has found of one kind, one of each seed."""
    kind = criterion, treatment, k
    return [100 * row["accuracy"] for row in masked_rows() if (row["criterion"], row["treatment"], row["k"]) == kind]


def not_run() -> str:
    lines = []
    for group, members in GROUPS.items():
        missing = [row.name for row in members if not row.result.exists()]
        if missing:
            lines.append(f"- `--only {group}`: {', '.join(missing)}")
    return "\n".join(lines) + "\n"


def commands(rows: Iterable[Row]) -> str:
    return "\n".join(f"    keras-popup {shlex.join(row.command({}))}" for row in rows) + "\n"


def page(pictures: Path) -> str:
    """Returns the text, and draws the pictures into a folder."""
    text = (Path(__file__).parent / "results_page.md").read_text()
    of_fashion = [row for group in ("k-curve", "methods", "initializers", "widths") for row in GROUPS[group]]
    at_30 = [row for group in ("conv2-30", "conv4-30", "float32", "warm-up") for row in GROUPS[group]]
    parts = {
        "claims": claims(),
        "where_fashion": where(of_fashion),
        "rates": rates("fc", TRIED, reproduce._fashion),
        **{
            f"rates_{model}": rates(model, tried, functools.partial(reproduce._cifar, model, epochs=5))
            for model, tried in TRIED_ON_CIFAR.items()
        },
        "k_curve": k_curve(pictures / "k.png"),
        "methods": methods(),
        "kernels": kernels(),
        "widths": widths(pictures / "widths.png"),
        "conv_30": plain(at_30),
        "precision": precision(),
        "where_30": where(at_30),
        "conv2_100": plain(GROUPS["conv2-100"]),
        "where_100": where(GROUPS["conv2-100"]),
        "conv2_100_original": plain(GROUPS["conv2-100-original"]),
        "where_100_original": where(GROUPS["conv2-100-original"]),
        "conv2_15": plain(GROUPS["conv2-15"]),
        "where_15": where(GROUPS["conv2-15"]),
        "larger": plain(GROUPS["larger"]),
        "imagenet": plain(GROUPS["imagenet"]),
        "mask_change": mask_change(pictures / "mask-change.png"),
        "criteria": chart_of_criteria(pictures / "criteria.png"),
        "imagenet_commands": commands(GROUPS["imagenet"]),
        "not_run": not_run(),
        "pictures": PICTURES,
    }
    return text.format(**parts)


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    (DOCS / "results.md").write_text(page(DOCS / PICTURES))


if __name__ == "__main__":
    main()
