"""What is no model, or none that can be masked."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_popup import mask_model, mask_summary, strip_masks


@pytest.mark.parametrize(
    ("model", "what"),
    [
        (keras.layers.Dense(3), "a layer, Dense.*Put it into a model"),
        (np.ones(3), "ndarray"),
        (tf.ones(3), "a tensor.*keras.Model\\(inputs, tensor\\)"),
        (keras.Input((3,)), "a tensor"),
        ([keras.layers.Dense(3)], "a list.*keras.Sequential\\(layers\\)"),
        ("model.keras", "load_model\\('model.keras'\\)"),
        (keras.Model, "the class Model.*Pass an object"),
        (type("Model", (), {"__module__": "tf_keras.src.engine.training"})(), "of the package tf_keras.*Keras 3"),
    ],
    ids=["layer", "array", "tensor", "symbol", "list", "text", "class", "tf_keras"],
)
def test_check_model_says_what_was_given_instead(model, what):
    with pytest.raises(TypeError, match=what):
        mask_model(model, seed=1)


@pytest.mark.parametrize(
    "convert", [lambda m: mask_model(m, seed=1), strip_masks, mask_summary], ids=["mask", "strip", "summary"]
)
@pytest.mark.parametrize("model", [None, "conv4", keras.layers.Dense(3)], ids=["none", "name", "layer"])
def test_check_model_refuses_what_is_no_model(model, convert):
    with pytest.raises(TypeError, match="takes a keras.Model"):
        convert(model)
