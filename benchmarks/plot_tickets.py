"""Draws the sizes of trained networks, from a file that tickets.py wrote.

python benchmarks/plot_tickets.py benchmarks/results/ticket_sizes.json docs/img/tickets.png
"""

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from keras_popup._style import KEPT, matplotlib_settings

KINDS = {
    "keras": "stripped .keras",
    "litert_int8": "LiteRT int8",
    "keras_gzip": "zipped .keras",
    "limit": "limit of a random mask",
    "ticket": "ticket",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path, help="the JSON file of tickets.py")
    parser.add_argument("picture", type=Path, help="the PNG file to write")
    parser.add_argument("--k", type=float, default=0.5, help="draw networks with this k (default: %(default)s)")
    arguments = parser.parse_args()
    rows = [row for row in json.loads(arguments.rows.read_text())["rows"] if row["k"] == arguments.k]
    with matplotlib.rc_context(matplotlib_settings()):
        draw(rows, f"Files of trained networks, k = {arguments.k}").savefig(arguments.picture)


def draw(rows: list[dict[str, Any]], title: str) -> Figure:
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(KINDS)
    for number, (kind, label) in enumerate(KINDS.items()):
        color = KEPT if kind == "ticket" else str(0.82 - 0.13 * number)
        places = [place + (number - 2) * width for place in range(len(rows))]
        bars = axes.bar(places, [row[kind] / 1000 for row in rows], width, label=label, color=color)
        if kind == "ticket":
            axes.bar_label(bars, fmt="{:,.0f}", fontsize=8)
    axes.set_yscale("log")
    axes.set_ylabel("kB")
    axes.set_xticks(range(len(rows)), [row["model"] for row in rows])
    axes.set_title(title)
    axes.legend(ncols=2, loc="upper left")
    return figure


if __name__ == "__main__":
    main()
