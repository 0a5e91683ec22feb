"""The part of each batch that some of the replicas train on. Only its images are read and decoded."""

import dataclasses
from collections.abc import Callable
from typing import Any

import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Part:
    """The replicas from `first` to `end` - 1 of `replicas`, R.

    Of a batch of n images, replica r has those from r * n // R to (r + 1) * n // R - 1.

    Attributes:
        first: int.
        end: int.
        replicas: int.
    """

    first: int
    end: int
    replicas: int

    def bounds(self, size: Any) -> tuple[Any, Any]:
        """Returns the first image of the part, and the one after its last, of a batch of `size`: ints, or tensors."""
        return self.first * size // self.replicas, self.end * size // self.replicas

    def cut(self, batch: tf.Tensor) -> tf.Tensor:
        """Returns the part of a batch."""
        start, end = self.bounds(tf.shape(batch)[0])
        return batch[start:end]


WHOLE = Part(0, 1, 1)
"""All images of each batch."""


def read_part(
    examples: tf.data.Dataset,
    read: Callable[..., tuple[tf.Tensor, tf.Tensor]],
    size: int,
    batch_size: int,
    part: Part,
) -> tf.data.Dataset:
    """Returns the part of each batch of some examples. The last batch may be smaller; a part may be empty.

    Args:
        examples: dataset of the examples, before they are read.
        read: function that takes an example and returns (image, label).
        size: int, the number of examples.
        batch_size: int.
        part: the part.
    """
    full, rest = divmod(size, batch_size)
    (start, end), (rest_start, rest_end) = part.bounds(batch_size), part.bounds(rest)

    def is_in(number: tf.Tensor, _: Any) -> tf.Tensor:
        bounds = tf.constant([[start, end], [rest_start, rest_end]], tf.int64)
        first, after = tf.unstack(bounds[tf.cast(number >= full * batch_size, tf.int32)])
        return (number % batch_size >= first) & (number % batch_size < after)

    def make_batches(chosen: tf.data.Dataset, count: int) -> tf.data.Dataset:
        return chosen.map(read, num_parallel_calls=tf.data.AUTOTUNE).batch(max(count, 1))

    if part == WHOLE:
        return make_batches(examples, batch_size)
    chosen = examples.enumerate().filter(is_in).map(lambda number, example: example)
    in_full, in_rest = end - start, rest_end - rest_start
    if in_full >= in_rest:
        batches = make_batches(chosen, in_full)
        empty = (full if not in_full else 0) + (rest > 0 and not in_rest)
        return batches.concatenate(_make_empty(batches, empty)) if empty else batches
    # The last batch is smaller, but has more images in this part: of fewer images than replicas, say.
    before = make_batches(chosen.take(full * in_full), in_full) if in_full else None
    last = make_batches(chosen.skip(full * in_full), in_rest)
    return (_make_empty(last, full) if before is None else before).concatenate(last)


def _make_empty(batches: tf.data.Dataset, count: int) -> tf.data.Dataset:
    """Returns empty batches like others."""
    empty = tuple(tf.zeros([0, *spec.shape[1:]], spec.dtype) for spec in batches.element_spec)
    return tf.data.Dataset.from_tensors(empty).repeat(count)
