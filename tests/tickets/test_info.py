"""What a ticket says of itself."""

import re

import keras
import numpy as np
import pytest

import keras_popup
from keras_popup import mask_model, models, save_ticket


def test_ticket_info_says_what_is_in_a_ticket(tmp_path):
    model = mask_model(models.Conv2(width=0.1, input_shape=(8, 8, 3)), k={"conv1a": 0.3, "*": 0.5}, seed=1)
    path = tmp_path / "conv2.ticket"
    info = save_ticket(model, path, dataset="digits", metrics={"accuracy": np.float64(0.8765)}, notes={"by": ["me"]})
    assert info.made["dataset"] == "digits"
    assert info.made["notes"] == {"by": ["me"]}
    assert set(info.made["versions"]) >= {"keras-popup", "keras", "tensorflow", "numpy", "constriction"}
    text = str(info)
    row = info.layers[0]
    assert re.search(rf"conv1a +MaskedConv2D +{row.weights} +{row.kept} +0\.3 +{row.seed} ", text)
    assert f"File: {path.stat().st_size:,} bytes" in text
    assert "Metrics: accuracy 0.8765" in text
    assert info.weights == sum(row.weights for row in info.layers)
    assert f"{info.mask_bytes / info.limit_bytes:.1%}" in text


def test_save_ticket_puts_the_preprocessing_into_the_model(tmp_path, caplog):
    """Whoever has the file only feeds it pixels, and gets the predictions of the network that was trained on others."""
    model = keras_popup.mask_model(keras_popup.models.FullyConnected((8, 8, 1), width=0.1), seed=1)
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1), np.uint8)
    scale = keras.layers.Rescaling([0.01], [-0.3])
    path = tmp_path / "a.ticket"
    names = [f"class {number}" for number in range(10)]
    info = save_ticket(model, path, preprocess=[scale], classes=names, arguments={"epochs": 3})
    assert info.classes == tuple(names)
    assert " Input: as it comes, prepared by Rescaling" in str(info)
    assert " Classes: 10: class 0, class 1" in str(info)
    assert " Arguments: epochs 3" in str(info)
    caplog.clear()
    for masked in (False, True):
        again = keras_popup.load_ticket(path, masked=masked)
        expected = model.predict(scale(pixels), verbose=0)
        np.testing.assert_allclose(again.predict(pixels, verbose=0), expected, rtol=1e-5, atol=1e-6)
    assert "unknown" not in caplog.text
    assert [layer.name for layer in model.layers][:2] == ["images", "flatten"]  # the given model is as it was


@pytest.mark.parametrize(
    ("preprocess", "first", "input_line"),
    [
        (None, (), "Input as the model was trained on: unknown"),
        ([], (), "Input: as it comes"),
        (None, (keras.layers.Rescaling(2.0),), "Input: as it comes, prepared by Rescaling"),
    ],
)
def test_ticket_info_tells_what_is_known_of_the_input(tmp_path, caplog, preprocess, first, input_line):
    plain = keras.Sequential([keras.Input((4,)), *first, keras.layers.Dense(3)])
    info = save_ticket(keras_popup.mask_model(plain, seed=1), tmp_path / "a.ticket", preprocess=preprocess)
    assert f" {input_line}\n" in str(info)
    keras_popup.load_ticket(tmp_path / "a.ticket")
    assert ("a.ticket': input as the model was trained on: unknown" in caplog.text) == ("unknown" in input_line)


def test_save_ticket_refuses_wrong_origins_before_any_work(tmp_path):
    model = keras_popup.mask_model(keras_popup.models.FullyConnected((8, 8, 1), width=0.1), seed=1)
    for arguments, error, message in [
        ({"classes": "abc"}, TypeError, "`classes` must be a list of strings. Received: 'abc'"),
        ({"classes": [1, 2]}, TypeError, "`classes` must be a list of strings"),
        ({"classes": ["a", "b"]}, ValueError, "`classes` must be different names for the 10 outputs"),
        ({"classes": ["a"] * 10}, ValueError, "`classes` must be different names"),
        (
            {"preprocess": [keras.layers.Rescaling(2.0, name="flatten")]},
            ValueError,
            "has a layer named 'flatten' already",
        ),
        ({"preprocess": [0.5]}, TypeError, "`preprocess` must be Keras layers in a list. Received: 0.5"),
        ({"preprocess": [keras.layers.Flatten(name="flat")]}, ValueError, "The layers of `preprocess` give"),
        ({"arguments": {"a": object()}}, TypeError, "JSON"),
    ]:
        with pytest.raises(error, match=message):
            save_ticket(model, tmp_path / "a.ticket", **arguments)
    assert not list(tmp_path.iterdir())
