"""Copies of models that Keras could get wrong without a word: preprocessing, sharing, odd configs."""

import logging

import blocks
import keras
import numpy as np
import pytest
from converted import agree, masked_layers, moved, random
from tables import plain_model

from keras_popup import mask_model, strip_masks
from keras_popup.exports import api


def test_copy_model_shares_a_layer_that_cannot_be_copied(caplog):
    function = blocks.WithoutConfig(keras.ops.relu)
    inputs = keras.Input((4,))
    plain = keras.Model(inputs, keras.layers.Dense(3)(function(inputs)))
    model = mask_model(plain, k=0.5, seed=1)
    assert function in model.layers
    assert len(masked_layers(model)) == 1


def test_copy_model_keeps_an_adapted_normalization(tmp_path):
    normalization = keras.layers.Normalization()
    normalization.adapt(50 + 3 * random(50, 8))
    inputs = keras.Input((8,))
    plain = keras.Model(inputs, keras.layers.Dense(3)(normalization(inputs)))
    x = 50 + 3 * random(4, 8)
    masked = mask_model(plain, k=1.0, weights="keep", seed=1)
    agree(masked, plain, x)
    agree(strip_masks(masked), plain, x)
    keras.config.set_dtype_policy("mixed_bfloat16")
    half = mask_model(keras.Sequential([keras.Input((8,)), normalization, keras.layers.Dense(32)]), k=0.5, seed=1)
    for path in ("saved", "model.tflite", "model.onnx"):
        assert api.export(half, tmp_path / path, inputs=x).difference < 1e-5


def test_copy_model_keeps_a_vocabulary(tmp_path):
    lookup = keras.layers.IntegerLookup()
    lookup.adapt(np.array([7, 7, 9, 11]))
    inputs = keras.Input((2,), dtype="int64")
    x = keras.layers.Flatten()(keras.layers.Embedding(4, 3)(lookup(inputs)))
    plain = keras.Model(inputs, keras.layers.Dense(3)(x))
    words = np.array([[7, 9], [11, 5]])
    masked = mask_model(plain, k=1.0, weights="keep", seed=1)
    agree(masked, plain, words)
    agree(strip_masks(masked), plain, words)
    assert api.export(masked, tmp_path / "saved", inputs=words).difference <= 1e-5


def shared_models():
    dense, inputs = keras.layers.Dense(4, name="shared"), keras.Input((3, 4))
    nested = keras.Input((4,))
    submodel = keras.Model(nested, keras.layers.Dense(4)(dense(nested)))
    mean = keras.layers.GlobalAveragePooling1D()(inputs)
    for holder in (
        keras.layers.TimeDistributed(dense),
        keras.layers.TimeDistributed(submodel),
        blocks.Residual(keras.Sequential([dense, keras.layers.ReLU()])),
    ):
        yield keras.Model(inputs, [keras.layers.Dense(2)(holder(inputs)), dense(mean)])


@pytest.mark.parametrize("number", range(3))
def test_copy_model_shares_layers_across_a_border(number):
    plain = moved(list(shared_models())[number])
    x = random(4, 3, 4)
    masked = mask_model(plain, k=1.0, weights="keep", seed=1)
    for a, b in zip(masked.predict(x, verbose=0), plain.predict(x, verbose=0), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    stripped = strip_masks(mask_model(plain, k=0.5, seed=1))
    kernels = [v for v in stripped.weights if v.name == "kernel"]
    assert len({id(v) for v in kernels}) == len(kernels) == len([v for v in plain.weights if v.name == "kernel"])


def test_copy_model_with_a_lambda():
    inputs, nested = keras.Input((3, 4)), keras.Input((4,))
    inner = keras.Model(nested, keras.layers.Lambda(lambda x: 2 * x, name="twice")(keras.layers.Dense(4)(nested)))
    plain = keras.Model(inputs, keras.layers.TimeDistributed(inner)(inputs))
    masked = mask_model(plain, k=1.0, weights="keep", seed=1)
    assert len(masked_layers(masked)) == 1
    x = random(2, 3, 4)
    agree(masked, plain, x)
    agree(strip_masks(masked), plain, x)
    assert api._convert_to_float32(masked) is masked


def test_copy_model_that_is_compiled_with_a_loss_of_its_own(tmp_path):
    plain = plain_model("subclassed")
    plain.compile("sgd", lambda y, p: keras.ops.mean(y - p))
    masked = mask_model(plain, k=0.5, seed=1)
    assert not masked.compiled
    masked.compile("sgd", "mse")
    masked.save(tmp_path / "model.keras")
    agree(keras.models.load_model(tmp_path / "model.keras"), masked, random(2, 6, 6, 3))


def test_copy_model_names_a_class_that_is_lost(caplog):
    class Own(keras.Model):
        def __init__(self, units):
            inputs = keras.Input((4,))
            super().__init__(inputs, keras.layers.Dense(units)(inputs))

    with caplog.at_level(logging.WARNING, "keras_popup"):
        mask_model(Own(3), k=0.5, seed=1)
    assert "(Own) is a Functional: it lacks the methods and attributes that its class adds" in caplog.text
