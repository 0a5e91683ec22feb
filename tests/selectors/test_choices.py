"""Every selector that does not draw: its masks on every path against an oracle, gradients, bits, and errors."""

import numpy as np
import oracles
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from tables import CHOOSING

from keras_popup import layers, selectors
from keras_popup.layers import masked_kernel
from keras_popup.tickets import mask_coding, mask_planes

SHAPE = (12, 8)
AXES = ((0,), (1,))


def _takes(selector, shape=SHAPE):
    takes = {"axes": AXES} if "axes" in selector.takes else {}
    return takes | ({"fixed": selector.draw_fixed(shape, 5)} if "fixed" in selector.takes else {})


def _oracle(selector, scores, k, takes):
    return oracles.choose(selector, scores, k, **({"fixed": takes["fixed"]} if "fixed" in takes else {}))


_PATHS = {
    "plain": lambda selector, scores, k, takes: selector(scores, k, **takes),
    "graph": lambda selector, scores, k, takes: tf.function(lambda s: selector(s, k, **takes))(scores),
    "xla": lambda selector, scores, k, takes: tf.function(lambda s: selector(s, k, **takes), jit_compile=True)(scores),
}


@pytest.mark.parametrize("name", CHOOSING)
@pytest.mark.parametrize("path", _PATHS)
def test_choice_is_that_of_the_oracle(name, path):
    rng = np.random.default_rng(3)
    selector = selectors.get(name)
    for scores in (rng.normal(size=SHAPE), rng.integers(-2, 3, SHAPE), np.zeros(SHAPE)):
        scores = scores.astype(np.float32)
        takes = _takes(selector)
        mask = _PATHS[path](selector, tf.constant(scores), tf.constant(0.5, tf.float64), takes).numpy()
        np.testing.assert_array_equal(mask, _oracle(selector, scores, 0.5, takes))


@pytest.mark.parametrize("name", CHOOSING)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_choice_by_numpy_is_that_of_the_oracle(name, data):
    special = st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e-45, 3e38, float("nan"), float("inf"), float("-inf")])
    values = data.draw(st.lists(special | st.floats(-2, 2, width=32), min_size=96, max_size=96))
    scores = np.array(values, np.float32).reshape(SHAPE)
    if "block" in name:
        scores = np.where(np.isfinite(scores), scores, 1).astype(np.float32)
    selector = selectors.get(name)
    takes = _takes(selector)
    with selectors.without_compiling():
        mask = selector(scores, 0.5, **takes).numpy()
    np.testing.assert_array_equal(mask, _oracle(selector, scores, 0.5, takes))


@pytest.mark.parametrize("name", CHOOSING)
def test_masked_kernel_is_kernel_times_mask(name):
    rng = np.random.default_rng(4)
    selector = selectors.get(name)
    takes, hint = _takes(selector), tf.Variable(tf.zeros(selector.hint_shape, tf.int64))
    kernel = tf.constant(rng.normal(size=SHAPE).astype(np.float32))
    for _ in range(3):  # each hint is that of the scores before
        scores = tf.constant(rng.normal(size=SHAPE).astype(np.float32))
        product = selector.masked_kernel(kernel, scores, 0.5, False, "float32", hint, **takes)
        np.testing.assert_array_equal(product, kernel * selector(scores, 0.5, **takes))


@pytest.mark.parametrize("name", CHOOSING)
def test_gradient_is_that_of_the_formula(name):
    rng = np.random.default_rng(5)
    selector = selectors.get(name)
    takes = _takes(selector)
    kernel, upstream, scores = (rng.normal(size=SHAPE).astype(np.float32) for _ in range(3))
    variable = tf.Variable(scores)
    with tf.GradientTape() as tape:
        product = selector.masked_kernel(tf.constant(kernel), variable, 0.5, True, "float32", **takes)
        loss = tf.reduce_sum(product * upstream)
    of_mask = upstream * kernel
    if type(selector) is selectors.Signed:
        expected = of_mask
    elif type(selector) is selectors.Block:
        side = selector.size
        expected = np.zeros_like(scores)
        for i in range(0, SHAPE[0], side):
            for j in range(0, SHAPE[1], side):
                block = np.s_[i : i + side, j : j + side]
                expected[block] = of_mask[block].sum() * np.sign(scores[block])
    else:
        expected = of_mask * np.sign(scores) * getattr(selector, "coats", 1)
    np.testing.assert_allclose(tape.gradient(loss, variable), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", CHOOSING)
@pytest.mark.parametrize("with_starts", [False, True])
def test_planes_give_the_mask_back_near_the_limit(name, with_starts):
    shape, selector = (96, 160), selectors.get(name)
    takes = _takes(selector, shape)
    rng = np.random.default_rng(6)
    start = rng.uniform(-1, 1, shape).astype(np.float32)
    with selectors.without_compiling():
        mask = selector(rng.normal(size=shape).astype(np.float32), 0.5, **takes).numpy().astype(np.int8)
    coding = mask_planes.describe(selector, shape, 0.5, 5, takes) or {"levels": [0, 1]}
    starts = mask_coding.start_bins(start) if with_starts else None
    planes = mask_planes.encode(mask, coding, starts, None)
    counts, content = mask_planes.pack(planes)
    decoded = mask_planes.decode(mask_planes.unpack(counts, content), coding, shape, starts, None)
    np.testing.assert_array_equal(decoded, mask)
    limit = selector.mask_bits(shape, 0.5, **takes)
    # A stream is whole words of four bytes, and ends with up to two of them.
    assert limit <= 8 * len(content) + 64 * len(planes)
    assert 8 * len(content) <= 1.001 * limit + 96 * len(planes)


@pytest.mark.parametrize("axes", [((2,), (3,)), ((3,), (2,)), ((0, 2), (1, 3)), ((2,), (2, 3))])
@pytest.mark.parametrize("name", ["n_m:m=4", "block:size=4"])
def test_channels_of_any_axes(name, axes):
    shape, selector = (4, 3, 8, 12), selectors.get(name)
    scores = np.random.default_rng(7).normal(size=shape).astype(np.float32)
    mask = selector(scores, 0.5, axes=axes).numpy()
    layout = selectors.find_layout(shape, axes)
    for matrix, of_scores in zip(layout.stack(mask), layout.stack(scores), strict=True):
        if name.startswith("n_m"):
            np.testing.assert_array_equal(matrix, oracles.choose(selector, of_scores, 0.5))
    np.testing.assert_array_equal(layout.unstack(layout.stack(mask)), mask)
    coding = mask_planes.describe(selector, shape, 0.5, 0, {"axes": axes})
    planes = mask_planes.encode(mask.astype(np.int8), coding, None, None)
    np.testing.assert_array_equal(mask_planes.decode(planes, coding, shape, None, None), mask)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("TopK", {"pruned": -0.1}),
        ("TopK", {"locked": 1.0}),
        ("TopK", {"pruned": 0.5, "locked": 0.5}),
        ("TopK", {"pruned": True}),
        ("MultiCoat", {"coats": 0}),
        ("MultiCoat", {"coats": 2.0}),
        ("NM", {"m": 1}),
        ("NM", {"m": 33}),
        ("Block", {"size": 1}),
    ],
)
def test_selectors_refuse_wrong_arguments(name, arguments):
    with pytest.raises(ValueError, match=f"`{next(iter(arguments))}`"):
        getattr(selectors, name)(**arguments)


