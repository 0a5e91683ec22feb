"""Maps of masks."""

import keras
import numpy as np
import pytest

import keras_popup
from keras_popup.conversion import average_channels, masked_kernels


@pytest.mark.parametrize(
    ("layer", "shape", "most", "expected"),
    [
        (keras.layers.Dense(6), (10,), 64, (10, 6)),
        (keras.layers.Dense(6), (100,), 16, (16, 6)),
        (keras.layers.Conv2D(5, 3), (8, 8, 4), 64, (4, 5)),
        (keras.layers.Conv2D(5, 3), (8, 8, 4), 2, (2, 2)),
    ],
)
def test_average_channels_has_the_share_kept(layer, shape, most, expected):
    model = keras_popup.mask_model(keras.Sequential([keras.Input(shape), layer]), k=0.3, seed=1)
    ((_, kernel),) = masked_kernels(model)
    shares = average_channels(kernel, most)
    assert shares.shape == expected
    assert 0 <= shares.min() <= shares.max() <= 1
    if most == 64:
        mask = kernel.read_mask()
        np.testing.assert_allclose(shares, mask.reshape(-1, *mask.shape[-2:]).mean(0))
