"""Exports, read back by their real runtimes."""

import json
import os

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from tables import LAYERS, MODELS, plain_model, small_model

import keras_popup
from keras_popup import exports, mask_model, models, strip_masks
from keras_popup.exports import api, litert_int8

PATHS = {
    "tf_saved_model": "saved",
    "litert": "model.tflite",
    "litert_sparse": "sparse.tflite",
    "litert_int8": "int8.tflite",
    "onnx": "model.onnx",
}
FORMATS = pytest.mark.parametrize("name", exports.FORMATS)


def conv_net():
    """Convolutions with a normalization that has statistics, so that it is folded into channels of their own."""
    stack = [
        keras.Input((8, 8, 3), name="images"),
        keras.layers.Conv2D(8, 3, activation="relu"),
        keras.layers.Conv2D(8, 3),
        keras.layers.BatchNormalization(),
        keras.layers.ReLU(),
        keras.layers.DepthwiseConv2D(3),
        keras.layers.Flatten(),
        keras.layers.Dense(10),
    ]
    model = mask_model(keras.Sequential(stack), k=0.3, seed=1)
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if weight.name.startswith("moving"):
            weight.assign(rng.uniform(0.5, 2.0, weight.shape))
    return model


def images(batch=3):
    return np.random.default_rng(1).random((batch, 8, 8, 3)).astype(np.float32)


@FORMATS
def test_formats(name, tmp_path):
    model = conv_net()
    result = keras_popup.export(model, tmp_path / PATHS[name], name, inputs=images())
    assert result.difference <= 1e-5
    assert result.path == str(tmp_path / PATHS[name])
    assert os.listdir(tmp_path) == [PATHS[name]]
    # Again, over what is there, and of the stripped model.
    again = keras_popup.export(strip_masks(model), tmp_path / PATHS[name], name)
    assert again.bytes == pytest.approx(result.bytes, rel=0.02)
    assert os.listdir(tmp_path) == [PATHS[name]]


@pytest.mark.parametrize("case", MODELS, ids=lambda case: case.name)
@pytest.mark.filterwarnings("ignore:.*`build\\(\\)` was called on layer:UserWarning")
def test_every_model(case, tmp_path):
    plain = case.make()
    if not getattr(plain, "inputs", None):
        with pytest.raises(ValueError, match="does not say what its inputs are"):
            keras_popup.export(mask_model(plain, k=0.5, seed=1), tmp_path / "model.onnx")
        assert not os.listdir(tmp_path)
        return
    model = mask_model(plain, k=0.5, seed=1)
    inputs = case.inputs(plain)
    assert keras_popup.export(model, tmp_path / "saved", inputs=inputs).difference <= 1e-5
    for path, name in (("model.tflite", "litert_int8"), ("model.onnx", "onnx")):
        if case.name == "recurrent" and name == "litert_int8":
            continue  # LiteRT's converter needs a fixed batch for a loop, or its own operations
        assert keras_popup.export(model, tmp_path / path, name, inputs=inputs).difference <= 1e-4


@pytest.mark.parametrize("case", [case for case in LAYERS if "bias" not in case.id])
def test_every_layer_as_int8(case, tmp_path):
    model = small_model(case, k=0.5)
    result = keras_popup.export(model, tmp_path / "model.tflite", "litert_int8")
    assert result.tolerance == 1e-4  # that of exact kernels


def test_sizes(tmp_path):
    model = mask_model(models.FullyConnected(), k=0.1, seed=1)
    size = {name: keras_popup.export(model, tmp_path / PATHS[name], name).bytes for name in exports.FORMATS}
    floats = 4 * model.count_params() // 2 - 12
    for name in ("tf_saved_model", "litert", "onnx"):
        assert floats < size[name] < 1.1 * floats
    assert size["litert_int8"] < 0.26 * floats
    assert size["litert_sparse"] < 0.2 * floats


def test_int8_is_the_same_bits(tmp_path):
    """The int8 file against the float file, in the runtime: equal, channel scales and all."""
    model = conv_net()
    outputs = []
    for name in ("litert", "litert_int8"):
        keras_popup.export(model, tmp_path / "model.tflite", name)
        runner = Interpreter(str(tmp_path / "model.tflite")).get_signature_runner()
        outputs.append(runner(images=images())["output_0"])
    np.testing.assert_array_equal(*outputs)


