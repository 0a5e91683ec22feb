"""Where a mask keeps weights, as a small map."""

import numpy as np
from numpy.typing import NDArray

from keras_popup import selectors
from keras_popup.layers import MaskedKernel

MOST_CELLS = 64
"""Of a map along each axis. More channels are averaged."""


def average_channels(kernel: MaskedKernel, most: int = MOST_CELLS) -> NDArray[np.float64]:
    """Returns the share of weights kept between inputs and outputs.

    Args:
        kernel: a kernel of a model that is built.
        most: int, the most rows and columns. More channels are averaged with their neighbours.

    Returns:
        A float64 array of rank 2, with inputs as rows and outputs as columns. Windows of convolutions are averaged.
    """
    mask = kernel.read_mask() != 0
    matrices = selectors.find_layout(mask.shape, kernel.channel_axes()).stack(mask).mean(0, dtype=np.float64)
    for axis in (0, 1):
        size = matrices.shape[axis]
        groups = np.array_split(np.arange(size), min(size, most))
        matrices = np.stack([matrices.take(group, axis).mean(axis) for group in groups], axis)
    averaged: NDArray[np.float64] = matrices
    return averaged
