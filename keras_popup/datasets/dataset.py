"""Image classification datasets: scikit-learn's digits, TensorFlow Datasets by name, and folders of images."""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_popup.datasets.folders import load_folder
from keras_popup.datasets.parts import WHOLE, Part
from keras_popup.datasets.sources import NEEDS_EXTRA, ArraySource, Source, TfdsSource, epoch_key
from keras_popup.datasets.tfds import load_tfds

_PADDING = 4

_CIFAR_MOMENTS = ((0.491, 0.482, 0.447), (0.247, 0.243, 0.262))
_IMAGENET_MOMENTS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_MOMENTS = {"cifar10": _CIFAR_MOMENTS, "cifar100": _CIFAR_MOMENTS, "imagenet2012": _IMAGENET_MOMENTS}

AUGMENTATIONS = ("none", "crop_flip", "resized_crop")


@dataclasses.dataclass(frozen=True)
class Dataset:
    """An image classification dataset: its splits and its preprocessing.

    Attributes:
        name: str, the name of the dataset.
        classes: tuple of the names of the classes. A label is an index into it.
        image_shape: (height, width, channels) of each image.
        train: `Source` of the training images.
        validation: `Source` of the images that were split off the training images, or None.
        test: `Source` of the test images. Use them at the end of a run only.
        augment: one of `AUGMENTATIONS`, applied to training batches.
        mean: tuple of floats, the mean of each channel, for pixels in [0, 1].
        std: tuple of floats, the standard deviation of each channel, for pixels in [0, 1].
        version: str, the version in TensorFlow Datasets; None for other datasets.
    """

    name: str
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    train: Source
    validation: Source | None
    test: Source
    augment: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    version: str | None = None

    def __str__(self) -> str:
        sizes = [source.size if source else 0 for source in (self.train, self.validation, self.test)]
        shape = "x".join(map(str, self.image_shape))
        images = "{} training, {} validation and {} test images".format(*sizes)
        return f"{images} of {shape}, {len(self.classes)} classes"

    def digest(self) -> str:
        """Returns a hexadecimal digest of the images and labels. For streamed images, it uses file names instead."""
        settings = [self.classes, self.image_shape, self.augment, self.mean, self.std]
        sources = [source.describe() if source else None for source in (self.train, self.validation, self.test)]
        return hashlib.sha256(repr((settings, sources)).encode()).hexdigest()

    def preprocessing(self) -> keras.layers.Layer:
        """Returns the layer from pixels to what a network is trained on: (pixels / 255 - mean) / std, in float32."""
        # Nine digits tell all float32 apart, and take less of a ticket than seventeen.
        scale = [float(f"{1 / (255 * std):.9g}") for std in self.std]
        offset = [float(f"{-mean / std:.9g}") for mean, std in zip(self.mean, self.std, strict=True)]
        return keras.layers.Rescaling(scale, offset, dtype="float32", name="preprocessing")

    def training_batches(self, batch_size: int, *, seed: int, epochs: int, first_epoch: int = 0) -> tf.data.Dataset:
        """Returns the batches of all epochs from `first_epoch` on, one after the other, shuffled and augmented.

        The order of the images in an epoch and their augmentation depend only on `seed` and on the number of the
        epoch. The last batch of an epoch may be smaller. Put `preprocessing()` first in a model that is trained on
        them.

        Args:
            batch_size: int, the number of images in a batch.
            seed: int in [0, 2**32).
            epochs: int, the number of all epochs, including those before `first_epoch`.
            first_epoch: int, the first epoch to return, counted from 0.

        Returns:
            A `tf.data.Dataset` of (uint8 pixels `(batch, height, width, channels)`, float32 one-hot
            `(batch, classes)`).
        """
        return _drop_sizes(self.training_parts(batch_size, WHOLE, seed=seed, epochs=epochs, first_epoch=first_epoch))

    def training_parts(
        self, batch_size: int, part: Part, *, seed: int, epochs: int, first_epoch: int = 0
    ) -> tf.data.Dataset:
        """Returns a part of each of the `training_batches`, the same bit for bit. Only its images are read and decoded.

        Args:
            batch_size: int, the number of images in a whole batch.
            part: the `Part`.
            seed, epochs, first_epoch: as for `training_batches`.

        Returns:
            A `tf.data.Dataset` of (pixels, labels, the number of images in the whole batch). The part may be empty.
        """

        def epoch_parts(epoch: tf.Tensor) -> tf.data.Dataset:
            first = epoch_key(seed, epoch)

            def augment(number: tf.Tensor, batch: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, ...]:
                size = _find_size(self.train, batch_size, number)
                images = _augment(batch[0], self.augment, tf.random.fold_in(first, number), size, part)
                return images, batch[1], size

            batches = self.train.shuffled(batch_size, seed, epoch, part).enumerate()
            return batches.map(augment, num_parallel_calls=tf.data.AUTOTUNE)

        # One stream over all epochs. Each epoch depends on the seed and its number only, so resuming is exact.
        return self._encode(tf.data.Dataset.range(first_epoch, epochs).flat_map(epoch_parts))

    def evaluation_batches(self, split: str, batch_size: int) -> tf.data.Dataset:
        """Returns the batches of a split ("train", "validation" or "test"), in order and not augmented.

        They are as those of `training_batches`.
        """
        return _drop_sizes(self.evaluation_parts(split, batch_size, WHOLE))

    def evaluation_parts(self, split: str, batch_size: int, part: Part) -> tf.data.Dataset:
        """Returns a part of each of the `evaluation_batches`, as `training_parts` does."""
        source: Source = getattr(self, split)

        def add_size(number: tf.Tensor, batch: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, ...]:
            return *batch, _find_size(source, batch_size, number)

        return self._encode(source.in_order(batch_size, part).enumerate().map(add_size))

    def _encode(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        def encode(images: tf.Tensor, labels: tf.Tensor, size: tf.Tensor) -> tuple[tf.Tensor, ...]:
            return images, tf.one_hot(labels, len(self.classes)), size

        return batches.map(encode, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def load(
    name: str,
    *,
    data_dir: str | None = None,
    image_size: int | None = None,
    validation: float = 0.1,
    augment: str | None = None,
    seed: int = 1,
) -> Dataset:
    """Loads a dataset by name.

    Args:
        name: "digits" (1,797 images of 8x8 pixels, included in scikit-learn); or the name of an image classification
            dataset of TensorFlow Datasets, such as "cifar10"; or any name for a folder of images.
        data_dir: a folder of images `<split>/<class>/*.jpg|png`, with the splits "train" and one of "test",
            "validation" and "val"; or the directory of TensorFlow Datasets.
        image_size: int, the side in pixels of the squares to which images are cropped and resized. With None, images
            of the same size keep it, and others get 224.
        validation: float in [0, 1), the share of the training images that becomes the validation split. With 0,
            training uses all of them.
        augment: one of "none", "crop_flip" (pad by 4 pixels, crop at random, flip at random) and "resized_crop" (crop
            a random part of the image, resize it, flip at random). None chooses "resized_crop" for images that are
            resized, and for others "none" for grey images and "crop_flip" for colour images.
        seed: int in [0, 2**32), the seed of the split into training and validation images.

    Returns:
        A `Dataset`. Images of the same size are held in memory if they take up to 2 GiB when decoded. All others are
        streamed.

    Raises:
        ValueError: if there is no such dataset, or if its images or an argument cannot be used.
        FileNotFoundError: if a folder or split is missing, or if the dataset is not prepared and cannot be
            downloaded.
        ImportError: if the package that reads the dataset is not installed.

    Example:

    >>> import keras_popup
    >>> digits = keras_popup.datasets.load("digits", validation=0.2)
    >>> digits.image_shape, digits.train.size, digits.validation.size, digits.test.size
    ((8, 8, 1), 1150, 288, 359)
    """
    if not 0.0 <= validation < 1.0:
        raise ValueError(f"`validation` must be a fraction in [0, 1). Received: validation={validation!r}.")
    if augment is not None and augment not in AUGMENTATIONS:
        raise ValueError(f"`augment` must be one of {AUGMENTATIONS} or None. Received: augment={augment!r}.")
    if image_size is not None and image_size < 1:
        raise ValueError(f"`image_size` must be a positive number of pixels. Received: image_size={image_size!r}.")
    if not 0 <= seed < 2**32:
        raise ValueError(f"`seed` must be an integer in [0, 2**32). Received: seed={seed!r}.")
    if name == "digits" and (data_dir is not None or image_size is not None):
        raise ValueError(
            "The dataset 'digits' comes with scikit-learn and has 8x8 pixels: leave out `data_dir` and `image_size`, "
            f"or use another dataset. Received: data_dir={data_dir!r}, image_size={image_size!r}."
        )
    if data_dir is not None and not Path(data_dir).is_dir():
        raise FileNotFoundError(f"`data_dir` must be an existing directory. Received: {data_dir!r}.")
    train: Any
    test: Any
    version = None
    if data_dir is not None and (Path(data_dir) / "train").is_dir():
        classes, train, test = load_folder(Path(data_dir), image_size, augment)
    elif name == "digits":
        classes, train, test = _load_digits()
    else:
        classes, train, test, version = load_tfds(name, data_dir, image_size, augment)
    held_out = None
    if validation:
        train, held_out = _split(train, validation, seed)
    shape = test.shape
    resized = not isinstance(train, ArraySource) and train.random_resized_crop
    if augment == "resized_crop" and not resized:
        raise ValueError(
            "augment='resized_crop' crops images while they are decoded, but this dataset is held in memory, with "
            f"{shape[0]}x{shape[1]} pixels. Set `image_size` too, or use 'crop_flip'."
        )
    if augment is None:
        augment = "resized_crop" if resized else "none" if shape[2] == 1 else "crop_flip"
    mean, std = _find_moments(name, train, shape[2])
    return Dataset(name, tuple(classes), shape, train, held_out, test, augment, mean, std, version)


def _find_size(source: Source, batch_size: int, number: tf.Tensor) -> tf.Tensor:
    """Returns the number of images in a batch, of which the last is smaller: an int32 scalar."""
    return tf.cast(tf.minimum(source.size - number * batch_size, batch_size), tf.int32)


def _drop_sizes(batches: tf.data.Dataset) -> tf.data.Dataset:
    return batches.map(lambda images, labels, size: (images, labels))


def _load_digits() -> tuple[list[str], ArraySource, ArraySource]:
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise ImportError(NEEDS_EXTRA.format("the digits", "scikit-learn")) from None
    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    everything = ArraySource(images, digits.target.astype(np.int64))
    # The same fifth for every seed of a run.
    train, test = _split(everything, 0.2, seed=0)
    return [str(digit) for digit in range(10)], train, test


def _split(source: Any, share: float, seed: int) -> tuple[Any, Any]:
    """Splits a source at random. Returns (the rest, the `share` that is held out)."""
    held_out = round(share * source.size)
    if not 0 < held_out < source.size:
        raise ValueError(
            f"validation={share} of {source.size} images leaves a part empty. Use another share, or 0 to train on all "
            "of them."
        )
    if isinstance(source, TfdsSource):
        return (
            dataclasses.replace(source, split=f"{source.split}[{held_out}:]"),
            dataclasses.replace(source, split=f"{source.split}[:{held_out}]"),
        )
    # From the bit stream, which is stable; NumPy may change the results of `permutation`.
    order = np.argsort(np.random.Philox(key=seed).random_raw(source.size), kind="stable")
    return source.take(np.sort(order[held_out:])), source.take(np.sort(order[:held_out]))


def _find_moments(name: str, train: Any, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns (mean, standard deviation) of each channel: those of the protocol, or of the training images."""
    name = name.split("/")[0].split(":")[0]  # as in "cifar10:3.*.*"
    if name in _MOMENTS and channels == 3:
        return _MOMENTS[name]
    if not isinstance(train, ArraySource):
        return _IMAGENET_MOMENTS if channels == 3 else ((0.5,), (0.5,))
    counts = np.zeros((channels, 256))
    for start in range(0, train.size, 1000):  # in parts, because bincount converts bytes to int64
        for channel in range(channels):
            counts[channel] += np.bincount(train.images[start : start + 1000, ..., channel].ravel(), minlength=256)
    values, shares = np.arange(256) / 255.0, counts / counts.sum(axis=1, keepdims=True)
    mean = shares @ values
    std = np.sqrt(shares @ values**2 - mean**2)
    return tuple(mean.tolist()), tuple(np.where(std > 0, std, 1.0).tolist())


def _augment(images: tf.Tensor, kind: str, seed: tf.Tensor, size: tf.Tensor, part: Part) -> tf.Tensor:
    """Crops and flips a part of a batch of uint8 images at random. For "resized_crop", decoding has cropped them.

    The random numbers are those of the whole batch, of `size` images.
    """
    if kind == "none":
        return images
    height, width = images.shape[1:3]
    start, end = part.bounds(size)
    shifts = tf.random.stateless_uniform([2, size, 1], seed, 0, 2 * _PADDING + 1, tf.int32)[:, start:end]
    flips = tf.random.stateless_uniform([size, 1, 1, 1], tf.random.fold_in(seed, 1))[start:end] < 0.5
    if kind == "crop_flip":
        around = [_PADDING, _PADDING]
        images = tf.pad(images, [[0, 0], around, around, [0, 0]])
        images = tf.gather(images, shifts[0] + tf.range(height), axis=1, batch_dims=1)
        images = tf.transpose(images, [0, 2, 1, 3])
        images = tf.gather(images, shifts[1] + tf.range(width), axis=1, batch_dims=1)
        images = tf.transpose(images, [0, 2, 1, 3])
    return tf.where(flips, tf.reverse(images, [2]), images)
