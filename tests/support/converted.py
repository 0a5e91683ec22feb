"""What tests of converted models share."""

import keras
import numpy as np

from keras_popup import layers


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
