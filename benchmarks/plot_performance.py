"""Draws the pictures of docs/performance.md.

One shows the passes over memory. The other shows the cost over n, from a file that selection.py wrote.

python benchmarks/plot_performance.py benchmarks/results/selection_sizes.json docs/img
"""

import argparse
import json
from pathlib import Path

import matplotlib.pyplot as plt

from keras_popup._style import INK, KEPT, MUTED, matplotlib_settings

# Name, bytes read and written per weight in mixed_bfloat16, and whether the pass belongs to the masked layer.
PASSES = [
    ("choice: count for 4 candidates", 4, 0, True),
    ("choice: again, in a narrower bracket", 4, 0, True),
    ("choice: again", 4, 0, True),
    ("mask, product and cast: kernel, scores -> masked kernel", 8, 2, True),
    ("backward: gradient, kernel, scores -> gradient of the scores", 10, 4, True),
    ("dense, forward: kernel -> cast kernel", 4, 2, False),
    ("dense, backward: gradient -> cast gradient", 2, 4, False),
]


def passes(file: Path) -> None:
    figure, axes = plt.subplots(figsize=(8, 3), layout="constrained")
    for place, (_, read, written, masked) in enumerate(PASSES):
        colour = KEPT if masked else MUTED
        axes.barh(place, read, color=colour)
        axes.barh(place, written, left=read, color=colour, alpha=0.4, hatch="//", edgecolor="white")
    axes.set_yticks(range(len(PASSES)), [name for name, *_ in PASSES])
    axes.invert_yaxis()
    axes.set_xlabel("bytes per weight: read (solid), written (hatched)")
    axes.set_title("A step of training of one layer, mixed_bfloat16: masked (blue), dense (gray)", loc="right")
    figure.savefig(file, metadata={"Software": None})


def cost(results: Path, file: Path) -> None:
    rows = json.loads(results.read_text())["rows"]
    figure, (time, ratio) = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
    for way, label in (("call", "from nothing"), ("step", "in a step of training")):
        own = [row for row in rows if row["way"] == way]
        sizes = [row["scores"] for row in own]
        time.loglog(sizes, [row["own"] for row in own], "o-", label=label)
        ratio.semilogx(sizes, [row["ratio"] for row in own], "o-", label=label)
    time.loglog(sizes, [row["base"] for row in own], "--", color=INK, label="tf.abs(s) * 2")
    time.set(xlabel="scores n", ylabel="ms")
    time.legend()
    ratio.set(xlabel="scores n", ylabel="ratio to tf.abs(s) * 2", ylim=(0, None))
    figure.savefig(file, metadata={"Software": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="the JSON file of selection.py with several --sizes")
    parser.add_argument("folder", type=Path, help="the folder of the pictures")
    arguments = parser.parse_args()
    with plt.rc_context(matplotlib_settings()):
        passes(arguments.folder / "selection_passes.png")
        cost(arguments.results, arguments.folder / "selection_cost.png")


if __name__ == "__main__":
    main()
