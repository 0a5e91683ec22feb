"""IterativeRandomization: new random values for weights that are not kept."""

from typing import Any

import keras
import numpy as np

from keras_popup import conversion, initializers
from keras_popup.layers import MaskedKernel


class IterativeRandomization(keras.callbacks.Callback):
    """Draws weights anew that the masks do not keep, from time to time: iterative randomization (IteRand).

    After every `every` training steps, each weight that is not kept gets a new random value with the probability
    `rate`. So scores choose among more values than the kernel has weights. Weights that are kept stay as they are.

    The values of the r-th redraw are those of the kernel's initializer with another seed, which follows from the
    kernel's seed and r, and so does which weights are drawn. So a resumed run draws the same. A ticket then says for
    each kept weight from which redraw it comes. Of kernels whose values differ in sign only, such as
    "signed_constant", it says whether the sign has turned: at most one bit for each kept weight.

    Args:
        every: int, 1 or more, the number of training steps between two redraws. The paper's is 300.
        rate: float in (0, 1], the probability with which a weight that is not kept is drawn anew.

    Raises:
        ValueError: if an argument is out of its range; when training begins, if no layer is masked, or if a kernel is
            not drawn from a seed, as with `mask_model(weights="keep")`.

    Reference:
        Chijiwa et al., [Pruning Randomly Initialized Neural Networks with Iterative
        Randomization](https://arxiv.org/abs/2106.09269).

    Example:

    >>> import keras_popup
    >>> redraw = keras_popup.callbacks.IterativeRandomization(every=300, rate=0.1)
    """

    def __init__(self, every: int = 300, rate: float = 0.1) -> None:
        super().__init__()
        if type(every) is not int or every < 1:
            raise ValueError(f"`every` must be a positive integer, a number of steps. Received: {every!r}.")
        if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 < rate <= 1:
            raise ValueError(f"`rate` must be a number in (0, 1]. Received: {rate!r}.")
        self.every, self.rate = every, float(rate)
        self._redraw = 0  # the number of the last one

    def on_train_begin(self, logs: Any = None) -> None:
        for path, kernel in conversion.find_kernels(self.model, "IterativeRandomization"):
            if not isinstance(kernel.initializer, initializers.FrozenInitializer):
                raise ValueError(
                    f"IterativeRandomization draws weights anew from their seed. The kernel of layer '{path}' is not "
                    "drawn from a seed of this library. Mask the model with weights='random' and one of its kernel "
                    "initializers, such as 'signed_constant'."
                )
        self._redraw = self._count_redraws()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self._count_redraws() != self._redraw:
            self._redraw = self._count_redraws()
            for _, kernel in conversion.masked_kernels(self.model):
                _draw_again(kernel, self._redraw, self.rate)

    def _count_redraws(self) -> int:
        """Returns how many redraws belong to the optimizer's steps so far, in earlier runs too."""
        return int(self.model.optimizer.iterations.numpy()) // self.every


def _draw_again(kernel: MaskedKernel, redraw: int, rate: float) -> None:
    mask = kernel.read_mask()
    numbers = np.random.Generator(np.random.Philox(key=initializers.derive_seed(kernel.seed, "redrawn", redraw)))
    chosen = (numbers.random(mask.shape, np.float32) < rate) & (mask == 0)
    values = kernel.initializer.of_redraw(redraw).values(mask.shape, kernel.fans())
    frozen = kernel.kernel.numpy()
    kernel.kernel.assign(np.where(chosen, values.astype(frozen.dtype, copy=False), frozen))
