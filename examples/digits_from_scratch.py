"""Masked layers by hand: a small convolutional network finds its subnetwork on handwritten digits.

python examples/digits_from_scratch.py
"""

import argparse

import keras
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from keras_popup.layers import MaskedConv2D, MaskedDense


def main() -> float:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--k", type=float, default=0.5, help="fraction of weights kept")
    arguments = parser.parse_args()

    keras.utils.set_random_seed(1)
    digits = load_digits()
    images = digits.images[..., None] / 16.0
    x, x_test, y, y_test = train_test_split(images, digits.target, test_size=0.2, random_state=0)

    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            MaskedConv2D(64, 3, padding="same", activation="relu", k=arguments.k, seed=1),
            MaskedConv2D(64, 3, padding="same", activation="relu", k=arguments.k, seed=2),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            MaskedDense(256, activation="relu", k=arguments.k, seed=3),
            MaskedDense(10, k=arguments.k, seed=4),
        ]
    )
    model.compile(
        keras.optimizers.SGD(0.1, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(x, y, batch_size=64, epochs=arguments.epochs, verbose=2)

    # The kernels are those of the seeds; the scores, and so the masks, were learned.
    for layer in model.layers:
        if hasattr(layer, "kept"):
            print(f"{layer.name}: {layer.kept:,} of {layer.mask().numpy().size:,} weights kept")
    accuracy = model.evaluate(x_test, y_test, verbose=0)[1]
    print(f"test accuracy {accuracy:.2%}")
    return accuracy


if __name__ == "__main__":
    main()
