"""Convert a library model and train it on a dataset of TensorFlow Datasets.

python examples/convert_and_train.py --dataset fashion_mnist --data_dir ~/tensorflow_datasets
"""

import argparse
import math

import keras

import keras_popup


def main() -> float:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="fashion_mnist", help="a name of TensorFlow Datasets")
    parser.add_argument("--data_dir", help="directory of TensorFlow Datasets")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--k", type=float, default=0.5, help="fraction of weights kept")
    parser.add_argument("--save", default="converted.keras", help="where the model is saved")
    arguments = parser.parse_args()

    data = keras_popup.datasets.load(arguments.dataset, data_dir=arguments.data_dir, validation=0.1, seed=1)
    steps = math.ceil(data.train.size / 128)

    dense = keras_popup.models.FullyConnected(data.image_shape, classes=len(data.classes))
    dense = keras.Sequential([keras.Input(data.image_shape), data.preprocessing(), dense])  # the model takes pixels
    model = keras_popup.mask_model(dense, k=arguments.k, seed=1)
    schedule = keras.optimizers.schedules.CosineDecay(0.5, decay_steps=arguments.epochs * steps)
    model.compile(
        keras.optimizers.SGD(schedule, momentum=0.9),
        keras.losses.CategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(
        data.training_batches(128, seed=1, epochs=arguments.epochs),
        steps_per_epoch=steps,
        epochs=arguments.epochs,
        validation_data=data.evaluation_batches("validation", 128),
        shuffle=False,
        verbose=2,
    )
    model.save(arguments.save)
    again = keras.models.load_model(arguments.save)
    accuracy = again.evaluate(data.evaluation_batches("test", 128), verbose=0)[1]
    print(f"test accuracy {accuracy:.2%}, saved as {arguments.save}")
    return accuracy


if __name__ == "__main__":
    main()
