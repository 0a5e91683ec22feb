"""Models to export, and the names of their files."""

import keras
import numpy as np

from keras_popup import mask_model, models

PATHS = {
    "tf_saved_model": "saved",
    "litert": "model.tflite",
    "litert_sparse": "sparse.tflite",
    "litert_int8": "int8.tflite",
    "onnx": "model.onnx",
}


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


def trained_net():
    return mask_model(models.FullyConnected((4, 4, 1)), k=0.5, weights="keep", seed=1)