@pytest.mark.parametrize("axis", [0, 3])
def test_steps_of_int8(axis):
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


def trained_net():
    return mask_model(models.FullyConnected((4, 4, 1)), k=0.5, weights="keep", seed=1)


def test_rounded_kernels(tmp_path):
    result = keras_popup.export(trained_net(), tmp_path / "model.tflite", "litert_int8")
    assert 1e-5 < result.difference < 0.05
    assert result.tolerance == 0.1


def test_mixed_precision(tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = conv_net()
    for name in exports.FORMATS:
        assert keras_popup.export(model, tmp_path / PATHS[name], name).difference <= 1e-5


def test_a_file_that_differs_does_not_stay(tmp_path):
    path = tmp_path / "model.tflite"
    path.write_text("old")
    with pytest.raises(exports.ExportError, match="gives other outputs"):
        keras_popup.export(trained_net(), path, "litert_int8", tolerance=1e-7)
    assert path.read_text() == "old"
    # LiteRT's sparse kernels are wrong below four inputs.
    model = mask_model(keras.Sequential([keras.Input((3,)), keras.layers.Dense(4)]), k=0.5, seed=1)
    with pytest.raises(exports.ExportError, match="gives other outputs"):
        keras_popup.export(model, path, "litert_sparse")
    assert os.listdir(tmp_path) == ["model.tflite"]


def test_saved_model_has_the_signature_of_serving(tmp_path):
    model = plain_model("shared_two_in_two_out")
    keras_popup.export(mask_model(model, k=0.5, seed=1), tmp_path / "saved")
    signature = tf.saved_model.load(tmp_path / "saved").signatures["serving_default"]
    assert set(signature.structured_input_signature[1]) == {"left", "right"}
    assert set(signature.structured_outputs) == {"output_0", "output_1"}


def test_inputs_and_outputs_in_dicts(tmp_path):
    a, b = keras.Input((8, 8, 3), name="picture"), keras.Input((5,), dtype="int32", name="words")
    words = keras.layers.Flatten()(keras.layers.Embedding(2, 8)(b))
    both = keras.layers.Concatenate()([keras.layers.Flatten()(a), words])
    outputs = {"zebra": keras.layers.Dense(3)(both), "ox": keras.layers.Dense(3)(both)}
    model = mask_model(keras.Model({"words": b, "picture": a}, outputs), k=0.5, seed=1)
    inputs = {"words": np.array([[0, 1, 1, 0, 1]]), "picture": images(1)}
    for name in exports.FORMATS:
        assert keras_popup.export(model, tmp_path / PATHS[name], name, inputs=inputs).difference <= 1e-5


@pytest.mark.parametrize("name", ["litert", "onnx"])
def test_keras_export_of_a_masked_model_raises(name, tmp_path):
    model = conv_net()
    model.predict(images(), verbose=0)
    with pytest.raises(ValueError, match="cannot be exported to this format with its mask"):
        model.export(tmp_path / PATHS[name], format=name, verbose=False)
    assert not os.listdir(tmp_path)


def test_errors(tmp_path):
    model = conv_net()
    with pytest.raises(ValueError, match="must be one of tf_saved_model, litert"):
        keras_popup.export(model, tmp_path / "x", "tflite")
    with pytest.raises(ValueError, match="cannot end in '.keras'"):
        keras_popup.export(model, tmp_path / "x.keras")
    with pytest.raises(ValueError, match="must end in '.onnx'"):
        keras_popup.export(model, tmp_path / "x.tflite", "onnx")
    with pytest.raises(TypeError, match="takes a keras.Model"):
        keras_popup.export("model.keras", tmp_path / "x")
    with pytest.raises(ValueError, match=r"must be arrays of shapes \[\(None, 8, 8, 3\)\]"):
        keras_popup.export(model, tmp_path / "x", inputs=np.zeros((2, 8, 8, 1)))
    with pytest.raises(ValueError, match="does not say what its inputs are"):
        keras_popup.export(keras.Sequential([keras.layers.Dense(3)]), tmp_path / "x")
    assert not os.listdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep me")
    with pytest.raises(FileExistsError, match="is not a SavedModel, or has other files too: notes.txt"):
        keras_popup.export(model, tmp_path / "mine")
    with pytest.raises(ValueError, match="`tolerance` must be"):
        keras_popup.export(model, tmp_path / "x", tolerance=float("nan"))
    (tmp_path / "x.onnx").mkdir()
    with pytest.raises(FileExistsError, match="is a folder"):
        keras_popup.export(model, tmp_path / "x.onnx")
    plain = strip_masks(model)
    plain.weights[0].assign(np.full(plain.weights[0].shape, np.nan))
    with pytest.raises(ValueError, match="not finite numbers"):
        keras_popup.export(plain, tmp_path / "x")


def test_a_link_stays_a_link(tmp_path):
    keras_popup.export(trained_net(), tmp_path / "v1")
    (tmp_path / "current").symlink_to("v1")
    keras_popup.export(trained_net(), tmp_path / "current")
    assert (tmp_path / "current").is_symlink()
    (tmp_path / "v1" / "notes.txt").write_text("keep me")
    with pytest.raises(FileExistsError, match="notes.txt"):
        keras_popup.export(trained_net(), tmp_path / "current")


def test_each_output_is_compared_on_its_own_scale():
    expected = {"box": np.array([640.0]), "share": np.array([0.9, 0.1])}
    swapped = {"box": np.array([640.0]), "share": np.array([0.1, 0.9])}
    assert api._compute_difference(expected, swapped) == pytest.approx(0.8 / 0.9)
    assert np.isnan(api._compute_difference(expected, {**expected, "box": np.array([np.nan])}))
    with pytest.raises(ValueError, match="'box' has shape"):
        api._compute_difference(expected, {**expected, "box": np.zeros(2)})


def test_a_missing_runtime_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(api._NEEDS, "onnx", ("no_such_runtime",))
    with pytest.raises(ImportError, match=r"needs no_such_runtime: pip install 'keras-popup\[export\]'"):
        keras_popup.export(conv_net(), tmp_path / "model.onnx")


def test_command_line(tmp_path, capsys, monkeypatch):
    from keras_popup import cli
    from keras_popup.cli.export import EXPORT_NAMES

    run = str(tmp_path / "run")
    assert (
        cli.main(["train", "--model", "fc", "--width", "0.1", "--dataset", "digits", "--epochs", "1", "--out", run])
        == 0
    )
    capsys.readouterr()
    assert cli.main(["export", run, "--format", "all"]) == 0
    out = capsys.readouterr().out
    assert "compared on 32 images of the run's test set" in out
    for name, file in EXPORT_NAMES.items():
        assert name in out
        assert os.path.exists(os.path.join(run, file))
    assert cli.main(["export", f"{run}/model.keras", "--format", "onnx", "--out", str(tmp_path / "my.onnx")]) == 0
    assert (tmp_path / "my.onnx").exists()
    assert cli.main(["export", f"{run}/model.keras", "--out", str(tmp_path / "my.tflite")]) == 0
    assert (tmp_path / "my.tflite").is_file()
    (tmp_path / "run" / "model.onnx").unlink()
    monkeypatch.setitem(api._NEEDS, "litert", ("no_such_runtime",))
    assert cli.main(["export", run, "--format", "litert,onnx"]) == 1
    assert "needs no_such_runtime" in capsys.readouterr().err
    assert (tmp_path / "run" / "model.onnx").exists()
    assert cli.main(["summary", run]) == 0
    kept = json.loads((tmp_path / "run" / "summary.json").read_text())["kept"]
    assert f"{kept:,} of" in capsys.readouterr().out
    for arguments, message in [
        (["export"], "MODEL is missing"),
        (["export", str(tmp_path)], "must be a finished run's folder or a .keras file"),
        (["export", run, "--format", "tflite"], "--format must be one or more of"),
        (["export", run, "--format", "all", "--out", "x"], "--out is for one format"),
        (["summary", run, run], "Unexpected arguments"),
    ]:
        assert cli.main(arguments) == 2
        assert message in capsys.readouterr().err
    (tmp_path / "bad.keras").write_text("nothing")
    assert cli.main(["summary", str(tmp_path / "bad.keras")]) == 1
    assert "cannot be read as a Keras model" in capsys.readouterr().err
