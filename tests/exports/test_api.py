"""Exports, read back by their real runtimes."""

import os

import keras
import numpy as np
import pytest
import tensorflow as tf
from exported import PATHS, conv_net, images, trained_net
from tables import MODELS, plain_model

import keras_popup
from keras_popup import conversion, exports, mask_model, models, strip_masks
from keras_popup.exports import api

FORMATS = pytest.mark.parametrize("name", exports.FORMATS)


@FORMATS
def test_export_in_every_format(name, tmp_path):
    model = conv_net()
    result = keras_popup.export(model, tmp_path / PATHS[name], name, inputs=images())
    assert result.difference <= 1e-5
    assert result.path == str(tmp_path / PATHS[name])
    assert os.listdir(tmp_path) == [PATHS[name]]
    # Again, over what is there, and of the stripped model.
    again = keras_popup.export(strip_masks(model), tmp_path / PATHS[name], name)
    assert again.bytes == pytest.approx(result.bytes, rel=0.02)
    assert os.listdir(tmp_path) == [PATHS[name]]


@pytest.mark.integration
@pytest.mark.parametrize("case", MODELS, ids=lambda case: case.name)
@pytest.mark.filterwarnings("ignore:.*`build\\(\\)` was called on layer:UserWarning")
def test_export_of_every_model(case, tmp_path):
    plain = case.make()
    model = mask_model(plain, k=0.5, seed=1)
    inputs = case.inputs(plain)
    assert keras_popup.export(model, tmp_path / "saved", inputs=inputs).difference <= 1e-5
    for path, name in (("model.tflite", "litert_int8"), ("model.onnx", "onnx")):
        if case.name == "recurrent" and name == "litert_int8":
            continue  # LiteRT's converter needs a fixed batch for a loop, or its own operations
        assert keras_popup.export(model, tmp_path / path, name, inputs=inputs).difference <= 1e-4


@pytest.mark.integration
@pytest.mark.parametrize("batch_size", [None, 2])
def test_export_keeps_a_fixed_batch_size_in_litert_files(batch_size, tmp_path):
    from ai_edge_litert.interpreter import Interpreter

    left, right = (keras.Input((5,), batch_size=batch_size, name=name) for name in ("left", "right"))
    both = keras.layers.Concatenate()([keras.layers.Dense(4)(left), keras.layers.Dense(4)(right)])
    model = mask_model(keras.Model({"right": right, "left": left}, both), k=0.5, seed=1)
    for name in ("litert", "litert_sparse", "litert_int8"):
        assert keras_popup.export(model, tmp_path / "model.tflite", name).difference <= 1e-5
        details = Interpreter(str(tmp_path / "model.tflite")).get_signature_runner().get_input_details()
        signatures = {key: entry["shape_signature"].tolist() for key, entry in details.items()}
        assert signatures == {key: [batch_size or -1, 5] for key in ("left", "right")}


@pytest.mark.integration
def test_export_wraps_a_subclassed_model(tmp_path):
    model = mask_model(plain_model("subclassed"), k=0.5, seed=1)
    assert not getattr(model, "inputs", None)
    assert (
        keras_popup.export(model, tmp_path / "model.tflite").difference <= 1e-4
    )  # it knows the shape it was built for
    assert keras_popup.export(model, tmp_path / "model.onnx", inputs=np.ones((2, 6, 6, 3), "float32")).bytes


@pytest.mark.integration
@pytest.mark.parametrize("masked", [True, False], ids=["masked", "plain"])
def test_export_leaves_out_augmentation_for_onnx(masked, tmp_path, caplog):
    augment = keras.Sequential([keras.layers.RandomFlip(), keras.layers.RandomRotation(0.1)])
    normalize = keras.layers.Normalization(mean=[1.0, 2.0, 3.0], variance=[1.0, 2.0, 4.0])
    flatten, dense = keras.layers.Flatten(), keras.layers.Dense(3)
    model = keras.Sequential([keras.Input((8, 8, 3)), augment, normalize, flatten, dense])
    model = mask_model(model, k=0.5, seed=1) if masked else model
    inputs = np.random.default_rng(0).random((2, 8, 8, 3), "float32")
    result = keras_popup.export(model, tmp_path / "model.onnx", inputs=inputs)
    assert result.difference <= 1e-5
    assert "Left out, as they do nothing at inference: RandomFlip, RandomRotation." in caplog.text
    assert not np.array_equal(model(inputs, training=True), model(inputs))  # the given model is as it was
    assert isinstance(model.layers[1].mean, tf.Tensor)


@pytest.mark.integration
@pytest.mark.parametrize("masked", [True, False], ids=["masked", "plain"])
def test_export_writes_convolutions_in_groups_and_gelu_to_onnx(masked, tmp_path, caplog):
    one = keras.layers.Conv2D(4, 3, groups=2, strides=2, activation="gelu")
    other = keras.layers.Conv1D(6, 2, groups=2, dilation_rate=2)
    model = keras.Sequential([keras.Input((9, 8, 4)), one, keras.layers.Reshape((12, 4)), other])
    model = mask_model(model, k=0.5, seed=1) if masked else model
    assert keras_popup.export(model, tmp_path / "model.onnx").difference <= 1e-4
    assert not [record for record in caplog.records if record.name.startswith("tf2onnx")]
    model.predict(np.ones((2, 9, 8, 4)), verbose=0)  # the given model is as it was


