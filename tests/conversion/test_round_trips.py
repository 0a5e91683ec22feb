"""Models through the whole library: converted, trained, saved, loaded, stripped."""

import logging

import keras
import numpy as np
import pytest
from converted import fit_once, masked_layers, moved, outputs_of
from hypothesis import given, settings
from hypothesis import strategies as st
from tables import every_model

from keras_popup import mask_model, mask_summary, strip_masks
from keras_popup.conversion import masked_kernels
from keras_popup.layers import tree
from keras_popup.layers.maskable import kernels_of


@pytest.mark.filterwarnings("ignore:.*`build\\(\\)` was called on layer:UserWarning")
@pytest.mark.parametrize("weights", ["random", pytest.param("keep", marks=pytest.mark.slow)])
@every_model
def test_round_trip_convert_train_save_load_strip(case, weights, tmp_path, caplog):
    plain = moved(case.make())
    inputs = case.inputs(plain)
    with caplog.at_level(logging.WARNING, "keras_popup"):
        model = mask_model(plain, k=0.5, weights=weights, seed=1)

    left = [layer for path, layer in tree.walk(plain) if path in case.not_masked]
    maskable = [layer for _, layer in tree.walk(plain) if kernels_of(layer) and layer not in left]
    assert len(masked_layers(model)) == len(maskable)
    assert caplog.text.count("Without a mask") == bool(case.not_masked)
    rows = {row.path: row.not_masked for row in mask_summary(model, print_fn=len).layers}
    for path, reason in case.not_masked.items():
        assert f"{path} (" in caplog.text
        assert reason in caplog.text
        assert reason in rows[path]
    if not case.not_masked:
        assert {v.name for v in model.trainable_variables} == {"scores"}

    fixed = [kernel.kernel.numpy() for _, kernel in masked_kernels(model)]
    fit_once(model, inputs)
    for (_, kernel), before in zip(masked_kernels(model), fixed, strict=True):
        np.testing.assert_array_equal(kernel.kernel, before)

    expected = outputs_of(model, inputs)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    stripped = strip_masks(loaded)
    if tree.is_graph(plain):
        assert [layer.name for layer in stripped.layers] == [layer.name for layer in plain.layers]
    assert [type(a) for _, a in tree.walk(stripped)] == [type(b) for _, b in tree.walk(plain)]
    stripped.save(tmp_path / "stripped.keras")
    for other in (loaded, stripped, keras.models.load_model(tmp_path / "stripped.keras")):
        for a, b in zip(outputs_of(other, inputs), expected, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.integration
@given(
    stack=st.lists(st.sampled_from(["conv", "depthwise", "norm", "branch", "shared", "transpose", "pool"]), max_size=5)
)
@settings(max_examples=8, deadline=None, derandomize=True)
@pytest.mark.rare
def test_round_trip_of_random_graphs(stack):
    shared = keras.layers.Conv2D(4, 3, padding="same", activation="relu")
    makers = {
        "conv": lambda x: keras.layers.Conv2D(4, 3, padding="same")(x),
        "depthwise": lambda x: keras.layers.DepthwiseConv2D(3, padding="same", activation="relu")(x),
        "norm": lambda x: keras.layers.BatchNormalization()(x),
        "branch": lambda x: keras.layers.Add()([keras.layers.Conv2D(4, 1)(x), keras.layers.ReLU()(x)]),
        "shared": shared,
        "transpose": lambda x: keras.layers.Conv2DTranspose(4, 3, padding="same")(x),
        "pool": lambda x: keras.layers.Concatenate()([x[..., :2], keras.layers.MaxPooling2D(1)(x)[..., 2:]]),
    }
    inputs = keras.Input((4, 4, 4))
    x = inputs
    for kind in stack:
        x = makers[kind](x)
    plain = keras.Model(inputs, keras.layers.Dense(4)(keras.layers.GlobalAveragePooling2D()(x)))
    model = mask_model(plain, k=0.5, seed=1)
    images = [np.random.default_rng(0).random((4, 4, 4, 4)).astype(np.float32)]
    fit_once(model, images)
    stripped = strip_masks(model)
    assert [layer.name for layer in stripped.layers] == [layer.name for layer in plain.layers]
    assert not masked_layers(stripped)
    np.testing.assert_array_equal(outputs_of(stripped, images)[0], outputs_of(model, images)[0])
