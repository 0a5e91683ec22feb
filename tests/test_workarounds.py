"""What mends faults of other packages."""

import gc
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_popup


def test_let_graph_go_frees_the_graphs_of_models_that_are_gone():
    def train():
        model = keras_popup.mask_model(keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]), seed=1)
        model.compile("sgd", "mse")
        model.train_on_batch(np.ones((2, 4)), np.ones((2, 3)))
        return weakref.ref(model.layers[0].scores.value)

    references = [train() for _ in range(4)]
    keras.backend.clear_session()
    gc.collect()
    assert [reference() is None for reference in references[:-1]] == [True] * 3


@pytest.mark.integration
def test_let_graph_go_keeps_the_gradients_of_a_graph_that_is_used():
    layer = keras_popup.layers.MaskedDense(3, k=0.5, seed=1)
    layer.build((None, 4))
    outer = tf.Variable(1.0)

    @tf.function
    def call(x):
        return tf.reduce_sum(layer(x)) * outer

    def differentiate(x):
        with tf.GradientTape() as tape:
            loss = call(x)
        return tape.gradient(loss, [outer, layer.scores.value])

    before = differentiate(tf.ones((2, 4)))
    other = keras_popup.layers.MaskedDense(3, k=0.5, seed=2)
    tf.function(lambda x: other(x))(tf.ones((2, 4)))  # moves the functions of the first graph
    gc.collect()
    after = differentiate(tf.ones((5, 4)))  # another trace of the backward pass, from the functions that were moved
    np.testing.assert_allclose(after[0], before[0] * 2.5, rtol=1e-6)
    np.testing.assert_allclose(after[1], before[1] * 2.5, rtol=1e-6)
