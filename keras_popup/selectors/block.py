"""Block: whole blocks of weights, inputs by outputs."""

import dataclasses
import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from keras_popup.selectors.base import Selector
from keras_popup.selectors.choices import ByChoice, Choice, choose_largest
from keras_popup.selectors.counts import check_kept, count_kept, entropy_bits
from keras_popup.selectors.matrices import Axes, Layout, find_layout
from keras_popup.selectors.thresholds import count_kept_tensor


@keras.saving.register_keras_serializable("keras_popup")
class Block(ByChoice):
    """Keeps the k best blocks of a kernel: `size` inputs by `size` outputs, at one place of the window.

    The score of a block is the mean magnitude of the scores of its weights. With B blocks and
    `kept = round-half-up(k * B)`,

        m_i  = 1 where the block of i is among the `kept` with the largest mean |s|, else 0
        dL/ds_i = sign(s_i) * (sum of dL/dm over the block of i)

    Exactly `kept` blocks are kept. At the edges of a kernel whose channels `size` does not divide, blocks are smaller.
    Of equal blocks the first wins, in the order of places, inputs, outputs.

    Reference:
        The blocks of [SuperBlock](https://github.com/pytorch/ao/tree/v0.7.0/torchao/prototype/sparsity/superblock),
        where each block has one score.

    Args:
        size: int from 2 to 256, the side of a block.

    Call arguments:
        scores: float32 tensor of known shape.
        k: the fraction of blocks kept, in (0, 1]: a Python number or a float64 scalar tensor.
        training: ignored, the choice is the same.
        axes: (axes of inputs, axes of outputs) of the scores, two tuples of ints. The default is that of `Dense`.

    Output shape:
        Same as `scores`, float32, exactly 0 or 1.

    Raises:
        TypeError: if the scores are a tensor or array of another type than float32.
        ValueError: if `size` is out of its range, or if a Python `k` is outside (0, 1] or keeps no block.

    Example:

    >>> import keras_popup
    >>> mask = keras_popup.selectors.Block(size=2)([[0.1, -0.9, 0.5], [0.3, 0.2, 0.1]], k=0.5)
    >>> mask.numpy().tolist()
    [[1.0, 1.0, 0.0], [1.0, 1.0, 0.0]]
    """

    takes = ("axes",)

    def __init__(self, size: int = 4) -> None:
        if type(size) is not int or not 2 <= size <= 256:
            raise ValueError(f"`size` must be an integer from 2 to 256. Received: {size!r}.")
        self.size = size

    def choice(self, shape: tuple[int, ...], axes: tuple[Axes, Axes] | None = None, **takes: Any) -> Choice:
        return Choice(_choose_blocks, _spread, (self.grid(shape, axes),))

    def count(self, scores: tf.Tensor, k: Any, axes: tuple[Axes, Axes] | None = None, **takes: Any) -> tf.Tensor:
        grid = self.grid(scores.shape, axes)
        if isinstance(k, (int, float, np.number)):
            return tf.constant(_check_blocks(float(k), grid), tf.int32)
        return tf.maximum(count_kept_tensor(k, grid.blocks), 1)

    def kept(self, scores: Any, k: float, **takes: Any) -> int:
        return Selector.kept(self, scores, k, **takes)

    def grid(self, shape: Any, axes: tuple[Axes, Axes] | None = None) -> "Grid":
        """Returns the blocks of a kernel."""
        return Grid(find_layout(tuple(shape), axes), self.size)

    def check(
        self, shape: tuple[int, ...], k: float, where: str = "", axes: tuple[Axes, Axes] | None = None, **takes: Any
    ) -> None:
        _check_blocks(k, self.grid(shape, axes), where)

    def mask_bits(self, shape: tuple[int, ...], k: float, axes: tuple[Axes, Axes] | None = None, **takes: Any) -> float:
        blocks = self.grid(shape, axes).blocks
        return entropy_bits(blocks, count_kept(k, blocks))

    def get_config(self) -> dict[str, Any]:
        return {"size": self.size}


@dataclasses.dataclass(frozen=True)
class Grid:
    """The blocks of a kernel.

    Attributes:
        layout: the kernel as a stack of matrices.
        size: int, the side of a block.
    """

    layout: Layout
    size: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """The number of blocks: (matrices, along the inputs, along the outputs)."""
        matrices, rows, columns = self.layout.matrices
        return matrices, -(-rows // self.size), -(-columns // self.size)

    @property
    def blocks(self) -> int:
        return math.prod(self.shape)

    def add_up(self, values: tf.Tensor) -> tf.Tensor:
        """Returns the sum over each block, flat."""
        matrices, rows, columns = self.layout.matrices
        _, down, across = self.shape
        padding = [[0, 0], [0, down * self.size - rows], [0, across * self.size - columns]]
        padded = tf.pad(self.layout.stack(values), padding)
        split = tf.reshape(padded, [matrices, down, self.size, across, self.size])
        return tf.reshape(tf.reduce_sum(split, [2, 4]), [-1])

    def repeat(self, values: Any) -> Any:
        """Returns the values of blocks for each of their weights, in the kernel's shape. Arrays stay arrays."""
        _, rows, columns = self.layout.matrices
        library: Any = tf if tf.is_tensor(values) else np
        whole = library.repeat(library.repeat(library.reshape(values, self.shape), self.size, 1), self.size, 2)
        return self.layout.unstack(whole[:, :rows, :columns])

    def first(self, mask: NDArray[Any]) -> NDArray[Any]:
        """Returns the mask of blocks, flat, from that of weights."""
        return np.ascontiguousarray(self.layout.stack(mask)[:, :: self.size, :: self.size]).ravel()


def _check_blocks(k: float, grid: Grid, where: str = "") -> int:
    try:
        return check_kept(k, grid.blocks)
    except ValueError as error:
        raise ValueError(f"Of blocks of {grid.size} x {grid.size}{where}: {error}") from None


def _choose_blocks(scores: tf.Tensor, kept: tf.Tensor, hint: Any, grid: Grid) -> tuple[tf.Tensor, Any]:
    # In float64 the sums are exact, or nearly: their order, which differs between devices, does not count.
    sums = grid.add_up(tf.cast(tf.abs(scores), tf.float64))
    sizes = grid.add_up(tf.ones_like(scores, tf.float64))
    chosen, next_hint = choose_largest(tf.cast(sums / sizes, tf.float32), kept, hint)
    return tf.reshape(grid.repeat(chosen), [-1]), next_hint


def _spread(upstream: tf.Tensor, scores: tf.Tensor, grid: Grid) -> tf.Tensor:
    return tf.reshape(grid.repeat(grid.add_up(upstream)), [-1]) * tf.sign(scores)
