"""Kernels of int8 in LiteRT files, in LiteRT's own runtime."""

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from exported import conv_net, images, trained_net
from tables import LAYERS, small_model

import keras_popup
from keras_popup.exports import litert_int8

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("case", [case for case in LAYERS if "bias" not in case.id])
def test_with_int8_weights_of_every_layer(case, tmp_path):
    model = small_model(case, k=0.5)
    result = keras_popup.export(model, tmp_path / "model.tflite", "litert_int8")
    assert result.tolerance == 1e-4  # that of exact kernels


@pytest.mark.parametrize("selector", ["signed", "multicoat:coats=3", "n_m", "block"])
def test_with_int8_weights_of_every_kind_of_mask(selector, tmp_path):
    stack = [keras.Input((8, 8, 4)), keras.layers.Conv2D(8, 3), keras.layers.Flatten(), keras.layers.Dense(5)]
    model = keras_popup.mask_model(keras.Sequential(stack), k=0.5, selector=selector, seed=1)
    result = keras_popup.export(model, tmp_path / "model.tflite", "litert_int8")
    assert result.tolerance == 1e-4  # that of exact kernels


def test_with_int8_weights_gives_the_same_bits(tmp_path):
    """The int8 file against the float file, in the runtime: equal, channel scales and all."""
    model = conv_net()
    outputs = []
    for name in ("litert", "litert_int8"):
        keras_popup.export(model, tmp_path / "model.tflite", name)
        runner = Interpreter(str(tmp_path / "model.tflite")).get_signature_runner()
        outputs.append(runner(images=images())["output_0"])
    np.testing.assert_array_equal(*outputs)


@pytest.mark.parametrize("axis", [0, 3])
def test_quantize_gives_steps_and_scales(axis):
    rng = np.random.default_rng(0)
    signs = rng.integers(-1, 2, (3, 4, 5, 6)).astype(np.float32)
    along = tuple(-1 if a == axis else 1 for a in range(4))
    scales = rng.random(signs.shape[axis]).astype(np.float32) + 0.1
    for scale in (np.float32(0.3), scales.reshape(along)):
        steps, found, exact = litert_int8._quantize(signs * scale, axis)
        assert exact
        np.testing.assert_array_equal(steps, signs)
        np.testing.assert_array_equal(
            steps * found.astype(np.float32).reshape(along if found.size > 1 else ()), signs * scale
        )
    kernel = rng.standard_normal((3, 4, 5, 6)).astype(np.float32)
    steps, found, exact = litert_int8._quantize(kernel, axis)
    assert not exact
    assert np.abs(steps * found.reshape(along) - kernel).max() <= found.max() / 2 * 1.001
    assert litert_int8._quantize(np.zeros((2, 2), np.float32), 0)[2]


def test_with_int8_weights_that_are_rounded(tmp_path):
    result = keras_popup.export(trained_net(), tmp_path / "model.tflite", "litert_int8")
    assert 1e-5 < result.difference < 0.05
    assert result.tolerance == 0.1
