"""What every selector does."""

import numpy as np
import pytest
import tensorflow as tf
from draws import drawing
from tables import SELECTORS

from keras_popup import layers, selectors


@pytest.mark.parametrize("name", SELECTORS)
@pytest.mark.parametrize("training", [False, True])
def test_selector_gives_zeros_and_ones(name, training):
    scores = np.random.default_rng(1).standard_normal((4, 5)).astype(np.float32)
    mask = selectors.get(name)(scores, 0.4, training, **drawing(selectors.get(name), training))
    assert mask.shape == scores.shape
    assert mask.dtype == tf.float32
    assert set(np.unique(mask)) == {0.0, 1.0}


def test_selector_that_draws_needs_no_more_than_a_call():
    class Half(selectors.Selector):
        draws = True

        def __call__(self, scores, k, training=False, seed=None):
            chosen = tf.random.stateless_uniform(scores.shape, seed) < 0.5 if training else scores > 0
            return tf.cast(chosen, tf.float32)

    layer = layers.MaskedDense(30, selector=Half(), seed=1)
    first, second = (layer(np.eye(20, dtype=np.float32), training=True).numpy() for _ in range(2))
    assert not np.array_equal(first, second)
    assert layer.kept == int((layer.scores.numpy() > 0).sum())