@pytest.mark.parametrize(
    ("selector", "k", "units", "message"),
    [
        ("n_m", 0.5, 10, "4 divides. Received: 10 inputs of layer 'mine'"),
        ("n_m", 0.3, 8, "`k` must be N / 4"),
        ("block", 0.1, 4, "Of blocks of 4 x 4 of layer 'mine': k=0.1 keeps none of the 2 weights"),
        ("multicoat:coats=100", 0.5, 4, "keeps none of the 32 weights of layer 'mine'"),
        ("top_k:locked=0.5", 0.4, 8, "of which 32 are always kept"),
        ("top_k:pruned=0.5", 0.6, 8, "32 never"),
    ],
)
def test_layers_refuse_what_a_selector_cannot_choose(selector, k, units, message):
    layer = layers.MaskedDense(8, k=k, selector=selector, seed=1, name="mine")
    with pytest.raises(ValueError, match=message):
        layer.build((None, units))


@pytest.mark.parametrize(
    "text", ["multicoat:coats", "multicoat:coats=x", "multicoat:rate=1", "top_k:pruned=2", "n_m:m=1=2", "top_k:"]
)
def test_get_refuses_wrong_arguments_of_a_name(text):
    with pytest.raises(ValueError, match=text.partition(":")[0]):
        selectors.get(text)


def test_fixed_parts_follow_from_the_seed_and_stay():
    selector = selectors.TopK(pruned=0.25, locked=0.125)
    fixed = selector.draw_fixed((16, 8), 3)
    assert (fixed == -1).sum() == 32 and (fixed == 1).sum() == 16
    assert np.array_equal(fixed, selector.draw_fixed((16, 8), 3))
    assert not np.array_equal(fixed, selector.draw_fixed((16, 8), 4))
    layer = layers.MaskedDense(8, k=0.5, selector=selector, seed=1)
    layer.build((None, 16))
    fixed = selector.draw_fixed((16, 8), layer.masked_kernels["kernel"].fixed_seed)
    for seed in range(3):
        layer.scores.assign(np.random.default_rng(seed).normal(size=(16, 8)))
        mask = layer.mask().numpy()
        assert (mask[fixed == -1] == 0).all() and (mask[fixed == 1] == 1).all() and mask.sum() == 64
    with pytest.raises(ValueError, match="needs `fixed`"):
        selector(np.zeros((2, 2), np.float32), 0.5)


def test_selector_of_a_user_needs_few_lines():
    class Strong(selectors.Selector):
        levels = (0, 3)

        def __call__(self, scores, k, training=False):
            return 3 * tf.stop_gradient(tf.cast(scores > 0, tf.float32)) + scores - tf.stop_gradient(scores)

        def scores_for(self, mask, start):
            return np.where(mask > 0, 1, -1).astype(np.float32)

    kernel = layers.MaskedDense(6, selector=Strong(), seed=1)
    kernel.build((None, 5))
    assert isinstance(kernel.masked_kernels["kernel"], masked_kernel.MaskedKernel)
    mask = kernel.mask().numpy()
    assert kernel.kept == (mask > 0).sum()
    coding = mask_planes.describe(Strong(), (5, 6), 0.5, 0, {})
    planes = mask_planes.encode(mask.astype(np.int8), coding, None, None)
    np.testing.assert_array_equal(mask_planes.decode(planes, coding, (5, 6), None, None), mask)
