"""strip_masks: plain models of masked ones."""

import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
from converted import random
from tables import plain_model

from keras_popup import layers, mask_model, models, strip_masks


def test_strip_masks_leaves_the_given_model_alone():
    model = mask_model(models.FullyConnected(width=0.1), k=0.5, seed=1)
    before = model.get_config(), model.get_weights()
    strip_masks(model)
    assert model.get_config() == before[0]
    for a, b in zip(model.get_weights(), before[1], strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.integration
def test_strip_masks_gives_what_loads_without_keras_popup(tmp_path):
    plain = strip_masks(mask_model(models.FullyConnected((4, 4, 1), width=0.1), k=0.5, seed=1))
    plain.save(tmp_path / "plain.keras")
    x = np.random.default_rng(0).random((2, 4, 4, 1))
    np.save(tmp_path / "x.npy", x)
    code = """
        import sys, keras, numpy
        model = keras.models.load_model("plain.keras")
        assert "keras_popup" not in sys.modules
        numpy.save("y.npy", model.predict(numpy.load("x.npy"), verbose=0))
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=tmp_path, check=True, capture_output=True)
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), plain.predict(x, verbose=0))


def test_strip_masks_keeps_the_names_of_inputs():
    plain = plain_model("shared_two_in_two_out")
    model = strip_masks(mask_model(plain, k=0.5, seed=1))
    assert [x.name for x in model.inputs] == ["left", "right"]
    assert model.output_names == plain.output_names


def test_strip_masks_refuses_masks_made_by_other_code():
    @keras.saving.register_keras_serializable("tests")
    class Own(keras.layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.dense = layers.MaskedDense(3, seed=1)

        def call(self, x):
            return self.dense(x)

    inputs = keras.Input((4,))
    with pytest.raises(ValueError, match="cannot be stripped"):
        strip_masks(keras.Model(inputs, Own()(inputs)))


def test_strip_masks_that_are_shared_across_a_border():
    dense, inputs = layers.MaskedDense(4, seed=1), keras.Input((3, 4))
    once = dense(keras.layers.GlobalAveragePooling1D()(inputs))
    masked = keras.Model(inputs, [keras.layers.TimeDistributed(dense)(inputs), once])
    x = random(2, 3, 4)
    for a, b in zip(strip_masks(masked).predict(x, verbose=0), masked.predict(x, verbose=0), strict=True):
        np.testing.assert_array_equal(a, b)
