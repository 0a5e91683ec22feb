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


def remove_dead(plain: keras.Model) -> keras.Model:
    """Returns a copy of a plain model without the channels that change nothing. A log line has their number.

    Args:
        plain: a built `keras.Model` without masks. It is not changed.

    Returns:
        A `keras.Model` of the same class and topology, with the same names, not compiled.

    Raises:
        TypeError: if the model cannot be copied.
        RuntimeError: if the outputs of the two models differ by more than rounding on a made-up batch.
    """
    copy, _ = copy_model(plain)
    graphs = follow_channels(copy)
    dead = describe(copy, graphs)
    if not is_graph(copy):
        _logger.warning("Model '%s' has code of its own, so all its channels stay.", plain.name)
    elif dead.leaving:
        # Copied once more: some of its layers are still part of the other model too.
        copy, _ = copy_model(narrow(graphs))
        _check_outputs(plain, copy)
    _logger.info("%s", dead.summary())
    return copy


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
