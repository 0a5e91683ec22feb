"""Sources of images: arrays in memory, files that are read when needed, and streams of TensorFlow Datasets.

A source yields batches of `(images, labels)`: uint8 of shape `(batch, height, width, channels)`, and int64 indices of
classes. The batches of an epoch depend only on the seed and the number of the epoch. So a resumed run sees the same
images as a run that was not interrupted.
"""

import dataclasses
import functools
import hashlib
import os
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from keras_popup.datasets.parts import WHOLE, Part, read_part

# Datasets with more bytes of decoded images than MEMORY_LIMIT are streamed. Streamed images get STREAMED_SIZE pixels.
MEMORY_LIMIT = 2 * 2**30
STREAMED_SIZE = 224

# The names of test splits. The first one that exists is used.
TEST_SPLITS = ("test", "validation", "val")

NEEDS_EXTRA = "{} need {}. Install keras-popup with its extra: pip install '.[datasets]' in its source folder."

# The share of the shorter side that an evaluation crop takes: the usual 224 of 256 pixels.
_CENTRE = 0.875
_STREAM_BUFFER = 10_000


class Source(Protocol):
    """A split of a dataset."""

    @property
    def size(self) -> int:
        """The number of images."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of each image."""

    def shuffled(self, batch_size: int, seed: int, epoch: tf.Tensor, part: Part = WHOLE) -> tf.data.Dataset:
        """Returns a part of the batches of one epoch, in an order that `seed` and `epoch` determine."""

    def in_order(self, batch_size: int, part: Part = WHOLE) -> tf.data.Dataset:
        """Returns a part of the batches in order."""

    def describe(self) -> object:
        """Returns a value whose `repr` identifies the images and labels."""


