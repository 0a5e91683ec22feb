"""Trains the normalizations of the network of a ticket further. Its masks stay as they are.

That adapts a network to other images of the same kind, such as the originals of CIFAR-10 where it was trained on a JPEG
copy. The ticket takes as many bytes, because two numbers of each channel are in it anyway. No image of the test set is
used before the end.

python benchmarks/train_norms.py resnet8_half_jpeg.ticket --data_dir cifar10-original --out resnet8_half.ticket
"""

import argparse
from pathlib import Path
from typing import Any

import keras
import numpy as np

import keras_popup
from keras_popup import datasets
from keras_popup.conversion.norms import fold_norms

BATCH = 128


@keras.saving.register_keras_serializable("benchmarks")
class Affine(keras.layers.Layer):
    """A folded normalization: x scale (1 + a) + shift + b, where a and b are trained."""

    def build(self, shape: Any) -> None:
        for name, trainable in (("scale", False), ("shift", False), ("a", True), ("b", True)):
            weight = self.add_weight(shape=shape[-1:], initializer="zeros", trainable=trainable, name=name)
            setattr(self, name, weight)

    def call(self, inputs: Any, mask: Any = None) -> Any:
        gamma, beta = self.compute()
        return inputs * gamma + beta

    def compute(self) -> tuple[Any, Any]:
        """Returns what the inputs are multiplied by, and what is added."""
        return self.scale * (1 + self.a), self.shift + self.b


def make_trainable(folded: keras.Model) -> keras.Model:
    """Returns a network with the same outputs, in float32, of which the normalizations are trained and nothing else."""

    def clone(layer: Any) -> Any:
        if isinstance(layer, keras.layers.BatchNormalization):
            return Affine(name=layer.name)
        return type(layer).from_config({**layer.get_config(), "dtype": "float32"})

    copied = keras.models.clone_model(folded, clone_function=clone)
    for layer, copy in zip(folded.layers, copied.layers, strict=True):
        if isinstance(copy, Affine):
            copy.scale.assign(layer.gamma)
            copy.shift.assign(layer.beta)
        else:
            copy.set_weights(layer.get_weights())
            copy.trainable = False
    return copied


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ticket", type=Path)
    parser.add_argument("--data_dir", help="directory of TensorFlow Datasets, or folder of images")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rate", type=float, default=2e-3, help="Adam's, which falls to 0 by a cosine")
    parser.add_argument("--out", type=Path, required=True, help="the ticket to write")
    arguments = parser.parse_args()
    keras.utils.set_random_seed(1)
    made = keras_popup.ticket_info(arguments.ticket).made
    data = datasets.load(made["dataset"], data_dir=arguments.data_dir, validation=0.0, augment="crop_flip", seed=1)
    model = fold_norms(keras_popup.load_ticket(arguments.ticket, masked=True))
    trained = make_trainable(keras_popup.strip_masks(model))
    steps = -(-data.train.size // BATCH)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    schedule = keras.optimizers.schedules.CosineDecay(arguments.rate, arguments.epochs * steps)
    trained.compile(keras.optimizers.Adam(schedule), loss, metrics=["accuracy"])
    batches = data.training_batches(BATCH, seed=1, epochs=arguments.epochs)
    trained.fit(batches, epochs=arguments.epochs, steps_per_epoch=steps, shuffle=False, verbose=2)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            for variable, value in zip((layer.gamma, layer.beta), trained.get_layer(layer.name).compute(), strict=True):
                variable.assign(value)
    images, _ = next(iter(data.evaluation_batches("train", BATCH)))
    ours, theirs = (each.predict_on_batch(images) for each in (model, trained))
    # The network may compute in bfloat16, with steps of 1 in 128.
    np.testing.assert_allclose(ours, theirs, atol=np.abs(theirs).max() / 32)
    model.compile("sgd", loss, metrics=["accuracy"])
    metrics = model.evaluate(data.evaluation_batches("test", 500), return_dict=True, verbose=0)
    origin = {name: made.get(name) for name in ("classes", "dataset", "arguments", "notes")}
    ticket = keras_popup.save_ticket(model, arguments.out, fold_norms=True, metrics=metrics, **origin)
    print(f"{arguments.out}: {ticket.bytes:,} bytes, {metrics['accuracy']:.2%} of the test images.")


if __name__ == "__main__":
    main()
