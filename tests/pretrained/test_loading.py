"""Loading the networks of the package."""

import numpy as np

import keras_popup
from keras_popup import pretrained


def test_load_gives_the_network_plain_and_masked():
    images = np.random.default_rng(1).uniform(0, 255, (5, 8, 8, 1)).astype(np.float32)
    plain, masked = pretrained.load("digits/fc"), pretrained.load("digits/fc", masked=True)
    assert not keras_popup.masked_layers(plain)
    assert len(keras_popup.masked_layers(masked)) == 3
    np.testing.assert_allclose(plain.predict(images, verbose=0), masked.predict(images, verbose=0), atol=1e-5)
