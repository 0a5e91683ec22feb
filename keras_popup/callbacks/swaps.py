"""RestrictSwaps: few of the weights that a step would exchange change sides."""

import math
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from keras_popup import conversion, selectors
from keras_popup.layers import MaskedKernel


class RestrictSwaps(keras.callbacks.Callback):
    """Lets only a part of the weights change sides that a training step would exchange.

    Of n weights that enter the mask in a step, the `ceil(rate * n)` with the largest scores do, and as many of those
    that leave it, with the smallest scores. The others get scores right beside the threshold, on the side where they
    were. It is for masks that begin well, such as those of `scores_initializer="magnitude"`.

    It reads all scores after every step, in NumPy, which takes longer than a step of a small network.

    Args:
        rate: float in (0, 1], the part of the exchanges that are made. 1 restricts nothing.

    Raises:
        ValueError: if `rate` is outside (0, 1]; when training begins, if no layer is masked, or a selector is not
            `TopK`.

    Reference:
        Zhang et al., [Lottery Jackpots Exist in Pre-trained Models](https://arxiv.org/abs/2104.08700). There a mask is
        kept beside the scores; here the scores always give the mask.

    Example:

    >>> import keras_popup
    >>> restrict = keras_popup.callbacks.RestrictSwaps(rate=0.1)
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 < rate <= 1:
            raise ValueError(f"`rate` must be a number in (0, 1]. Received: {rate!r}.")
        self.rate = float(rate)
        self._masks: dict[str, NDArray[np.bool_]] = {}

    def on_train_begin(self, logs: Any = None) -> None:
        self._masks = {}
        kernels = conversion.find_kernels(self.model, "RestrictSwaps")
        if other := [(path, kernel) for path, kernel in kernels if not isinstance(kernel.selector, selectors.TopK)]:
            path, kind = other[0][0], type(other[0][1].selector).__name__
            raise ValueError(f"RestrictSwaps is for the selector 'top_k'. Layer '{path}' has the selector {kind}.")

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if not self._masks:  # not in on_train_begin: only now has a KSchedule set k
            masks = conversion.masked_kernels(self.model)
            self._masks = {path: kernel.read_mask().astype(bool) for path, kernel in masks}

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        for path, kernel in conversion.masked_kernels(self.model):
            self._masks[path] = _undo_swaps(kernel, self._masks[path], self.rate)


def _undo_swaps(kernel: MaskedKernel, before: NDArray[np.bool_], rate: float) -> NDArray[np.bool_]:
    """Changes scores so that only a part of the swaps since the mask `before` remain. Returns the mask."""
    after = kernel.read_mask().astype(bool)
    entered, left = np.flatnonzero(after & ~before), np.flatnonzero(before & ~after)
    swaps = min(entered.size, left.size)  # the rest follow from another k
    undone = swaps - math.ceil(rate * swaps)
    scores = kernel.scores.numpy()
    flat = scores.reshape(-1)
    sizes = np.abs(flat)
    threshold = sizes[after.reshape(-1)].min() if undone else np.float32(0)
    if not threshold:
        return after
    out = entered[np.argsort(sizes[entered], kind="stable")[:undone]]
    back = left[np.argsort(-sizes[left], kind="stable")[:undone]]
    flat[out] = np.copysign(np.nextafter(threshold, np.float32(0)), flat[out])
    flat[back] = np.copysign(np.nextafter(threshold, np.float32(np.inf)), flat[back])
    kernel.scores.assign(scores)
    after.reshape(-1)[out], after.reshape(-1)[back] = False, True
    return after
