"""Pictures of run records."""

from pathlib import Path
from typing import Any

from keras_popup import _style
from keras_popup._files import write_atomically
from keras_popup.records.folder import History


def draw_learning_curves(history: History, title: str, path: Path) -> None:
    """Draws loss and accuracy over the epochs to a PNG file. Needs the extra `plots`."""
    import matplotlib

    with matplotlib.rc_context(_style.matplotlib_settings()):
        figure = _draw(history, title)
        write_atomically(path, lambda unfinished: figure.savefig(unfinished, format="png"))


def _draw(history: History, title: str) -> Any:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    figure.suptitle(title)
    epochs = [row["epoch"] for row in history]
    for axes, metric in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for name, label in ((metric, "training"), (f"val_{metric}", "validation")):
            if name in history[0]:
                axes.plot(epochs, [row[name] for row in history], marker="o" if len(epochs) < 40 else "", label=label)
        axes.set_xlabel("epoch")
        axes.set_ylabel(metric)
        axes.set_xlim(0.5, len(epochs) + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(axis="y")
        axes.legend()
    return figure
