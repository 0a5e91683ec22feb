"""Every selector: shape, type, gradient, round trip, errors; what Bernoulli draws."""

import hypothesis
import hypothesis.extra.numpy
import keras
import numpy as np
import pytest
import tensorflow as tf
from tables import SELECTORS

from keras_popup import layers, selectors


def drawing(selector, training, number=0):
    return {"seed": [5, number]} if selector.draws and training else {}


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
    mask = selectors.get(name)(scores, 0.4, training, **drawing(selectors.get(name), training))
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


KERNELS = hypothesis.extra.numpy.arrays(
    np.float32, (3, 5, 4), elements=hypothesis.strategies.floats(-4, 4, width=32), fill=hypothesis.strategies.nothing()
)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("rescale", [False, True])
@hypothesis.settings(max_examples=15, deadline=None)
@hypothesis.given(arrays=KERNELS)
def test_bernoulli_gradient(rescale, training, arrays):
    kernel, scores, upstream = arrays
    selector = selectors.Bernoulli(rescale)
    seed = drawing(selector, training)
    mask = selector(scores, None, training, **seed).numpy().astype(np.float64)
    kept, size = max(mask.sum(), 1), mask.size
    factor = size / kept if rescale else 1.0
    with tf.GradientTape() as tape:
        variable = tf.constant(scores)
        tape.watch(variable)
        masked = selector.masked_kernel(tf.constant(kernel), variable, None, training, "float32", **seed)
    np.testing.assert_allclose(masked, kernel * mask * factor, rtol=1e-6, atol=1e-30)
    share = 1 / (1 + np.exp(-scores.astype(np.float64)))
    of_masks = upstream.astype(np.float64) * kernel * factor
    if rescale:
        of_masks -= (upstream * kernel * mask).sum(dtype=np.float64) * size / kept**2
    gradient = tape.gradient(masked, variable, upstream)
    np.testing.assert_allclose(gradient, of_masks * share * (1 - share), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("logit", [-3.0, -0.5, 0.0, 1.0])
def test_share_kept_follows_the_sigmoid(logit):
    size, share = 100_000, 1 / (1 + np.exp(-logit))
    scores = np.full(size, logit, np.float32)
    masks = [selectors.Bernoulli()(scores, training=True, seed=[1, number]).numpy() for number in range(2)]
    for mask in masks:
        assert abs(mask.mean() - share) < 5 * np.sqrt(share * (1 - share) / size)
    both = (masks[0] * masks[1]).mean()  # independent: one draw tells nothing of the other
    assert abs(both - share**2) < 5 * np.sqrt(share**2 * (1 - share**2) / size)


def test_a_draw_is_its_seed():
    scores = np.random.default_rng(1).standard_normal((40, 30)).astype(np.float32)
    draw = selectors.Bernoulli()
    mask = draw(scores, training=True, seed=[3, 4]).numpy()

    def again(scores, seed):
        return draw(scores, training=True, seed=seed)

    for compiled in (again, tf.function(again), tf.function(again, jit_compile=True)):
        assert np.array_equal(compiled(tf.constant(scores), tf.constant([3, 4], tf.int64)), mask)
    assert not np.array_equal(draw(scores, training=True, seed=[3, 5]), mask)
    assert not np.array_equal(draw(scores, training=True, seed=[4, 4]), mask)
    assert np.array_equal(draw(scores), scores >= 0)
    with pytest.raises(ValueError, match="needs `seed`"):
        draw(scores, training=True)


@pytest.mark.parametrize("training", [False, True])
def test_nothing_kept_is_zero_and_as_without_rescaling(training):
    gradients = []
    for selector in (selectors.Bernoulli(rescale=True), selectors.Bernoulli()):
        scores = tf.constant(np.full(6, -20, np.float32))
        with tf.GradientTape() as tape:
            tape.watch(scores)
            seed = drawing(selector, training)
            kernel = selector.masked_kernel(tf.ones(6), scores, None, training, "float32", **seed)
        assert kernel.numpy().tolist() == [0.0] * 6
        gradients.append(tape.gradient(kernel, scores).numpy())
    assert np.array_equal(*gradients)
    assert gradients[0].all()


def test_a_selector_that_draws_needs_no_more_than_a_call():
    class Half(selectors.Selector):
        draws = True

        def __call__(self, scores, k, training=False, seed=None):
            chosen = tf.random.stateless_uniform(scores.shape, seed) < 0.5 if training else scores > 0
            return tf.cast(chosen, tf.float32)

    layer = layers.MaskedDense(30, selector=Half(), seed=1)
    first, second = (layer(np.eye(20, dtype=np.float32), training=True).numpy() for _ in range(2))
    assert not np.array_equal(first, second)
    assert layer.kept == int((layer.scores.numpy() > 0).sum())


def test_draws_are_not_made_again_in_the_backward_pass():
    with keras.RematScope(mode="full"):
        layers.MaskedDense(3, seed=1)
        with pytest.raises(ValueError, match="Leave it out of the RematScope"):
            layers.MaskedDense(3, selector="bernoulli", seed=1)
