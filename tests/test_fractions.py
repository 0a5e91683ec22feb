"""The check of k."""

import pytest

from keras_popup import selectors


@pytest.mark.parametrize("k", [0, -0.1, 1.0001, float("nan"), float("inf"), "half", None, True])
def test_check_k_refuses_what_is_out_of_range(k):
    with pytest.raises(ValueError, match=r"must be a number in \(0, 1\]"):
        selectors.check_k(k)
