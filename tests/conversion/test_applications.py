"""Networks of keras.applications: converted, trained, saved, loaded, stripped, exported. Long: make test-all."""

import keras
import numpy as np
import pytest

import keras_popup
from keras_popup import exports

APPLICATIONS = {
    "MobileNetV2": {"alpha": 0.35},
    "ResNet50": {},
    "EfficientNetB0": {},
    "DenseNet121": {},
}


@pytest.mark.rare
@pytest.mark.parametrize("name", APPLICATIONS)
def test_application(name, tmp_path):
    builder = getattr(keras.applications, name)
    plain = builder(weights=None, input_shape=(32, 32, 3), classes=10, **APPLICATIONS[name])
    model = keras_popup.mask_model(plain, k=0.5, seed=1)
    assert {v.name for v in model.trainable_variables} == {"scores"}
    kernels = [v for v in plain.trainable_variables if v.name == "kernel"]
    summary = keras_popup.mask_summary(model, print_fn=len)
    assert summary.weights == sum(v.shape.num_elements() for v in kernels)
    images = np.random.default_rng(0).random((4, 32, 32, 3)).astype(np.float32)
    scores = [v.numpy() for v in model.trainable_variables]
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(images, np.arange(4), verbose=0)
    assert any((a != b).any() for a, b in zip(scores, model.trainable_variables, strict=True))
    expected = model.predict(images, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(images, verbose=0), expected)
    stripped = keras_popup.strip_masks(loaded)
    assert [type(layer) for layer in stripped.layers] == [type(layer) for layer in plain.layers]
    np.testing.assert_array_equal(stripped.predict(images, verbose=0), expected)
    formats = exports.FORMATS if name == "MobileNetV2" else ("tf_saved_model", "litert_int8", "onnx")
    for format in formats:
        path = {"tf_saved_model": "saved", "onnx": "model.onnx"}.get(format, "model.tflite")
        assert keras_popup.export(stripped, tmp_path / path, format, inputs=images).difference < 1e-5
