"""How many weights k keeps."""

import hypothesis
import pytest
import tensorflow as tf
from hypothesis import strategies as st

from keras_popup.selectors import counts, thresholds


@hypothesis.given(k=st.floats(0, 1, exclude_min=True), n=st.integers(1, 2**31 - 1))
@hypothesis.example(k=0.9, n=10)
@hypothesis.example(k=0.7, n=5)
@hypothesis.example(k=0.49999999999999994, n=1)
@hypothesis.settings(deadline=None, derandomize=True)
def test_count_kept_agrees_with_that_of_tensors(k, n):
    count = counts.count_kept(k, n)
    assert int(thresholds.count_kept_tensor(tf.constant(k, tf.float64), n)) == count
    assert abs(count - k * n) <= 0.5


@pytest.mark.parametrize(("k", "n", "kept"), [(0.9, 10, 9), (0.9, 1000, 900), (0.7, 5, 4), (0.5, 1, 1), (0.1, 5, 1)])
def test_count_kept_rounds_half_up(k, n, kept):
    assert counts.count_kept(k, n) == kept
