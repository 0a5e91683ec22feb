"""What every selector does."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from draws import drawing
from tables import SELECTORS

import keras_popup
from keras_popup import layers, selectors


@pytest.mark.parametrize("name", SELECTORS)
@pytest.mark.parametrize("training", [False, True])
def test_selector_gives_its_levels(name, training):
    scores = np.random.default_rng(1).standard_normal((4, 5)).astype(np.float32)
    mask = selectors.get(name)(scores, 0.4, training, **drawing(selectors.get(name), training))
    assert mask.shape == scores.shape
    assert mask.dtype == tf.float32
    assert set(np.unique(mask)) == set(selectors.get(name).levels)


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


def test_scores_for_must_be_implemented(tmp_path):
    class First(keras_popup.selectors.Selector):
        def __call__(self, scores, k, training=False):
            return keras.ops.cast(keras.ops.arange(keras.ops.size(scores)) < 3, "float32")

    with pytest.raises(NotImplementedError, match="First must implement scores_for"):
        First().scores_for(np.zeros(3), np.zeros(3))


@pytest.mark.parametrize("name", SELECTORS)
@pytest.mark.parametrize("start", ["uniform", "zeros", "constant", "negative zeros"])
@pytest.mark.parametrize("k", [0.25, 0.5, 1])
def test_scores_for_a_mask_choose_it_again(name, start, k):
    rng = np.random.default_rng(4)
    starts = {
        "uniform": rng.uniform(-0.1, 0.1, (12, 8)),
        "zeros": np.zeros((12, 8)),
        "constant": np.full((12, 8), 0.1),
        "negative zeros": -np.zeros((12, 8)),
    }[start].astype(np.float32)
    selector = keras_popup.selectors.get(name)
    mask = selector(rng.normal(size=(12, 8)).astype(np.float32), k).numpy().astype(np.int8)
    scores = selector.scores_for(mask, starts)
    assert scores.dtype == np.float32
    np.testing.assert_array_equal(selector(scores, k), mask)


@pytest.mark.parametrize("kept", [1, 5, 96, 97])
def test_scores_for_masks_of_any_count(kept):
    rng = np.random.default_rng(kept)
    mask = rng.permutation(np.arange(97) < kept).astype(np.uint8)
    scores = selectors.TopK().scores_for(mask, rng.uniform(-0.1, 0.1, 97).astype(np.float32))
    np.testing.assert_array_equal(selectors.TopK()(scores, kept / 97), mask)