@dataclasses.dataclass(frozen=True)
class ArraySource:
    """Images held in memory."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    @property
    def size(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        height, width, channels = self.images.shape[1:]
        return height, width, channels

    def take(self, index: NDArray[np.intp]) -> "ArraySource":
        return ArraySource(self.images[index], self.labels[index])

    def shuffled(self, batch_size: int, seed: int, epoch: tf.Tensor, part: Part = WHOLE) -> tf.data.Dataset:
        return self._make_batches(_shuffle_index(self.size, seed, epoch), batch_size, part)

    def in_order(self, batch_size: int, part: Part = WHOLE) -> tf.data.Dataset:
        return self._make_batches(tf.data.Dataset.range(self.size), batch_size, part)

    def describe(self) -> object:
        return self.labels.tolist(), hashlib.sha256(np.ascontiguousarray(self.images).data).hexdigest()

    @functools.cached_property
    def _tensors(self) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.init_scope():  # a tensor that is made in a traced function would be copied into its graph
            return tf.convert_to_tensor(self.images), tf.convert_to_tensor(self.labels)

    def _make_batches(self, index: tf.data.Dataset, batch_size: int, part: Part) -> tf.data.Dataset:
        images, labels = self._tensors
        return index.batch(batch_size).map(part.cut).map(lambda i: (tf.gather(images, i), tf.gather(labels, i)))


@dataclasses.dataclass(frozen=True)
class FileSource:
    """Image files that are decoded when they are needed.

    Images of another size than `shape` are cropped and resized: at random in training if `random_resized_crop` is True,
    else to their centre.
    """

    paths: NDArray[np.str_]
    labels: NDArray[np.int64]
    shape: tuple[int, int, int]
    random_resized_crop: bool

    @property
    def size(self) -> int:
        return len(self.labels)

    def take(self, index: NDArray[np.intp]) -> "FileSource":
        return dataclasses.replace(self, paths=self.paths[index], labels=self.labels[index])

    def shuffled(self, batch_size: int, seed: int, epoch: tf.Tensor, part: Part = WHOLE) -> tf.data.Dataset:
        index = _shuffle_index(self.size, seed, epoch)
        seeds = _make_example_seeds(seed, epoch) if self.random_resized_crop else None
        return self._make_batches(index, batch_size, seeds, part)

    def in_order(self, batch_size: int, part: Part = WHOLE) -> tf.data.Dataset:
        return self._make_batches(tf.data.Dataset.range(self.size), batch_size, None, part)

    def describe(self) -> object:
        # Class and file only: the folders above may have other names on another machine.
        return self.labels.tolist(), [Path(path).parts[-2:] for path in self.paths.tolist()]

    @functools.cached_property
    def _tensors(self) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.init_scope():
            return tf.constant(self.paths.tolist()), tf.convert_to_tensor(self.labels)

    def _make_batches(
        self, index: tf.data.Dataset, batch_size: int, seeds: tf.data.Dataset | None, part: Part
    ) -> tf.data.Dataset:
        paths, labels = self._tensors

        def read(i: tf.Tensor, seed: tf.Tensor | None = None) -> tuple[tf.Tensor, tf.Tensor]:
            return _fit(tf.io.read_file(tf.gather(paths, i)), self.shape, seed), tf.gather(labels, i)

        examples = index if seeds is None else tf.data.Dataset.zip(index, seeds)
        return read_part(examples, read, self.size, batch_size, part)


@dataclasses.dataclass(frozen=True)
class TfdsSource:
    """A split of a prepared TensorFlow dataset, streamed through a shuffling buffer.

    TensorFlow Datasets shuffles the examples when it prepares a dataset. The buffer changes the order in each epoch.
    """

    builder: Any
    split: str
    shape: tuple[int, int, int]
    random_resized_crop: bool

    @property
    def size(self) -> int:
        return int(self.builder.info.splits[self.split].num_examples)

    def shuffled(self, batch_size: int, seed: int, epoch: tf.Tensor, part: Part = WHOLE) -> tf.data.Dataset:
        # Sets the seed of the function in which tf.data traces this. Otherwise the order would depend on the global
        # seed, and a global seed of 0 would raise an error.
        tf.compat.v1.set_random_seed(1)
        order = tf.random.stateless_uniform([], epoch_key(seed, epoch), 1, tf.int64.max, tf.int64)
        examples = self._read_examples().shuffle(_STREAM_BUFFER, seed=order)
        seeds = _make_example_seeds(seed, epoch) if self.random_resized_crop else None
        return self._make_batches(examples, batch_size, seeds, part)

    def in_order(self, batch_size: int, part: Part = WHOLE) -> tf.data.Dataset:
        return self._make_batches(self._read_examples(), batch_size, None, part)

    def describe(self) -> object:
        return self.builder.info.full_name, self.split, self.size

    def _read_examples(self) -> tf.data.Dataset:
        import tensorflow_datasets as tfds

        image_key, _ = self.builder.info.supervised_keys
        return self.builder.as_dataset(
            split=self.split,
            as_supervised=True,
            shuffle_files=False,
            read_config=tfds.ReadConfig(interleave_cycle_length=1),
            decoders={image_key: tfds.decode.SkipDecoding()},
        )

    def _make_batches(
        self, examples: tf.data.Dataset, batch_size: int, seeds: tf.data.Dataset | None, part: Part
    ) -> tf.data.Dataset:
        def read(data: tf.Tensor, label: tf.Tensor, seed: tf.Tensor | None = None) -> tuple[tf.Tensor, tf.Tensor]:
            return _fit(data, self.shape, seed), tf.cast(label, tf.int64)

        if seeds is not None:
            examples = tf.data.Dataset.zip(examples, seeds).map(lambda example, seed: (*example, seed))
        return read_part(examples, read, self.size, batch_size, part)


def decode(data: tf.Tensor, channels: int) -> tf.Tensor:
    """Decodes JPEG or PNG bytes to uint8 `(height, width, channels)`. With `channels=0`, the file decides."""
    return tf.io.decode_image(data, channels=channels, expand_animations=False)


def read_image(path: str | os.PathLike[str], shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Returns an image file as uint8 pixels of `shape`. Like test images, it is cropped to its centre and resized.

    Colours become grey and grey becomes colours, as `shape` asks for; alpha is dropped.

    Raises:
        ValueError: if the file is not an image.
    """
    data = tf.io.read_file(os.fspath(path))
    try:
        image = decode(data, 0)
    except tf.errors.InvalidArgumentError:
        raise ValueError(f"'{path}' is not an image that can be read. Expected JPEG, PNG, GIF, BMP or WebP.") from None
    if image.dtype != tf.uint8:
        image = tf.image.convert_image_dtype(image, tf.uint8)
    colours = image.shape[-1] >= 3
    image = image[..., :3] if colours else image[..., :1]
    if shape[2] == 1 and colours:
        image = tf.image.rgb_to_grayscale(image)
    elif shape[2] == 3 and not colours:
        image = tf.image.grayscale_to_rgb(image)
    pixels: NDArray[np.uint8] = _fit(tf.io.encode_png(image), shape, None).numpy()
    return pixels


