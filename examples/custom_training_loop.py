"""A masked layer inside a subclassed model, trained by a loop of its own.

python examples/custom_training_loop.py
"""

import argparse

import keras
import tensorflow as tf
from sklearn.datasets import load_digits

from keras_popup.layers import MaskedConv2D, MaskedDense


class Classifier(keras.Model):
    def __init__(self, k: float) -> None:
        super().__init__()
        self.conv = MaskedConv2D(128, 3, activation="relu", k=k, seed=1)
        self.classes = MaskedDense(10, k=k, seed=2)

    def call(self, images):
        return self.classes(keras.layers.Flatten()(self.conv(images)))


def main() -> float:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--k", type=float, default=0.5, help="fraction of weights kept")
    arguments = parser.parse_args()

    digits = load_digits()
    images, labels = tf.constant(digits.images[..., None] / 16.0, tf.float32), tf.constant(digits.target)
    train = tf.data.Dataset.from_tensor_slices((images[360:], labels[360:])).shuffle(1437, seed=1).repeat().batch(64)

    model = Classifier(arguments.k)
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @tf.function
    def step(x, y):
        with tf.GradientTape() as tape:
            loss = loss_of(y, model(x, training=True))
        # The scores are all there is to train.
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return loss

    for number, (x, y) in enumerate(train.take(arguments.steps), 1):
        loss = step(x, y)
        if number % 100 == 0:
            print(f"step {number}: loss {loss:.3f}")
    accuracy = float(tf.reduce_mean(tf.cast(tf.argmax(model(images[:360]), 1) == labels[:360], tf.float32)))
    print(f"test accuracy {accuracy:.2%}")
    return accuracy


if __name__ == "__main__":
    main()
