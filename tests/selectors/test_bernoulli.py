"""Bernoulli: gradient, shares, draws."""

import hypothesis
import hypothesis.extra.numpy
import numpy as np
import pytest
import tensorflow as tf
from draws import drawing

from keras_popup import selectors

KERNELS = hypothesis.extra.numpy.arrays(
    np.float32, (3, 5, 4), elements=hypothesis.strategies.floats(-4, 4, width=32), fill=hypothesis.strategies.nothing()
)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("rescale", [False, True])
@hypothesis.settings(max_examples=15, deadline=None)
@hypothesis.given(arrays=KERNELS)
def test_bernoulli_has_the_gradient_of_the_formula(rescale, training, arrays):
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
def test_bernoulli_keeps_the_share_of_the_sigmoid(logit):
    size, share = 100_000, 1 / (1 + np.exp(-logit))
    scores = np.full(size, logit, np.float32)
    masks = [selectors.Bernoulli()(scores, training=True, seed=[1, number]).numpy() for number in range(2)]
    for mask in masks:
        assert abs(mask.mean() - share) < 5 * np.sqrt(share * (1 - share) / size)
    both = (masks[0] * masks[1]).mean()  # independent: one draw tells nothing of the other
    assert abs(both - share**2) < 5 * np.sqrt(share**2 * (1 - share**2) / size)


def test_bernoulli_draws_by_its_seed():
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
def test_bernoulli_that_keeps_nothing_is_zero(training):
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
