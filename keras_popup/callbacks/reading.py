"""Reads masks as arrays."""

import numpy as np
from numpy.typing import NDArray

from keras_popup import selectors
from keras_popup.layers import MaskedKernel


def read_mask(kernel: MaskedKernel) -> NDArray[np.int8]:
    """Returns the mask of a kernel, as used outside of training, with the levels of its selector."""
    with selectors.without_compiling():
        mask: NDArray[np.int8] = kernel.mask().numpy().astype(np.int8)
    return mask
