"""Writes pack-v1.tickets, a pack with its base, and pack-v1.json, its outputs. Run once, when the format was new."""

import json
import tempfile
from pathlib import Path

import keras
import numpy as np

import keras_popup

FOLDER = Path(__file__).parent


def main() -> None:
    keras.utils.set_random_seed(1)
    layers = [
        keras.Input((6, 6, 1), name="images"),
        keras.layers.Conv2D(4, 3, name="conv"),
        keras.layers.BatchNormalization(name="norm"),
        keras.layers.Flatten(name="flatten"),
        keras.layers.Dense(12, activation="relu", name="hidden"),
        keras.layers.Dense(5, name="classes"),
    ]
    base = keras.Sequential(layers, name="base")
    tasks = keras_popup.TaskMasks(base)
    with tempfile.TemporaryDirectory() as folder:
        for seed, name in enumerate(("birds", "fish"), 2):
            model = keras_popup.replace_head(base, 3, seed=seed)
            masked = keras_popup.mask_model(model, 1 / seed, weights="keep", exclude="classes", seed=seed)
            keras_popup.save_ticket(masked, Path(folder, "a.ticket"), base=base, preprocess=[])
            tasks.add(name, Path(folder, "a.ticket"))
    tasks.save(FOLDER / "pack-v1.tickets", include_base=True)
    x = np.random.default_rng(0).normal(size=(4, 6, 6, 1)).astype("float32").round(3)
    outputs = {name: tasks[name].predict(x, verbose=0).tolist() for name in tasks}
    (FOLDER / "pack-v1.json").write_text(json.dumps({"inputs": x.tolist(), "outputs": outputs}) + "\n")


if __name__ == "__main__":
    main()
