"""Where images come from: arrays in memory, files read as needed, streams of TensorFlow Datasets.

A source yields batches of `(images, labels)`, uint8 of shape `(batch, height, width, channels)` and int64
class numbers. What it yields in an epoch is a function of the seed and the epoch's number alone, so that a
resumed run sees the images that it would have seen.
"""

import dataclasses
import functools
import hashlib
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

# More than this, decoded, is streamed; at this size, where images have no common one.
MEMORY_LIMIT = 2 * 2**30
STREAMED_SIZE = 224

# The split that is the test split, the first that there is.
TEST_SPLITS = ("test", "validation", "val")

NEEDS_EXTRA = "{} need {}: install keras-popup with its extra, pip install '.[datasets]' in its source folder."

# Of the shorter side, what an evaluation crop takes: the usual 224 of 256 pixels.
_CENTRE = 0.875
_STREAM_BUFFER = 10_000


class Source(Protocol):
    """A split of a dataset."""

    @property
    def size(self) -> int: ...

    @property
    def shape(self) -> tuple[int, int, int]: ...

    def shuffled(self, batch_size: int, seed: int, epoch: tf.Tensor) -> tf.data.Dataset: ...

    def in_order(self, batch_size: int) -> tf.data.Dataset: ...

    def described(self) -> object: ...


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

    def shuffled(self, batch_size: int, seed: int, epoch: tf.Tensor) -> tf.data.Dataset:
        return self._batches(_shuffled_index(self.size, seed, epoch), batch_size)

    def in_order(self, batch_size: int) -> tf.data.Dataset:
        return self._batches(tf.data.Dataset.range(self.size), batch_size)

    def described(self) -> object:
        return self.labels.tolist(), hashlib.sha256(np.ascontiguousarray(self.images).data).hexdigest()

    @functools.cached_property
    def _tensors(self) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.init_scope():  # a tensor made in a traced function would be copied into its graph
            return tf.convert_to_tensor(self.images), tf.convert_to_tensor(self.labels)

    def _batches(self, index: tf.data.Dataset, batch_size: int) -> tf.data.Dataset:
        images, labels = self._tensors
        return index.batch(batch_size).map(lambda i: (tf.gather(images, i), tf.gather(labels, i)))


