"""Made digits-v1.ticket and digits-v1.json, which no later version may fail to read. Not to be run again for version 1.

python tests/golden/make.py
"""

import hashlib
import json
from pathlib import Path

import keras
import numpy as np
from sklearn.datasets import load_digits

import keras_popup
from keras_popup.layers import tree

FOLDER = Path(__file__).parent


def weights_digest(model):
    """The SHA-256 of all weights of a model, float32, little-endian, in its order of layers."""
    held = [weight for _, layer in tree.walk(model) for weight in tree.own_weights(layer)]
    return hashlib.sha256(b"".join(np.asarray(weight.numpy(), "<f4").tobytes() for weight in held)).hexdigest()


def main():
    keras.utils.set_random_seed(1)
    stack = [
        keras.Input((8, 8, 1), name="images"),
        keras.layers.Conv2D(16, 3, activation="relu", use_bias=False, name="conv"),
        keras.layers.BatchNormalization(name="norm"),
        keras.layers.DepthwiseConv2D(3, activation="relu", name="depthwise"),
        keras.layers.Flatten(name="flatten"),
        keras.layers.Dense(64, activation="relu", name="hidden"),
        keras.layers.Dense(16, activation="relu", name="learned"),
        keras.layers.Dense(10, name="classes"),
    ]
    model = keras_popup.mask_model(
        keras.Sequential(stack, name="golden"), k={"hidden": 0.3, "*": 0.5}, exclude="learned", seed=1
    )
    digits = load_digits()
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(digits.images[..., None] / 16.0, digits.target, batch_size=64, epochs=10, verbose=0)
    info = keras_popup.save_ticket(model, FOLDER / "digits-v1.ticket", dataset="digits", notes="golden")
    digest = weights_digest(keras_popup.strip_masks(model))
    kept = {row.path: row.kept for row in info.layers}
    (FOLDER / "digits-v1.json").write_text(json.dumps({"weights": digest, "kept": kept}, indent=2) + "\n")
    print(info)


if __name__ == "__main__":
    main()
