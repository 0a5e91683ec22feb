"""GlobalTopK: masks of several kernels, gradient, errors."""

import math

import numpy as np
import pytest
import tensorflow as tf

from keras_popup import selectors

FANS = [(4, 9), (100, 9), (25, 9)]


def choose(selector, scores, k):
    found, _ = selector.find_thresholds(scores, k, FANS)
    return [
        selector(each, k, threshold=threshold, fans=fans).numpy()
        for each, threshold, fans in zip(scores, found, FANS, strict=True)
    ]


@pytest.mark.parametrize("k", [0.05, 0.3, 1.0])
def test_global_top_k_keeps_the_best_of_all_kernels(k):
    rng = np.random.default_rng(1)
    scores = [rng.standard_normal((20, 30)).astype(np.float32) / math.sqrt(fan) for fan, _ in FANS]
    masks = choose(selectors.GlobalTopK(floor=0.0), scores, k)
    assert sum(mask.sum() for mask in masks) == round(1800 * k)
    scaled = [np.abs(each) * np.float32(math.sqrt(fan)) for each, (fan, _) in zip(scores, FANS, strict=True)]
    kept = [sizes[mask != 0].min() for sizes, mask in zip(scaled, masks, strict=True)]
    others = [sizes[mask == 0].max(initial=0) for sizes, mask in zip(scaled, masks, strict=True)]
    assert min(kept) >= max(others)


def test_global_top_k_without_scale_takes_large_scores():
    scores = [np.full((20, 30), size, np.float32) for size in (1.0, 0.9, 2.0)]
    masks = choose(selectors.GlobalTopK(floor=0.0, scale=False), scores, 1 / 3)
    assert [int(mask.sum()) for mask in masks] == [1, 1, 598]  # each keeps one at least


@pytest.mark.parametrize("floor", [0.0, 0.25, 1.0])
def test_each_kernel_keeps_its_floor(floor):
    rng = np.random.default_rng(2)
    scores = [(rng.random((20, 30)) * factor).astype(np.float32) for factor in (1e-6, 1.0, 1e-6)]
    masks = choose(selectors.GlobalTopK(floor=floor), scores, 0.2)
    least = max(1, math.floor(floor * 0.2 * 600))
    assert [int(mask.sum()) for mask in masks] == [least, 360 - 2 * least, least]
    for mask, each in zip(masks, scores, strict=True):
        assert each[mask != 0].min() >= each[mask == 0].max()


def test_scores_for_masks_of_all_kernels_choose_them_again():
    rng = np.random.default_rng(3)
    for scale in (True, False):
        selector = selectors.GlobalTopK(floor=0.1, scale=scale)
        masks = [(rng.random((20, 30)) < share).astype(np.uint8) for share in (0.1, 0.5, 0.9)]
        k = sum(int(mask.sum()) for mask in masks) / 1800
        starts = [rng.uniform(-1, 1, (20, 30)).astype(np.float32), np.zeros((20, 30), np.float32)]
        starts.append(np.full((20, 30), 0.3, np.float32))
        made = [selector.scores_for(*each) for each in zip(masks, starts, FANS, strict=True)]
        for mask, chosen in zip(masks, choose(selector, made, k), strict=True):
            np.testing.assert_array_equal(mask, chosen)


def test_global_top_k_has_the_gradient_of_the_formula():
    scores, selector = tf.Variable([[0.5, -0.25], [0.0, -2.0]]), selectors.GlobalTopK()
    found, _ = selector.find_thresholds([scores, tf.ones(3), tf.ones(5)], 0.5, FANS)
    with tf.GradientTape() as tape:
        mask = selector(scores, 0.5, threshold=found[0], fans=FANS[0])
        loss = tf.reduce_sum(mask * tf.constant([[1.0, 2.0], [3.0, 4.0]]))
    assert tape.gradient(loss, scores).numpy().tolist() == [[1.0, -2.0], [0.0, -4.0]]


@pytest.mark.parametrize(
    "arguments",
    [{"floor": 1.5}, {"floor": True}, {"scale": 1}, {"group": 3}, {"group": 3, "place": 2, "members": 2}],
)
def test_global_top_k_refuses_arguments_out_of_range(arguments):
    with pytest.raises(ValueError, match="Received"):
        selectors.GlobalTopK(**arguments)


def test_check_group_refuses_a_k_that_kernels_cannot_share():
    with pytest.raises(ValueError, match="keeps 2 of the 30 weights of the network, but each of its 3 kernels"):
        selectors.GlobalTopK().check_group([10, 10, 10], 0.08)
    with pytest.raises(ValueError, match="2\\*\\*31 - 1 weights at most"):
        selectors.GlobalTopK().check_group([2**30, 2**30], 0.5)
