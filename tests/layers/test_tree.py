"""The layers that a layer holds: places and paths."""

import keras
import numpy as np
from converted import masked_layers, moved
from tables import plain_model

from keras_popup import mask_model, strip_masks
from keras_popup.layers import tree


def test_walk_gives_paths_of_names_that_stay():
    first, second = (plain_model("block_of_blocks") for _ in range(2))
    assert [path for path, _ in tree.walk(first)][1:] == [path for path, _ in tree.walk(second)][1:]
    for a, b in zip(*(masked_layers(mask_model(m, k=0.5, seed=1)) for m in (first, second)), strict=True):
        np.testing.assert_array_equal(a.frozen_kernel, b.frozen_kernel)


@keras.saving.register_keras_serializable("tests")
class OddlyHeld(keras.layers.Layer):
    """Holds a layer under a key that is neither a name nor a number."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.held = {("a", 1): keras.layers.Dense(4)}
        self.second = keras.layers.Dense(4)

    def build(self, shape):
        self.held["a", 1].build(shape)
        self.second.build(shape)
        self.built = True

    def call(self, inputs):
        return self.second(self.held["a", 1](inputs))


def test_walk_finds_layers_that_are_held_in_an_unknown_way():
    inputs = keras.Input((4,))
    plain = moved(keras.Model(inputs, OddlyHeld()(inputs)))
    model = mask_model(plain, k=1.0, weights="keep", seed=1)
    x = np.random.default_rng(0).random((2, 4)).astype(np.float32)
    assert len(masked_layers(model)) == 2
    np.testing.assert_array_equal(model(x), plain(x))
    np.testing.assert_array_equal(strip_masks(model)(x), plain(x))
