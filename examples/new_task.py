"""A trained network learns a second task by a mask alone: its weights stay, frozen, for both.

Trained on half of the classes, it is masked for the other half under a new head, and compared with a head alone. Then
the network and a small file serve both tasks.

python examples/new_task.py --dataset fashion_mnist --data_dir ~/tensorflow_datasets
"""

import argparse
import os

import keras
import numpy as np

import keras_popup


def classes(data, split, wanted):
    """Returns the images and labels of some classes; the labels count from 0."""
    batches = list(data.evaluation_batches(split, 1000))
    images, labels = (np.concatenate([batch[part].numpy() for batch in batches]) for part in (0, 1))
    images = data.preprocessing()(images).numpy()
    of_these = np.isin(labels.argmax(-1), wanted)
    return images[of_these], labels[of_these][:, wanted]


def fit(model, train, test, learning_rate, epochs):
    steps = epochs * -(-len(train[0]) // 128)
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    model.compile(
        keras.optimizers.Adam(schedule), keras.losses.CategoricalCrossentropy(from_logits=True), metrics=["accuracy"]
    )
    model.fit(*train, batch_size=128, epochs=epochs, verbose=0)
    return model.evaluate(*test, verbose=0)[1]


def main() -> float:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="fashion_mnist")
    parser.add_argument("--data_dir", help="directory of TensorFlow Datasets")
    parser.add_argument("--epochs", type=int, default=10, help="of each of the three trainings")
    parser.add_argument("--k", type=float, default=0.5, help="fraction of weights kept for the second task")
    arguments = parser.parse_args()

    keras.utils.set_random_seed(1)
    data = keras_popup.datasets.load(arguments.dataset, data_dir=arguments.data_dir, validation=0, augment="none")
    tasks = range(5), range(5, 10)
    first, second = ([classes(data, split, task) for split in ("train", "test")] for task in tasks)

    network = keras_popup.models.Conv2(data.image_shape, classes=5, width=0.5)
    print(f"first task, all weights trained: {fit(network, *first, 0.001, arguments.epochs):.2%}")

    transfer = keras_popup.replace_head(network, classes=5, seed=1)
    head = transfer.layers[-1].name
    masked = keras_popup.mask_model(transfer, k=arguments.k, weights="keep", exclude=head, seed=1)
    for layer in transfer.layers[:-1]:
        layer.trainable = False
    print(f"second task, a head alone: {fit(transfer, *second, 0.01, arguments.epochs):.2%}")
    print(f"second task, a head and masks: {fit(masked, *second, 0.001, arguments.epochs):.2%}")

    info = keras_popup.save_ticket(masked, "second.ticket", base=network, preprocess=[])
    network.save("network.keras")
    tasks = keras_popup.TaskMasks("network.keras")  # wherever both files are
    tasks.add("second", "second.ticket")
    images, labels = second[1]
    accuracy = float(np.mean(tasks["second"].predict(images, verbose=0).argmax(-1) == labels.argmax(-1)))
    print(f"the second task in {info.bytes:,} bytes, beside {os.path.getsize('network.keras'):,} of the network")
    print(f"second task, over the network's weights: test accuracy {accuracy:.2%}")
    return accuracy


if __name__ == "__main__":
    main()
