import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from keras_popup.layers import MaskedDense, exact_k
from keras_popup.selectors import counts, thresholds

FRACTIONS = [1.0, 0.7, 0.5, 0.1, 1 / 3, np.nextafter(0.5, 0), np.nextafter(0.5, 1), 1 - 2**-53, 2.0**-31, 1e-20]


@pytest.mark.parametrize("k", FRACTIONS)
def test_split_adds_up_on_every_path(k):
    parts = exact_k.split(k)
    assert parts.dtype == np.float32
    assert parts[0] == np.float32(k)
    assert exact_k.read(parts) == k
    for function in (exact_k.join, tf.function(exact_k.join), tf.function(exact_k.join, jit_compile=True)):
        assert function(tf.constant(parts)).numpy() == k


@given(st.floats(2.0**-60, 1.0))
def test_split_of_any_fraction(k):
    assert exact_k.read(exact_k.split(k)) == k == exact_k.join(exact_k.split(k)).numpy()


@given(st.integers(1, 2**31 - 1), st.data())
def test_join_counts_as_the_fraction_does(n, data):
    # Where k * n is near a half, the last bit of k decides.
    half = (data.draw(st.integers(0, n - 1)) + 0.5) / n
    for k in (half, np.nextafter(half, 0), np.nextafter(half, 1)):
        if 0 < k <= 1:
            assert int(thresholds.count_kept_tensor(exact_k.join(exact_k.split(k)), n)) == counts.count_kept(k, n)


@pytest.mark.parametrize("k", [0.9e-20, 1e-300])
def test_split_refuses_what_is_too_small(k):
    with pytest.raises(ValueError, match="at least 1e-20"):
        exact_k.split(k)


def test_from_file_reads_what_earlier_versions_wrote():
    np.testing.assert_array_equal(exact_k.from_file(np.float64(0.7)), exact_k.split(0.7))
    np.testing.assert_array_equal(exact_k.from_file(exact_k.split(0.7)), exact_k.split(0.7))


def test_weights_of_earlier_versions_are_not_taken_for_others():
    layer = MaskedDense(5, k=0.7, seed=1)
    layer.build((None, 3))
    weights = [each if each.shape != (exact_k.PARTS,) else np.float64(0.3) for each in layer.get_weights()]
    with pytest.raises(ValueError, match="shape"):
        layer.set_weights(weights)
    assert layer.k == 0.7


@pytest.mark.parametrize("k", [0.7, 0.1, 1 / 3])
def test_k_stays_exact_in_weights_files_and_checkpoints(k, tmp_path):
    def make(k):
        return keras.Sequential([keras.Input((5,)), MaskedDense(1, k=k, seed=1)])

    model = make(k)
    model.save_weights(tmp_path / "a.weights.h5")
    tf.train.Checkpoint(model=model).write(str(tmp_path / "checkpoint"))
    others = [make(1.0) for _ in range(3)]
    others[0].load_weights(tmp_path / "a.weights.h5")
    others[1].set_weights(model.get_weights())
    tf.train.Checkpoint(model=others[2]).read(str(tmp_path / "checkpoint")).assert_existing_objects_matched()
    assert [other.layers[-1].k for other in others] == [k] * 3
    assert [int(tf.reduce_sum(other.layers[-1].mask())) for other in others] == [counts.count_kept(k, 5)] * 3
