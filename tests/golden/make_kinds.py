"""Made kinds-v1.ticket and kinds-v1.json: a mask of each kind, and redrawn weights. Not to be run again for version 1.

python tests/golden/make_kinds.py
"""

import json
from pathlib import Path

import keras
import numpy as np
from make import weights_digest

import keras_popup
from keras_popup.layers import MaskedConv2D, MaskedDense

FOLDER = Path(__file__).parent


def main():
    keras.utils.set_random_seed(1)
    stack = [
        keras.Input((8, 8, 4), name="images"),
        MaskedConv2D(16, 3, selector="n_m", k=0.5, seed=1, activation="relu", name="n_m"),
        MaskedConv2D(12, 3, selector="block", k=0.5, seed=2, activation="relu", name="block"),
        keras.layers.Flatten(name="flatten"),
        MaskedDense(24, selector="signed", k=0.2, seed=3, activation="relu", name="signed"),
        MaskedDense(24, selector="multicoat:coats=3", k=0.5, seed=4, activation="relu", name="multicoat"),
        MaskedDense(24, selector="top_k:pruned=0.3:locked=0.2", k=0.5, seed=5, activation="relu", name="fixed"),
        MaskedDense(24, kernel_initializer="kaiming_normal", k=0.5, seed=6, activation="relu", name="redrawn"),
        MaskedDense(10, k=0.5, seed=7, name="turned"),
    ]
    model = keras.Sequential(stack, name="kinds")
    model.compile(keras.optimizers.SGD(1.0), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    rng = np.random.default_rng(1)
    images, labels = rng.random((64, 8, 8, 4)).astype(np.float32), rng.integers(0, 10, 64)
    redraw = keras_popup.callbacks.IterativeRandomization(every=2, rate=0.3)
    model.fit(images, labels, batch_size=8, epochs=3, verbose=0, callbacks=[redraw])
    info = keras_popup.save_ticket(model, FOLDER / "kinds-v1.ticket", notes="golden")
    digest = weights_digest(keras_popup.strip_masks(model))
    kept = {row.path: row.kept for row in info.layers}
    (FOLDER / "kinds-v1.json").write_text(json.dumps({"weights": digest, "kept": kept}, indent=2) + "\n")
    print(info)


if __name__ == "__main__":
    main()
