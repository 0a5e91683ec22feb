"""A change in place happens completely or not at all."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from converted import random

import keras_popup
from keras_popup import mask_model


def test_undo_on_failure_of_masking_in_place():
    inputs = keras.Input((4,))
    plain = keras.Model(inputs, keras.layers.Dense(2, name="small")(keras.layers.Dense(3, name="large")(inputs)))
    before = plain.get_config(), plain.get_weights(), [v.trainable for v in plain.variables]

    class Broken(keras_popup.selectors.TopK):
        def __init__(self):
            self.made = 0

        @property
        def scores_initializer(self):
            return lambda shape, dtype=None: tf.zeros(shape) if shape == (4, 3) else 1 / 0

    with pytest.raises(ZeroDivisionError):
        mask_model(plain, k=0.5, selector=Broken(), seed=1, copy=False)
    assert [type(layer).__name__ for layer in plain.layers] == ["InputLayer", "Dense", "Dense"]
    assert plain.get_config() == before[0]
    assert [v.trainable for v in plain.variables] == before[2]
    for a, b in zip(plain.get_weights(), before[1], strict=True):
        np.testing.assert_array_equal(a, b)
    plain.compile("sgd", "mse")
    plain.fit(random(4, 4), np.ones((4, 2)), verbose=0)