def _shuffle_index(size: int, seed: int, epoch: tf.Tensor) -> tf.data.Dataset:
    """Returns the numbers 0 to size - 1 once each, in an order that `seed` and `epoch` determine."""
    # tf.random.experimental.index_shuffle needs no sort, but gives similar orders in successive epochs.
    keys = tf.random.stateless_uniform([size], epoch_key(seed, epoch), None, None, tf.int64, alg="philox")
    return tf.data.Dataset.from_tensor_slices(tf.argsort(keys, stable=True))


def epoch_key(seed: int, epoch: tf.Tensor) -> tf.Tensor:
    """Returns the seed of an epoch for the stateless operations of `tf.random`: int64 `(2,)`."""
    return tf.stack([tf.constant(seed, tf.int64), tf.cast(epoch, tf.int64)])


def _make_example_seeds(seed: int, epoch: tf.Tensor) -> tf.data.Dataset:
    """Returns a stream of 2**31 seeds for the stateless operations of `tf.random` and `tf.image`."""
    first = epoch_key(seed, epoch)
    return tf.data.Dataset.range(2**31).map(lambda i: tf.random.fold_in(first, i))


def _fit(data: tf.Tensor, shape: tuple[int, int, int], crop_seed: tf.Tensor | None) -> tf.Tensor:
    """Decodes an image to `shape`. With `crop_seed`, it takes a random resized crop, else the centre."""
    image = decode(data, shape[2])
    size = tf.shape(image)
    if crop_seed is not None:
        begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
            size,
            tf.zeros([1, 0, 4]),
            seed=crop_seed,
            area_range=(0.08, 1.0),
            aspect_ratio_range=(3 / 4, 4 / 3),
            use_image_if_no_bounding_boxes=True,
        )
        image = tf.slice(image, begin, extent)
    else:
        # The centre, with the aspect ratio of `shape`. The whole image if it has that size already.
        height, width = tf.cast(size[0], tf.float32), tf.cast(size[1], tf.float32)
        scale = tf.minimum(height / shape[0], width / shape[1])
        keep = tf.where(tf.reduce_all(size[:2] == shape[:2]), 1.0, _CENTRE) * scale
        rows, columns = tf.cast(keep * shape[0], tf.int32), tf.cast(keep * shape[1], tf.int32)
        rows, columns = tf.maximum(rows, 1), tf.maximum(columns, 1)
        image = image[(size[0] - rows) // 2 :, (size[1] - columns) // 2 :][:rows, :columns]
    image = tf.image.resize(tf.cast(image, tf.float32), shape[:2])
    image = tf.cast(tf.clip_by_value(tf.round(image), 0.0, 255.0), tf.uint8)
    image.set_shape(shape)
    return image
