"""Leaves out the channels that change nothing, and compares the outputs."""

import logging

import keras

from keras_popup.conversion.channels import follow_channels
from keras_popup.conversion.comparison import check_same_outputs
from keras_popup.conversion.copying import copy_model
from keras_popup.conversion.dead_channels import describe
from keras_popup.conversion.narrowing import narrow
from keras_popup.layers import is_graph

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
        check_same_outputs(
            plain,
            smaller,
            "Without its dead channels",
            "Use the model with all its channels: strip it without `remove_dead`",
        )
    _logger.info("%s", dead.summary())
    return smaller
