"""The command `predict`."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from command_line import run

import keras_popup
from keras_popup import datasets


@pytest.fixture
def digit(tmp_path):
    """The first test image of the digits, as a file."""
    data = datasets.load("digits")
    images, labels = next(iter(data.evaluation_batches("test", 1)))
    path = tmp_path / "digit.png"
    path.write_bytes(tf.io.encode_png(images[0]).numpy())
    return path, images.numpy(), int(np.argmax(labels[0]))


def test_predict_gives_the_probabilities_of_the_model(capsys, trained_run, digit, tmp_path):
    path, pixels, _ = digit
    large = tmp_path / "large.jpg"
    large.write_bytes(tf.io.encode_jpeg(np.repeat(np.repeat(pixels[0], 9, 0), 7, 1)).numpy())
    logits = keras.models.load_model(trained_run / "model.keras").predict(pixels, verbose=0)
    expected = keras.ops.softmax(logits)[0].numpy()
    for model in (trained_run, trained_run / "model.ticket"):
        status, out, _ = run(capsys, "predict", str(model), str(path), str(large), "--json", "--top", "10")
        assert status == 0
        first, second = map(json.loads, out.splitlines())
        assert (first["image"], second["image"]) == (str(path), str(large))
        assert [first["classes"][str(n)] for n in range(10)] == pytest.approx(expected.tolist(), abs=1e-5)
        assert sum(second["classes"].values()) == pytest.approx(1)
        assert list(first["classes"].values()) == sorted(first["classes"].values(), reverse=True)
    status, out, _ = run(capsys, "predict", str(trained_run), str(path))
    best = np.argsort(-expected)[:3]
    assert out == f"{path}: " + ", ".join(f"{n} {expected[n]:.1%}" for n in best) + "\n"


def test_predict_takes_outputs_that_are_probabilities_as_they_are(capsys, digit, tmp_path):
    inputs = keras.Input((8, 8, 1))
    outputs = keras.layers.Dense(3, activation="softmax")(keras.layers.Flatten()(inputs))
    model = keras_popup.mask_model(keras.Model(inputs, outputs), seed=1)
    keras_popup.save_ticket(
        model, tmp_path / "a.ticket", preprocess=[keras.layers.Rescaling(1 / 255)], classes=["a", "b", "c"]
    )
    _, out, _ = run(capsys, "predict", str(tmp_path / "a.ticket"), str(digit[0]), "--json")
    expected = model.predict(digit[1] / 255, verbose=0)[0]
    assert json.loads(out)["classes"] == pytest.approx(dict(zip("abc", expected.tolist(), strict=True)), abs=1e-6)


def test_predict_refuses_what_is_no_image(capsys, trained_run, tmp_path):
    (tmp_path / "text.png").write_text("no image")
    for path, status, message in [
        (tmp_path / "no.png", 2, "There is no image"),
        (tmp_path / "text.png", 1, "is not an image that can be read"),
    ]:
        found, out, err = run(capsys, "predict", str(trained_run), str(path))
        assert (found, out) == (status, "")
        assert message in err


@pytest.mark.parametrize("suffix", ["gif", "bmp", "jpg", "png"])
@pytest.mark.parametrize("channels", [1, 3])
def test_read_image_takes_any_image_for_any_model(suffix, channels, tmp_path):
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (12, 9, 3), np.uint8)
    for mode in ("RGB", "L", "P", "RGBA", "CMYK"):
        if (suffix, mode) in (("jpg", "P"), ("jpg", "RGBA"), ("bmp", "CMYK"), ("png", "CMYK"), ("gif", "CMYK")):
            continue  # there are no such files
        path = tmp_path / f"{mode}.{suffix}"
        Image.fromarray(pixels).convert(mode).save(path)
        if mode == "CMYK":
            continue  # TensorFlow reads none
        image = datasets.read_image(path, (8, 8, channels))
        assert (image.shape, image.dtype) == ((8, 8, channels), np.uint8)


@pytest.mark.parametrize(
    ("outputs", "activation", "expected"),
    [
        ([2.0, 1.0, 0.0], "linear", [0.665, 0.245, 0.09]),
        ([0.2, 0.3, 0.5], "softmax", [0.2, 0.3, 0.5]),
        ([0.2, 0.3, 0.5], "", [0.2, 0.3, 0.5]),
        ([0.9, 0.8, 0.1], "sigmoid", [0.9, 0.8, 0.1]),
        ([0.25], "sigmoid", [0.75, 0.25]),
        ([-2.0], "linear", [0.881, 0.119]),
    ],
)
def test_predict_knows_probabilities_by_the_last_layer(outputs, activation, expected):
    from keras_popup.cli.predict import _to_probabilities

    np.testing.assert_allclose(_to_probabilities(np.array([outputs], "float32"), activation), expected, atol=1e-3)
    with pytest.raises(ValueError, match="not finite numbers"):
        _to_probabilities(np.full((1, 3), np.nan), activation)
