"""A kernel as a stack of matrices, inputs by outputs, for selectors whose choice depends on the axes of channels."""

import dataclasses
import math
from typing import Any

import tensorflow as tf

Axes = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a kernel becomes a stack of matrices: the axes of inputs are rows, those of outputs are columns.

    Attributes:
        shape: the shape of the kernel.
        axes: (axes of input channels, axes of output channels). An axis that is in both, as in depthwise kernels, is
            one of inputs.
    """

    shape: Axes
    axes: tuple[Axes, Axes]

    @property
    def _order(self) -> list[int]:
        rows, columns = self.axes
        columns = tuple(axis for axis in columns if axis not in rows)
        return [*(axis for axis in range(len(self.shape)) if axis not in (*rows, *columns)), *rows, *columns]

    @property
    def matrices(self) -> tuple[int, int, int]:
        """The shape of the stack: (matrices, rows, columns)."""
        rows, columns = self.axes
        row_size = math.prod(self.shape[axis] for axis in rows)
        column_size = math.prod(self.shape[axis] for axis in columns if axis not in rows)
        return math.prod(self.shape) // (row_size * column_size), row_size, column_size

    def stack(self, kernel: Any) -> Any:
        """Returns a kernel, or a tensor of its size, as a stack of matrices. Arrays stay arrays."""
        if not tf.is_tensor(kernel):
            return kernel.reshape(self.shape).transpose(self._order).reshape(self.matrices)
        return tf.reshape(tf.transpose(tf.reshape(kernel, self.shape), self._order), self.matrices)

    def unstack(self, matrices: Any) -> Any:
        """Returns what `stack` was given, in the shape of the kernel."""
        order = self._order
        shape = [self.shape[axis] for axis in order]
        back = [order.index(axis) for axis in range(len(order))]
        if not tf.is_tensor(matrices):
            return matrices.reshape(shape).transpose(back)
        return tf.transpose(tf.reshape(matrices, shape), back)


def find_layout(shape: Axes, axes: tuple[Axes, Axes] | None = None) -> Layout:
    """Returns the layout of a kernel: with the last axis as outputs and the one before as inputs if `axes` is None."""
    rank = len(shape)
    return Layout(tuple(shape), axes or ((rank - 2,) if rank > 1 else (0,), (rank - 1,) if rank > 1 else ()))
