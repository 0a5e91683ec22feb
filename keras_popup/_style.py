"""The look of all pictures of the project: colours, fonts, grid. Imports nothing."""

from typing import Any

KEPT = "#2a78b5"
"""What a mask keeps."""

LEFT_OUT = "#c9cdd1"
"""What a mask does not keep."""

MARK = "#c8384f"
"""What is pointed at: a threshold, the best."""

INK, MUTED, GRID = "#1c2733", "#5b6773", "#dfe3e7"

SERIES = ("#2a78b5", "#d9730d", "#1f8a5b", "#8a4fbf", "#b58a00", "#0e8c99", "#c2488f", "#6b7480")
"""The colours of things that are told apart, in this order."""

DARK_SERIES = ("#6cb2ec", "#f0a35c", "#5cc79a", "#bd95e6", "#e0c04d", "#57c9d4", "#ec8fc4", "#a6b0ba")
"""The same on a dark page."""

MATPLOTLIB: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: pictures are the same on every machine
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.labelsize": 9.5,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": False,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "savefig.dpi": 130,
}
"""Settings for `matplotlib.rc_context`."""


def matplotlib_settings() -> dict[str, Any]:
    """Returns `MATPLOTLIB` with the colours of series. Needs matplotlib."""
    from cycler import cycler

    return {**MATPLOTLIB, "axes.prop_cycle": cycler(color=SERIES)}
