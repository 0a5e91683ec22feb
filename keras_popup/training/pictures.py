"""Draws what a run has found into its folder. Needs the extra `plots`."""

import importlib.util
import logging
from collections.abc import Callable
from typing import Any

import keras

from keras_popup import conversion, pictures
from keras_popup._files import write_atomically
from keras_popup.records import RunFolder
from keras_popup.training.report import write_report

_logger = logging.getLogger("keras_popup")


def find_missing() -> str:
    """Returns the packages that pictures need and that are not installed, as text."""
    return " and ".join(name for name in ("matplotlib", "jinja2") if not importlib.util.find_spec(name))


def draw_pictures(model: keras.Model, folder: RunFolder) -> None:
    """Draws the masks of a trained model, its largest kernel's scores and its channels, and writes the page of its run.

    Args:
        model: the model of a finished run, as it was trained.
        folder: the folder of the run.
    """
    if conversion.masked_layers(model):
        _draw(folder, "masks.png", lambda: pictures.plot_masks(model))
        _draw(folder, "scores.png", lambda: pictures.plot_scores(model).figure)
        _draw(folder, "flow.png", lambda: pictures.plot_mask_flow(model).figure)
    write_report(folder.path)


def _draw(folder: RunFolder, name: str, draw: Callable[[], Any]) -> None:
    """Writes a picture, or says why there is none."""
    try:
        figure = draw()
    except ValueError as error:
        _logger.warning("%s was not drawn: %s", name, error)
        return
    write_atomically(folder.path / name, lambda path: figure.savefig(path, format="png", dpi=130))
