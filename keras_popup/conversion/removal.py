"""Leaves out the channels that change nothing, and compares the outputs."""

import logging
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_popup import _keras
from keras_popup.conversion.channels import follow_channels
from keras_popup.conversion.comparison import Array, compute_difference, draw_inputs, uses_16_bits
from keras_popup.conversion.copying import copy_model
from keras_popup.conversion.dead_channels import describe
from keras_popup.conversion.narrowing import narrow
from keras_popup.layers import is_graph

_TOLERANCE, _ROUNDED_TOLERANCE = 1e-4, 0.1

_logger = logging.getLogger("keras_popup")


def remove_dead(plain: keras.Model, *, copy: bool = True) -> keras.Model:
    """Returns a plain model without the channels that change nothing. A log line has their number.

    Args:
        plain: a built `keras.Model` without masks.
        copy: bool. True leaves `plain` as it is. False is for a model that nobody needs any more: its layers may become
            parts of the new graph too.

    Returns:
        A `keras.Model` of the same class and topology, with the same names, not compiled. With `copy=False`, it is
        `plain` if all channels stay.

    Raises:
        TypeError: if the model cannot be copied.
        RuntimeError: if the outputs of the two models differ by more than rounding on a made-up batch.
    """
    smaller = copy_model(plain)[0] if copy else plain
    graphs = follow_channels(smaller)
    dead = describe(smaller, graphs)
    if not is_graph(smaller):
        _logger.warning("Model '%s' has code of its own, so all its channels stay.", plain.name)
    elif dead.leaving:
        # Copied once more: some of its layers are still part of the other model too.
        smaller = copy_model(narrow(graphs))[0]
        _check_outputs(plain, smaller)
    _logger.info("%s", dead.summary())
    return smaller


def _check_outputs(plain: Any, smaller: Any) -> None:
    batch = draw_inputs(plain)
    difference = compute_difference(_compute_outputs(plain, batch), _compute_outputs(smaller, batch))
    tolerance = _ROUNDED_TOLERANCE if uses_16_bits(plain) else _TOLERANCE
    if not difference <= tolerance:
        raise RuntimeError(
            f"Without its dead channels, model '{plain.name}' gives other outputs: they differ by {difference:.3g} of "
            f"the largest output, expected {tolerance:g} at most. This is a fault here, or the model's outputs are "
            "random or not finite. Use the model with all its channels: strip it without `remove_dead`."
        )


def _compute_outputs(model: Any, batch: list[Array]) -> dict[str, Array]:
    outputs = keras.tree.flatten(model(_keras.pack_inputs(model, batch), training=False))
    return {str(index): np.asarray(tf.cast(output, tf.float64)) for index, output in enumerate(outputs)}
