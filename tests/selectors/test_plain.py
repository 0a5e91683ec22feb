"""The k-th largest score by TensorFlow's own operations."""

import numpy as np
import pytest
import tensorflow as tf

from keras_popup.selectors import plain


@pytest.mark.parametrize(("hinted", "at_most"), [(True, 0.02), (False, 0.1)])
def test_find_threshold_sorts_few_scores(hinted, at_most, monkeypatch):
    """By plain operations: those near the last threshold, or near that of a sample."""
    scores = tf.constant(np.random.default_rng(1).standard_normal(300_000), tf.float32)
    ranks = plain.rank_scores(scores)
    hint = plain.find_threshold(ranks, tf.constant(100_000)).hint if hinted else None
    sort, sorted_sizes = tf.sort, []
    monkeypatch.setattr(tf, "sort", lambda values: sorted_sizes.append(int(tf.size(values))) or sort(values))
    plain.find_threshold(ranks, tf.constant(100_100), hint)
    assert sum(sorted_sizes) <= at_most * 300_000


def tied(kind, size=100_000):
    rng = np.random.default_rng(2)
    values = {
        "two_values": rng.choice([-1.0, 2.0], size),
        "equal": np.ones(size),
        "zeros": np.zeros(size),
        "nan": np.where(rng.random(size) < 0.9, np.nan, 1.0),
        "many_ties": rng.integers(-3, 4, size),
        "one_of_them": np.where(np.arange(size) == size // 3, 1e30, 1e-30),
    }
    return values[kind].astype(np.float32)


@pytest.mark.parametrize("kind", ["two_values", "equal", "zeros", "nan", "many_ties", "one_of_them"])
def test_find_threshold_among_many_ties(kind, monkeypatch):
    """Equal scores are not sorted, neither anew nor from their hint."""
    scores = tied(kind)
    ranks = plain.rank_scores(tf.constant(scores))
    for kept in (1, 10_007, 50_000, 99_999, 100_000):
        order = np.argsort(-np.where(np.isnan(scores), -1, np.abs(scores)), kind="stable")
        expected = np.zeros(scores.size, bool)
        expected[order[:kept]] = True
        first = plain.find_threshold(ranks, tf.constant(kept))
        np.testing.assert_array_equal(first.is_above(ranks), expected)
        again = plain.find_threshold(ranks, tf.constant(kept), first.hint)
        np.testing.assert_array_equal(again.is_above(ranks), expected)
        if int(first.hint) == plain.TIED:
            with monkeypatch.context() as patch:
                patch.setattr(plain, "_find_among", None)
                plain.find_threshold(ranks, tf.constant(kept), first.hint)
