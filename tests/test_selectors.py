"""Every selector: shape, type, gradient, round trip, errors."""

import numpy as np
import pytest
import tensorflow as tf
from tables import SELECTORS

from keras_popup import selectors


@pytest.mark.parametrize("name", SELECTORS)
def test_round_trip(name):
    selector = selectors.get(name)
    again = selectors.deserialize(selectors.serialize(selector))
    assert type(again) is type(selector)
    assert again.get_config() == selector.get_config()
    assert selectors.get(selector) is selector
    assert type(selectors.get(selectors.serialize(selector))) is type(selector)


@pytest.mark.parametrize("name", SELECTORS)
@pytest.mark.parametrize("training", [False, True])
def test_mask_is_of_zeros_and_ones(name, training):
    scores = np.random.default_rng(1).standard_normal((4, 5)).astype(np.float32)
    mask = selectors.get(name)(scores, 0.4, training)
    assert mask.shape == scores.shape
    assert mask.dtype == tf.float32
    assert set(np.unique(mask)) == {0.0, 1.0}


def test_topk_gradient():
    scores = tf.Variable([[0.5, -0.25], [0.0, -2.0]])
    upstream = tf.constant([[1.0, 2.0], [3.0, 4.0]])
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(selectors.TopK()(scores, 0.25) * upstream)
    assert tape.gradient(loss, scores).numpy().tolist() == [[1.0, -2.0], [0.0, -4.0]]


@pytest.mark.parametrize("k", [0, -0.1, 1.0001, float("nan"), float("inf"), "half", None, True])
def test_k_out_of_range(k):
    with pytest.raises(ValueError, match=r"must be a number in \(0, 1\]"):
        selectors.check_k(k)


def test_k_that_keeps_nothing():
    with pytest.raises(ValueError, match="keeps none of the 10 weights"):
        selectors.TopK()(np.zeros(10, np.float32), 0.04)


@pytest.mark.parametrize("dtype", ["float64", "float16", "int32"])
def test_scores_of_another_type(dtype):
    with pytest.raises(TypeError, match="must be float32"):
        selectors.TopK()(np.zeros(10, dtype), 0.5)


@pytest.mark.parametrize("identifier", ["topk", None, 3, {}])
def test_unknown(identifier):
    with pytest.raises(ValueError, match="top_k|class_name"):
        selectors.get(identifier)
