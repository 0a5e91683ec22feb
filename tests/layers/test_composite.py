"""Layers that hold masked ones, in files and copies."""

import keras
import numpy as np
import pytest
from converted import agree, fit_once, masked_layers, moved, random, spread
from tables import plain_model

from keras_popup import mask_model, strip_masks
from keras_popup.conversion import masked_kernels


@keras.saving.register_keras_serializable("tests")
class WithoutConfig(keras.layers.Layer):
    """Keras makes its config of the arguments, as it has no `get_config`."""

    def __init__(self, units, depth, **kwargs):
        super().__init__(**kwargs)
        self.parts = [keras.layers.Dense(units) for _ in range(depth)]

    def call(self, x):
        for part in self.parts:
            x = keras.ops.tanh(part(x))
        return x


@pytest.mark.filterwarnings("ignore:.*`build\\(\\)` was called on layer:UserWarning")
def test_masked_composite_with_a_config_that_keras_makes(tmp_path):
    inputs = keras.Input((4,))
    plain = spread(keras.Model(inputs, WithoutConfig(4, 3)(WithoutConfig(4, depth=2)(inputs))))
    model = spread(mask_model(plain, k=0.5, seed=1))
    assert len(masked_kernels(model)) == 5
    x = random(3, 4)
    model.save(tmp_path / "model.keras")
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    for other in (keras.models.load_model(tmp_path / "model.keras"), clone, strip_masks(model)):
        np.testing.assert_array_equal(other(x), model(x))


@pytest.mark.integration
def test_masked_composite_stays_frozen_in_files(tmp_path):
    plain = plain_model("block_of_blocks")
    masked = mask_model(plain, k=0.5, weights="keep", seed=1)
    assert {v.name for v in masked.trainable_variables} == {"scores"}
    masked.save(tmp_path / "model.keras")
    for again in (keras.models.load_model(tmp_path / "model.keras"), keras.models.clone_model(masked)):
        assert {v.name for v in again.trainable_variables} == {"scores"}
        before = [v.numpy() for v in again.non_trainable_variables]
        fit_once(again, [random(4, 6, 8)])
        for a, b in zip(before, again.non_trainable_variables, strict=True):
            np.testing.assert_array_equal(a, b)


@keras.saving.register_keras_serializable("tests")
class Popping(keras.layers.Layer):
    """Takes its config apart, as many do. Holds a tuple, and reads a bias of a layer that it holds."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.pair = (keras.layers.Dense(units), keras.layers.BatchNormalization())

    def call(self, x, training=None):
        return self.pair[1](self.pair[0](x), training=training)

    def get_config(self):
        return {**super().get_config(), "units": self.units}

    @classmethod
    def from_config(cls, config):
        return cls(config.pop("units"), **config)


@pytest.mark.filterwarnings("ignore:.*`build\\(\\)` was called on layer:UserWarning")
def test_masked_composite_does_not_use_up_its_config(tmp_path):
    inputs = keras.Input((4,))
    plain = moved(keras.Model(inputs, Popping(3, name="popping")(inputs)))
    masked = mask_model(plain, k={"popping/pair/0": 0.5}, seed=1)
    assert len(masked_layers(masked)) == 1
    x = random(4, 4)
    masked.save(tmp_path / "model.keras")
    agree(keras.models.load_model(tmp_path / "model.keras"), masked, x)
    agree(strip_masks(masked), masked, x)
    agree(strip_masks(masked), masked, x)


@keras.saving.register_keras_serializable("tests")
class Bare(keras.layers.Layer):
    """Its constructor takes nothing of Keras's own, and its attributes have names that others use."""

    def __init__(self, units):
        super().__init__()
        self.units = units
        self._stock, self._exchange, self._frozen = keras.layers.Dense(units), {}, False

    def build(self, shape):
        self._stock.build(shape)

    def call(self, x):
        return self._stock(x)

    def get_config(self):
        return {"units": self.units}


def test_masked_composite_without_keyword_arguments(tmp_path):
    inputs = keras.Input((4,))
    masked = mask_model(keras.Model(inputs, Bare(3)(inputs)), k=0.5, seed=1)
    masked.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert len(masked_layers(loaded)) == 1
    agree(loaded, masked, random(4, 4))
    agree(strip_masks(loaded), masked, random(4, 4))
