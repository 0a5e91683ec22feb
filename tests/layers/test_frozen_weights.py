"""Weights beside the masks: frozen, or dropped."""

import keras
from converted import moved

from keras_popup import mask_model


def test_drop_leaves_zeros_where_code_reads_a_bias():
    class Reads(keras.layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.dense = keras.layers.Dense(3)

        def call(self, x):
            return self.dense(x) + self.dense.bias

    inputs = keras.Input((4,))
    plain = moved(keras.Model(inputs, Reads()(inputs)))
    masked = mask_model(plain, k=0.5, seed=1)
    assert not masked.layers[1].dense.bias.numpy().any()
    assert [v.name for v in masked.trainable_variables] == ["scores"]
    trained = mask_model(plain, k=0.5, train_biases=True, seed=1)
    assert sorted(v.name for v in trained.trainable_variables) == ["bias", "scores"]