@pytest.mark.integration
def test_export_has_the_sizes_of_its_formats(tmp_path):
    model = mask_model(models.FullyConnected(), k=0.1, seed=1)
    size = {name: keras_popup.export(model, tmp_path / PATHS[name], name).bytes for name in exports.FORMATS}
    floats = 4 * keras_popup.mask_summary(model, print_fn=len).weights
    for name in ("tf_saved_model", "litert", "onnx"):
        assert floats < size[name] < 1.1 * floats
    assert size["litert_int8"] < 0.26 * floats
    assert size["litert_sparse"] < 0.2 * floats


@pytest.mark.integration
def test_export_of_mixed_precision(tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = conv_net()
    for name in exports.FORMATS:
        assert keras_popup.export(model, tmp_path / PATHS[name], name).difference <= 1e-5


@pytest.mark.integration
def test_export_leaves_no_file_that_differs(tmp_path):
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


@pytest.mark.integration
def test_export_says_what_recurrent_layers_need(tmp_path):
    def make(batch_size=None, **arguments):
        layers = [keras.Input((3, 2), batch_size=batch_size), keras.layers.GRU(4, **arguments)]
        return mask_model(keras.Sequential(layers), k=0.5, seed=1)

    with pytest.raises(exports.ExportError, match="with a fixed batch size"):
        keras_popup.export(make(), tmp_path / "model.tflite")
    for model in (make(unroll=True), make(batch_size=1)):
        assert keras_popup.export(model, tmp_path / "model.tflite").difference <= 1e-5


@pytest.mark.integration
def test_export_has_the_signature_of_serving(tmp_path):
    model = plain_model("shared_two_in_two_out")
    keras_popup.export(mask_model(model, k=0.5, seed=1), tmp_path / "saved")
    signature = tf.saved_model.load(tmp_path / "saved").signatures["serving_default"]
    assert set(signature.structured_input_signature[1]) == {"left", "right"}
    assert set(signature.structured_outputs) == {"output_0", "output_1"}


@pytest.mark.integration
def test_export_of_inputs_and_outputs_in_dicts(tmp_path):
    a, b = keras.Input((8, 8, 3), name="picture"), keras.Input((5,), dtype="int32", name="words")
    words = keras.layers.Flatten()(keras.layers.Embedding(2, 8)(b))
    both = keras.layers.Concatenate()([keras.layers.Flatten()(a), words])
    outputs = {"zebra": keras.layers.Dense(3)(both), "ox": keras.layers.Dense(3)(both)}
    model = mask_model(keras.Model({"words": b, "picture": a}, outputs), k=0.5, seed=1)
    inputs = {"words": np.array([[0, 1, 1, 0, 1]]), "picture": images(1)}
    for name in exports.FORMATS:
        assert keras_popup.export(model, tmp_path / PATHS[name], name, inputs=inputs).difference <= 1e-5


@pytest.mark.integration
def test_export_refuses_what_it_cannot_write(tmp_path):
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


@pytest.mark.integration
def test_export_leaves_a_link_a_link(tmp_path):
    keras_popup.export(trained_net(), tmp_path / "v1")
    (tmp_path / "current").symlink_to("v1")
    keras_popup.export(trained_net(), tmp_path / "current")
    assert (tmp_path / "current").is_symlink()
    (tmp_path / "v1" / "notes.txt").write_text("keep me")
    with pytest.raises(FileExistsError, match="notes.txt"):
        keras_popup.export(trained_net(), tmp_path / "current")


def test_export_without_dead_channels(tmp_path, monkeypatch):
    model = mask_model(models.Conv2((8, 8, 3), width=0.2), k=0.05, seed=1)
    whole = keras_popup.export(model, tmp_path / "whole")
    smaller = keras_popup.export(model, tmp_path / "smaller", remove_dead=True)
    assert smaller.bytes < 0.8 * whole.bytes
    assert smaller.difference <= smaller.tolerance

    def fail(plain):
        raise RuntimeError("other outputs.")

    monkeypatch.setattr(conversion, "remove_dead", fail)
    with pytest.raises(exports.ExportError, match="other outputs. Nothing was written"):
        keras_popup.export(model, tmp_path / "none", remove_dead=True)


@pytest.mark.integration
def test_export_names_a_missing_runtime(tmp_path, monkeypatch):
    monkeypatch.setitem(api._NEEDS, "onnx", ("no_such_runtime",))
    with pytest.raises(ImportError, match=r"needs no_such_runtime: pip install 'keras-popup\[export\]'"):
        keras_popup.export(conv_net(), tmp_path / "model.onnx")
