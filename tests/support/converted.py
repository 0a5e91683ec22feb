"""What tests of converted models share."""

import keras
import numpy as np

from keras_popup import layers
from keras_popup.conversion import masked_kernels


def masked_layers(model):
    return [layer for layer in model._flatten_layers(include_self=False) if isinstance(layer, layers.MaskedLayer)]


def moved(model):
    """The model, every weight a little away from where it began, biases and statistics too."""
    rng = np.random.default_rng(1)
    for weight in model.weights:
        weight.assign_add(0.1 * np.abs(rng.standard_normal(weight.shape)))
    return model


def outputs_of(model, inputs):
    outputs = model.predict(inputs if len(inputs) > 1 else inputs[0], verbose=0)
    return outputs if isinstance(outputs, list) else [outputs]


def fit_once(model, inputs):
    targets = [np.ones_like(output) for output in outputs_of(model, inputs)]
    model.compile(keras.optimizers.SGD(0.1), ["mse"] * len(targets))
    model.fit(inputs if len(inputs) > 1 else inputs[0], targets if len(targets) > 1 else targets[0], verbose=0)


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def spread(model):
    """The model, every float variable but k a little away from where it began."""
    kept = {id(kernel.k_variable) for _, kernel in masked_kernels(model)}
    rng = np.random.default_rng(3)
    for variable in model.variables:
        if "float" in variable.dtype and id(variable) not in kept:
            variable.assign_add(0.1 * rng.standard_normal(variable.shape))
    return model


def agree(a, b, x):
    np.testing.assert_allclose(a.predict(x, verbose=0), b.predict(x, verbose=0), atol=1e-6)
