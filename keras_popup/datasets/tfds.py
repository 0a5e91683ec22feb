"""Finds, checks, prepares and reads the datasets of TensorFlow Datasets by name."""

import difflib
import math
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np

from keras_popup.datasets.sources import (
    MEMORY_LIMIT,
    NEEDS_EXTRA,
    STREAMED_SIZE,
    TEST_SPLITS,
    ArraySource,
    Source,
    TfdsSource,
)


def load_tfds(
    name: str, data_dir: str | None, image_size: int | None, augment: str | None
) -> tuple[list[str], Source, Source, str]:
    """Returns the classes, the training images, the test images and the version of a named dataset."""
    try:
        import tensorflow_datasets as tfds
    except ImportError:
        raise ImportError(NEEDS_EXTRA.format("named datasets", "tensorflow-datasets")) from None

    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except Exception as error:  # several types: the name, version or community dataset does not exist
        close = difflib.get_close_matches(name, ["digits", *tfds.list_builders()])
        raise ValueError(
            f"Unknown dataset {name!r}. Expected 'digits', a name of TensorFlow Datasets"
            + (f" (did you mean {' or '.join(close)}?)" if close else "")
            + ", or a folder of images that contains a folder 'train', in --data_dir."
            + (f" '{data_dir}' holds {sorted(p.name for p in Path(data_dir).iterdir())[:10]}." if data_dir else "")
        ) from error
    shape = _check_features(name, builder)
    _prepare(name, builder)
    splits = builder.info.splits
    test_split = next((split for split in TEST_SPLITS if split in splits and _has_labels(builder, split)), None)
    if "train" not in splits or test_split is None:
        raise ValueError(
            f"Dataset {name!r} must have the split 'train' and, with labels, one of {TEST_SPLITS}. "
            f"Received: {sorted(splits)}."
        )
    _, label_key = builder.info.supervised_keys
    classes = builder.info.features[label_key].names
    channels = 1 if shape[2] == 1 else 3
    size = image_size or STREAMED_SIZE
    if image_size is None and None not in shape[:2]:
        total = splits["train"].num_examples + splits[test_split].num_examples
        if total * math.prod(shape) <= MEMORY_LIMIT:
            arrays = (
                tfds.as_numpy(builder.as_dataset(split=split, as_supervised=True, batch_size=-1))
                for split in ("train", test_split)
            )
            train, test = (ArraySource(images, labels.astype(np.int64)) for images, labels in arrays)
            return classes, train, test, str(builder.info.version)
        fitted = (*shape[:2], channels)
        resized = augment == "resized_crop"
    else:
        fitted = (size, size, channels)
        resized = augment in (None, "resized_crop")
    return (
        classes,
        TfdsSource(builder, "train", fitted, resized),
        TfdsSource(builder, test_split, fitted, resized),
        str(builder.info.version),
    )


def _check_features(name: str, builder: Any) -> tuple[Any, ...]:
    """Returns the shape of the images of a dataset, after a check that it has images and labels."""
    import tensorflow_datasets as tfds

    features = builder.info.features
    keys = builder.info.supervised_keys or ()
    image, label = (features[key] for key in keys) if len(keys) == 2 else (None, None)
    if not isinstance(image, tfds.features.Image) or not isinstance(label, tfds.features.ClassLabel):
        raise ValueError(
            f"Dataset {name!r} is not an image classification dataset: expected images of shape (height, width, "
            f"channels) with one class label each. Received: {list(features)}."
        )
    if len(image.shape) != 3 or image.shape[2] not in (1, 3) or image.np_dtype != np.uint8:
        raise ValueError(
            f"Images must be uint8 of shape (height, width, 1 or 3). Received: {np.dtype(image.np_dtype).name} of "
            f"shape {image.shape} in dataset {name!r}. Use another dataset."
        )
    return tuple(image.shape)


def _has_labels(builder: Any, split: str) -> bool:
    """Tells whether a split has labels. The test images of competitions have the label -1."""
    (_, label) = next(iter(builder.as_dataset(split=f"{split}[:1]", as_supervised=True)))
    return int(label) >= 0


def _prepare(name: str, builder: Any) -> None:
    """Downloads and prepares a dataset if it is not on disk. Raises FileNotFoundError if there is no network."""
    if builder.is_prepared():
        return
    try:
        urllib.request.urlopen("https://storage.googleapis.com", timeout=5).close()
    except urllib.error.HTTPError:
        pass  # the server answers, so there is a network
    except OSError as error:
        raise FileNotFoundError(
            f"Dataset {name!r} is not prepared in '{builder.data_dir}', and there is no network to download it "
            f"({error}). Do one of these: (1) run this once with a network; (2) prepare the dataset on another "
            "machine, copy the directory of TensorFlow Datasets and pass it in --data_dir; (3) pass a folder of "
            "images, <split>/<class>/*.jpg or png, in --data_dir. The dataset 'digits' needs no download."
        ) from None
    try:
        builder.download_and_prepare()
    except Exception as error:  # any kind: for example, AssertionError if a manual download is missing
        raise FileNotFoundError(f"Dataset {name!r} could not be prepared in '{builder.data_dir}': {error}") from error
