"""The part of each batch that a worker reads."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from keras_popup.datasets import Part, sources

SEED = 5


def arrays(batches):
    return [tuple(each.numpy() for each in batch) for batch in batches]


def check(whole, parts):
    """Checks that parts, put together, are the whole batches, bit for bit."""
    assert all(len(part) == len(whole) for part in parts)
    for batch, pieces in zip(whole, zip(*parts, strict=True), strict=True):
        images, labels = (np.concatenate([piece[i] for piece in pieces]) for i in (0, 1))
        np.testing.assert_array_equal(images, batch[0])
        np.testing.assert_array_equal(labels, batch[1])
        assert {int(piece[2]) for piece in pieces} == {len(batch[0])}


# Batches of which some are smaller, parts that are empty, and a last batch that has more in a part than the others.
CASES = [(4, [0, 1, 2]), (5, [0, 1, 3]), (3, [0, 2, 3, 5]), (7, [0, 1, 2, 3]), (100, [0, 1, 2]), (2, [0, 1, 2, 4, 5])]


@pytest.mark.parametrize("kind", [sources.ArraySource, sources.FileSource, sources.TfdsSource])
@pytest.mark.parametrize(("batch_size", "cuts"), CASES, ids=str)
def test_parts_are_those_of_the_whole_batches(kind, batch_size, cuts, every_source):
    data, stream = every_source[kind], {"seed": SEED, "epochs": 2}
    parts = [Part(*ends, cuts[-1]) for ends in itertools.pairwise(cuts)]
    whole = arrays(data.training_batches(batch_size, **stream))
    check(whole, [arrays(data.training_parts(batch_size, part, **stream)) for part in parts])
    whole = arrays(data.evaluation_batches("test", batch_size))
    check(whole, [arrays(data.evaluation_parts("test", batch_size, part)) for part in parts])


@pytest.mark.parametrize("kind", [sources.FileSource, sources.TfdsSource])
def test_parts_of_others_are_not_decoded(kind, every_source, monkeypatch):
    decoded, fit = [], sources._fit

    def count(data, shape, crop_seed):
        mark = tf.py_function(lambda: decoded.append(1), [], [])
        with tf.control_dependencies([mark]):
            return fit(tf.identity(data), shape, crop_seed)

    monkeypatch.setattr(sources, "_fit", count)
    data = every_source[kind]
    for part in (Part(0, 1, 2), Part(1, 2, 2)):
        decoded.clear()
        images = sum(len(batch[0]) for batch in data.training_parts(4, part, seed=SEED, epochs=1))
        assert len(decoded) == images < 0.7 * data.train.size
