"""Searches k, width and learning rate with Keras Tuner itself, for a model of one's own.

python examples/tune.py
python examples/tune.py --trials 20 --epochs 10 --directory tuned

Several processes search together, on one machine or many that see the same directory: docs/search.md has the variables
that make one the chief and the others workers.
"""

import argparse
import functools
import os

import keras_tuner
from sklearn.datasets import load_digits

import keras_popup
from keras_popup import PopupHyperModel, Range


def main() -> float:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--directory", default="tuned", help="The same for the chief and all workers.")
    arguments = parser.parse_args()

    digits = load_digits()
    images, labels = (digits.images / 16).astype("float32")[..., None], digits.target
    train, validation, test = slice(1000), slice(1000, 1300), slice(1300, None)

    # Any function with an argument `width`, or without one if no width is searched.
    build = functools.partial(keras_popup.models.FullyConnected, (8, 8, 1))
    hypermodel = PopupHyperModel(build, k=Range(0.1, 0.9), width=[0.1, 0.2], learning_rate=Range(0.1, 1, "log"), seed=1)
    tuner = keras_tuner.RandomSearch(
        hypermodel, "val_accuracy", max_trials=arguments.trials, seed=1, directory=arguments.directory
    )
    tuner.search(
        images[train],
        labels[train],
        validation_data=(images[validation], labels[validation]),
        epochs=arguments.epochs,
        verbose=0,
    )
    if "KERASTUNER_TUNER_ID" in os.environ:  # a worker has trained some of the trials; all are in the directory
        print(f"{os.environ['KERASTUNER_TUNER_ID']} has no more trials")
        return 1.0

    best = tuner.get_best_hyperparameters()[0].values
    model = tuner.get_best_models()[0]
    _, accuracy = model.evaluate(images[test], labels[test], verbose=0)
    print(f"best of {arguments.trials}: {best}")
    print(f"test accuracy {accuracy:.2%}")
    return float(accuracy)


if __name__ == "__main__":
    main()
