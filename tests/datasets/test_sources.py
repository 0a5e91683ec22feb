"""Where images are, and their order."""

import numpy as np
import pytest
import tensorflow as tf
from small_datasets import epochs_of, equal

from keras_popup import datasets
from keras_popup.datasets import sources


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("size", [45_000, 60_000])
def test_shuffle_index_orders_are_unrelated(seed, size):
    orders = [
        next(iter(sources._shuffle_index(size, s, tf.constant(epoch, tf.int64)).batch(size))).numpy()
        for s, epoch in ((seed, 0), (seed, 1), (seed, 2), (seed + 1, 0))
    ]
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(size))
    correlations = np.corrcoef([np.arange(size), *orders])
    assert np.abs(correlations - np.eye(5)).max() < 0.03


def test_tfds_source_does_not_depend_on_the_global_seed(every_source):
    data = every_source[sources.TfdsSource]
    orders = []
    for global_seed in (0, 5):
        tf.random.set_seed(global_seed)
        orders.append(epochs_of(data, 0, 2, seed=0))
    assert equal(*orders)


def test_array_source_is_no_constant_of_the_graph():
    data = datasets.load("digits", validation=0)
    list(data.training_batches(64, seed=1, epochs=1))
    assert not any(tf.is_symbolic_tensor(tensor) for tensor in data.train._tensors)
