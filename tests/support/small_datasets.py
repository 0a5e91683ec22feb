"""Datasets of a few images, of every kind of source."""

import numpy as np
import tensorflow as tf
from builders import PopupTestVaryingPhotos

from keras_popup import datasets
from keras_popup.datasets import sources


def write_images(root, sizes=((8, 8),), classes=("cat", "dog"), per_class=6, splits=("train", "test")):
    rng = np.random.default_rng(0)
    for split in splits:
        for label, name in enumerate(classes):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(per_class):
                size = sizes[i % len(sizes)]
                image = np.full((*size, 3), 40 + 100 * label, np.uint8) + rng.integers(0, 20, (*size, 3), np.uint8)
                encode, suffix = (tf.io.encode_png, "png") if i % 2 else (tf.io.encode_jpeg, "JPG")
                (folder / f"{i}.{suffix}").write_bytes(encode(image).numpy())
    return root


def prepared(builder_class, directory):
    builder_class(data_dir=directory).download_and_prepare()
    return str(directory)


def make_datasets(tmp_path):
    """One dataset of every kind of source."""
    folder = write_images(tmp_path / "same")
    mixed = write_images(tmp_path / "mixed", sizes=((8, 8), (20, 12)))
    stream = prepared(PopupTestVaryingPhotos, tmp_path / "tfds")
    return {
        sources.ArraySource: datasets.load("pets", data_dir=str(folder), validation=0.25),
        sources.FileSource: datasets.load("pets", data_dir=str(mixed), validation=0.25, image_size=8),
        sources.TfdsSource: datasets.load("popup_test_varying_photos", data_dir=stream, validation=0.25, image_size=8),
    }


def epochs_of(data, first_epoch, epochs, seed=5, batch_size=4):
    batches = data.training_batches(batch_size, seed=seed, epochs=epochs, first_epoch=first_epoch)
    return [(images.numpy(), labels.numpy()) for images, labels in batches]


def equal(a, b):
    return len(a) == len(b) and all(
        np.array_equal(x, y) for p, q in zip(a, b, strict=True) for x, y in zip(p, q, strict=True)
    )
