"""Made-up inputs, and how far outputs are apart."""

import keras
import numpy as np
import pytest

from keras_popup.conversion import comparison


def test_compute_difference_is_on_the_scale_of_each_output():
    expected = {"box": np.array([640.0]), "share": np.array([0.9, 0.1])}
    swapped = {"box": np.array([640.0]), "share": np.array([0.1, 0.9])}
    assert comparison.compute_difference(expected, swapped) == pytest.approx(0.8 / 0.9)
    assert np.isnan(comparison.compute_difference(expected, {**expected, "box": np.array([np.nan])}))
    with pytest.raises(ValueError, match="'box' has shape"):
        comparison.compute_difference(expected, {**expected, "box": np.zeros(2)})


def test_draw_inputs_for_every_kind_of_input():
    dtypes = {"float32": (None, 3), "uint8": (2, 4), "int32": (5,), "string": (1,), "bool": (2,)}
    inputs = [keras.Input(shape, dtype=dtype) for dtype, shape in dtypes.items()]
    batch = comparison.draw_inputs(keras.Model(inputs, inputs))
    assert [array.shape for array in batch] == [(4, 32, 3), (4, 2, 4), (4, 5), (4, 1), (4, 2)]
    assert [array.dtype.kind for array in batch] == ["f", "u", "i", "U", "b"]
    for one, other in zip(batch, comparison.draw_inputs(keras.Model(inputs, inputs)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_uses_16_bits_looks_at_the_layers():
    dense = keras.layers.Dense(2, dtype="mixed_bfloat16")
    assert comparison.uses_16_bits(keras.Sequential([keras.Input((3,)), keras.layers.Dense(3), dense]))
    assert not comparison.uses_16_bits(keras.Sequential([keras.Input((3,)), keras.layers.Dense(3)]))
