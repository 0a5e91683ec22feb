"""Layers masked where they are, when Keras computes their outputs twice."""

import keras
import numpy as np
import pytest
from converted import random

from keras_popup import layers, mask_model


def test_change_to_masked_under_a_remat_scope():
    inputs = keras.Input((4,))
    with keras.RematScope("full"):
        stack = [keras.layers.Conv1D(3, 1), keras.layers.Flatten(), keras.layers.Dense(3), keras.layers.Dense(2)]
    x = keras.layers.Reshape((2, 2))(inputs)
    for layer in stack:
        x = layer(x)
    plain = keras.Model(inputs, x)
    model, other = (mask_model(plain, k=0.5, seed=1) for _ in range(2))
    assert all(layer._remat_mode for layer in model.layers[2:])
    for layer in other.layers:
        layer._remat_mode = None
    for each in (model, other):
        each.compile(keras.optimizers.SGD(0.1), "mse")
        each.fit(random(4, 4), np.ones((4, 2)), verbose=0)
    for a, b in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_check_rematerialization_refuses_draws():
    with keras.RematScope(mode="full"):
        layers.MaskedDense(3, seed=1)
        with pytest.raises(ValueError, match="Leave it out of the RematScope"):
            layers.MaskedDense(3, selector="bernoulli", seed=1)
