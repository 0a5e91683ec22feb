"""A small trained supermask."""

import keras
import numpy as np

import keras_popup
from keras_popup import selectors

SIZE = 12


def trained(rescale=False, **arguments):
    rng = np.random.default_rng(1)
    plain = keras.Sequential([keras.Input((9,)), keras.layers.Dense(12, activation="relu"), keras.layers.Dense(9)])
    model = keras_popup.mask_model(plain, selector=selectors.Bernoulli(rescale), seed=1, **arguments)
    model.compile(keras.optimizers.SGD(50.0), "mse", metrics=["mae"])
    inputs = rng.standard_normal((SIZE, 9)).astype(np.float32)
    model.fit(inputs, inputs, epochs=2, verbose=0)
    return model, inputs