@dataclasses.dataclass(frozen=True)
class FileSource:
    """Image files, decoded when they are needed.

    Images of another size than `shape` are cropped and resized: at random in training if
    `random_resized_crop`, else the centre.
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

    def shuffled(self, batch_size: int, seed: int, epoch: tf.Tensor) -> tf.data.Dataset:
        index = _shuffled_index(self.size, seed, epoch)
        seeds = _example_seeds(seed, epoch) if self.random_resized_crop else None
        return self._batches(index, batch_size, seeds)

    def in_order(self, batch_size: int) -> tf.data.Dataset:
        return self._batches(tf.data.Dataset.range(self.size), batch_size, None)

    def described(self) -> object:
        # Class and file, as the folders above may have other names elsewhere.
        return self.labels.tolist(), [Path(path).parts[-2:] for path in self.paths.tolist()]

    @functools.cached_property
    def _tensors(self) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.init_scope():
            return tf.constant(self.paths.tolist()), tf.convert_to_tensor(self.labels)

    def _batches(self, index: tf.data.Dataset, batch_size: int, seeds: tf.data.Dataset | None) -> tf.data.Dataset:
        paths, labels = self._tensors

        def read(i: tf.Tensor, seed: tf.Tensor | None = None) -> tuple[tf.Tensor, tf.Tensor]:
            return _fit(tf.io.read_file(tf.gather(paths, i)), self.shape, seed), tf.gather(labels, i)

        examples = index if seeds is None else tf.data.Dataset.zip(index, seeds)
        return examples.map(read, num_parallel_calls=tf.data.AUTOTUNE).batch(batch_size)


@dataclasses.dataclass(frozen=True)
class TfdsSource:
    """A split of a prepared TensorFlow dataset, streamed through a shuffling buffer.

    Preparing a dataset has mixed its examples; the buffer varies the order from epoch to epoch.
    """

    builder: Any
    split: str
    shape: tuple[int, int, int]
    random_resized_crop: bool

    @property
    def size(self) -> int:
        return int(self.builder.info.splits[self.split].num_examples)

    def shuffled(self, batch_size: int, seed: int, epoch: tf.Tensor) -> tf.data.Dataset:
        # Of the function that tf.data traces this in: else the order would depend on the global seed, and fail
        # with a global seed of 0.
        tf.compat.v1.set_random_seed(1)
        order = tf.random.stateless_uniform([], epoch_key(seed, epoch), 1, tf.int64.max, tf.int64)
        examples = self._examples().shuffle(_STREAM_BUFFER, seed=order)
        seeds = _example_seeds(seed, epoch) if self.random_resized_crop else None
        return self._batches(examples, batch_size, seeds)

    def in_order(self, batch_size: int) -> tf.data.Dataset:
        return self._batches(self._examples(), batch_size, None)

    def described(self) -> object:
        return self.builder.info.full_name, self.split, self.size

    def _examples(self) -> tf.data.Dataset:
        import tensorflow_datasets as tfds

        image_key, _ = self.builder.info.supervised_keys
        return self.builder.as_dataset(
            split=self.split,
            as_supervised=True,
            shuffle_files=False,
            read_config=tfds.ReadConfig(interleave_cycle_length=1),
            decoders={image_key: tfds.decode.SkipDecoding()},
        )

    def _batches(self, examples: tf.data.Dataset, batch_size: int, seeds: tf.data.Dataset | None) -> tf.data.Dataset:
        def read(data: tf.Tensor, label: tf.Tensor, seed: tf.Tensor | None = None) -> tuple[tf.Tensor, tf.Tensor]:
            return _fit(data, self.shape, seed), tf.cast(label, tf.int64)

        if seeds is not None:
            examples = tf.data.Dataset.zip(examples, seeds).map(lambda example, seed: (*example, seed))
        return examples.map(read, num_parallel_calls=tf.data.AUTOTUNE).batch(batch_size)


def decode(data: tf.Tensor, channels: int) -> tf.Tensor:
    """Decodes JPEG or PNG bytes to uint8 `(height, width, channels)`; 0 channels keeps those of the file."""
    return tf.io.decode_image(data, channels=channels, expand_animations=False)


def _shuffled_index(size: int, seed: int, epoch: tf.Tensor) -> tf.data.Dataset:
    """Returns every number below `size` once, in an order that `seed` and `epoch` determine."""
    # tf.random.experimental.index_shuffle would do without the sort; its orders of neighbouring epochs are alike.
    keys = tf.random.stateless_uniform([size], epoch_key(seed, epoch), None, None, tf.int64, alg="philox")
    return tf.data.Dataset.from_tensor_slices(tf.argsort(keys, stable=True))


def epoch_key(seed: int, epoch: tf.Tensor) -> tf.Tensor:
    """Returns the seed of an epoch for the stateless operations of `tf.random`: int64 `(2,)`."""
    return tf.stack([tf.constant(seed, tf.int64), tf.cast(epoch, tf.int64)])


def _example_seeds(seed: int, epoch: tf.Tensor) -> tf.data.Dataset:
    """Returns an endless stream of seeds for the stateless operations of `tf.random` and `tf.image`."""
    first = epoch_key(seed, epoch)
    return tf.data.Dataset.range(2**31).map(lambda i: tf.random.fold_in(first, i))


def _fit(data: tf.Tensor, shape: tuple[int, int, int], crop_seed: tf.Tensor | None) -> tf.Tensor:
    """Decodes an image to `shape`, by a random resized crop if there is a seed for it."""
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
        # The centre, of the wanted aspect ratio; the whole image where it has the wanted size already.
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
