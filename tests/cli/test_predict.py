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
