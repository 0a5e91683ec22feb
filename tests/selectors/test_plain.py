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
    hint = plain.find_threshold(ranks, tf.constant(100_000)).to_hint() if hinted else None
    sort, sorted_sizes = tf.sort, []
    monkeypatch.setattr(tf, "sort", lambda values: sorted_sizes.append(int(tf.size(values))) or sort(values))
    plain.find_threshold(ranks, tf.constant(100_100), hint)
    assert sum(sorted_sizes) <= at_most * 300_000
