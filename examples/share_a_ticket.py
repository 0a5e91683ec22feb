"""A trained network as a ticket: packed here, unpacked in another process, which predicts the same from raw pixels.

python examples/share_a_ticket.py
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import keras
import numpy as np

import keras_popup

OTHER_PROCESS = """
import sys, numpy as np, keras_popup
ticket, images, predictions = sys.argv[1:]
model = keras_popup.load_ticket(ticket)
np.save(predictions, model.predict(np.load(images), verbose=0))
"""


def main() -> float:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--k", type=float, default=0.5, help="fraction of weights kept")
    arguments = parser.parse_args()

    keras.utils.set_random_seed(1)
    data = keras_popup.datasets.load("digits", seed=1)
    model = keras_popup.mask_model(keras_popup.models.Conv2(data.image_shape, width=0.5), k=arguments.k, seed=1)
    model.compile(
        keras.optimizers.SGD(0.1, momentum=0.9),
        keras.losses.CategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    scale = data.preprocessing()

    def prepare(images, labels):
        return scale(images), labels

    batches = data.training_batches(64, seed=1, epochs=arguments.epochs).map(prepare)
    model.fit(batches, epochs=arguments.epochs, steps_per_epoch=-(-data.train.size // 64), verbose=2)
    test = data.evaluation_batches("test", 64)
    accuracy = model.evaluate(test.map(prepare), verbose=0)[1]

    with tempfile.TemporaryDirectory() as folder:
        ticket, images, predictions = (Path(folder, name) for name in ("conv2.ticket", "images.npy", "predictions.npy"))
        # The layer that prepares the images goes into the ticket, so its receiver passes pixels.
        origin = {"classes": data.classes, "dataset": "digits", "metrics": {"accuracy": accuracy}}
        print(keras_popup.save_ticket(model, ticket, preprocess=[scale], **origin))
        pixels = np.concatenate([batch.numpy() for batch, _ in test])
        np.save(images, pixels)
        subprocess.run([sys.executable, "-c", OTHER_PROCESS, ticket, images, predictions], check=True)
        expected = keras_popup.strip_masks(model).predict(scale(pixels), verbose=0)
        difference = np.abs(np.load(predictions) - expected).max()
    print(f"largest difference of predictions: {difference}")
    print(f"test accuracy {accuracy:.2%}")
    return accuracy


if __name__ == "__main__":
    main()
