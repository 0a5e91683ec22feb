"""Draws accuracy over bytes, of the rows that methods.py stored.

python benchmarks/plot_bytes.py docs/img/bytes.png
python benchmarks/plot_bytes.py docs/img/bytes-resnet8.png --network resnet8 --least 60
"""

import argparse
import statistics
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.ticker import LogLocator
from methods import LEARNED, METHODS, find_best, read_rows

from keras_popup import pretrained
from keras_popup._style import INK, matplotlib_settings

LABELS = {"top_k": "edge-popup"}
# Networks of the package, trained for longer than the rows, and what MLPerf Tiny asks of a learned ResNet8 in int8.
TICKETS = {"resnet8": ("cifar10/resnet8", "cifar10/resnet8_half", "cifar10/resnet8_wide")}
MLPERF = {"resnet8": (98_496, 85.0)}


def find_points(network: str) -> dict[str, list[tuple[float, float, float]]]:
    """Returns (bytes, accuracy, standard deviation) of each method, as means over seeds, in the order of the bytes."""
    points: dict[str, list[tuple[float, float, float]]] = {}
    for case, rows in read_rows(network).items():
        best = find_best(rows)
        accuracies = [100 * row["accuracy"]["test"] for row in best]
        deviation = statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0
        size = statistics.mean(row["ticket_bytes"] for row in best)
        points.setdefault(case.method, []).append((size, statistics.mean(accuracies), deviation))
    return {method: sorted(of_it) for method, of_it in points.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path, help="the PNG file to write")
    parser.add_argument("--network", default="fc")
    parser.add_argument("--least", type=float, default=80.0, help="the lowest accuracy drawn (default: %(default)s)")
    arguments = parser.parse_args()
    plt.rcParams.update({**matplotlib_settings(), "axes.grid": True})
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    for method, points in find_points(arguments.network).items():
        number = list(METHODS).index(method) if method in METHODS else 0
        sizes, accuracies, spreads = zip(*points, strict=True)
        axes.errorbar(
            [size / 1000 for size in sizes],
            accuracies,
            spreads,
            label=LABELS.get(method, method),
            linestyle="--" if method in LEARNED else "",
            marker="sovD^<>PpX"[number] if method in METHODS else ".",
            markersize=5,
            color=f"C{number}" if method in METHODS else str(0.2 + 0.25 * list(LEARNED).index(method)),
            capsize=2,
        )
    if names := TICKETS.get(arguments.network):
        cards = [pretrained.read_card(name) for name in names]
        points = [(card.bytes / 1000, 100 * card.test_accuracy) for card in cards]
        axes.plot(
            *zip(*points, strict=True), "*", color=INK, markersize=9, label="tickets of the package, trained for longer"
        )
        size, least = MLPERF[arguments.network]
        axes.plot(size / 1000, least, "x", color=INK, label="MLPerf Tiny: learned, int8")
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("")
    axes.set_ylim(bottom=arguments.least)
    axes.set_xlabel("kB, of a ticket or of zipped weights")
    axes.set_ylabel("test accuracy, %")
    axes.legend(fontsize=8, loc="lower right")
    figure.savefig(arguments.picture)


if __name__ == "__main__":
    main()
