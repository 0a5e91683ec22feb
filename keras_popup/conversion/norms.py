"""BatchNormalization with two numbers per channel instead of four."""

from typing import Any

import keras
import numpy as np

from keras_popup.conversion.comparison import check_same_outputs
from keras_popup.conversion.copying import copy_model
from keras_popup.layers import walk


def fold_norms(model: keras.Model) -> keras.Model:
    """Returns a copy of a model that has the moving statistics of each BatchNormalization in its gamma and beta.

        gamma' = gamma sqrt((v' + epsilon) / (variance + epsilon))     variance' = v' = 1 - epsilon
        beta'  = beta - mean gamma' / sqrt(v' + epsilon)               mean' = 0

    A layer without gamma keeps its variance, one without beta its mean.

    Args:
        model: a built `keras.Model`, masked or not.

    Returns:
        A `keras.Model`, not compiled. Its outputs are equal up to rounding. It is for use: in training, a
        BatchNormalization takes the moments of the batch, and gamma' is not gamma.

    Raises:
        TypeError: if the model cannot be copied.
        ValueError: if the model does not know its inputs, so that outputs cannot be compared.
        RuntimeError: if the outputs of the two models differ by more than rounding on a made-up batch.
    """
    if not getattr(model, "inputs", None):
        raise ValueError(
            "Folded norms are compared with the others, which needs a model that knows its inputs: Sequential or "
            f"Functional. Received: model '{model.name}', {type(model).__name__}. Leave out `fold_norms`."
        )
    folded, _ = copy_model(model)
    for _, layer in walk(folded):
        if type(layer) is keras.layers.BatchNormalization:
            _fold(layer)
    check_same_outputs(model, folded, "With folded norms", "Use the model as it is: leave out `fold_norms`")
    return folded


def _fold(norm: Any) -> None:
    mean, variance = (np.float64(each.numpy()) for each in (norm.moving_mean, norm.moving_variance))
    slope = 1 / np.sqrt(variance + norm.epsilon)
    if norm.scale:
        unit = float(np.float32(1 - norm.epsilon))
        slope = slope * norm.gamma.numpy()
        norm.gamma.assign(slope * np.sqrt(unit + norm.epsilon))
        norm.moving_variance.assign(np.full_like(variance, unit))
    if norm.center:
        norm.beta.assign(norm.beta.numpy() - mean * slope)
        norm.moving_mean.assign(np.zeros_like(mean))
