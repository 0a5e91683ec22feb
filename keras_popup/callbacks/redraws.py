"""IterativeRandomization and Recycle: other values for weights that are not kept."""

from typing import Any

import keras
import numpy as np

from keras_popup import conversion, initializers
from keras_popup.layers import MaskedKernel


class _Redraw(keras.callbacks.Callback):
    """Changes the kernels after every so many steps of the optimizer, those of earlier runs too."""

    def __init__(self, every: int = 300, rate: float = 0.1) -> None:
        super().__init__()
        if type(every) is not int or every < 1:
            raise ValueError(f"`every` must be a positive integer, a number of steps. Received: {every!r}.")
        if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 < rate <= 1:
            raise ValueError(f"`rate` must be a number in (0, 1]. Received: {rate!r}.")
        self.every, self.rate = every, float(rate)
        self._redraw = 0  # the number of the last one

    def on_train_begin(self, logs: Any = None) -> None:
        for path, kernel in conversion.find_kernels(self.model, type(self).__name__):
            self._check(path, kernel)
        self._redraw = self._count_redraws()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self._count_redraws() != self._redraw:
            self._redraw = self._count_redraws()
            for _, kernel in conversion.masked_kernels(self.model):
                self._change(kernel)

    def _count_redraws(self) -> int:
        """Returns how many redraws belong to the optimizer's steps so far, in earlier runs too."""
        return int(self.model.optimizer.iterations.numpy()) // self.every

    def _check(self, path: str, kernel: MaskedKernel) -> None:
        if not isinstance(kernel.initializer, initializers.FrozenInitializer):
            raise ValueError(
                f"{type(self).__name__} changes weights that are drawn from a seed. The kernel of layer '{path}' is "
                "not drawn from a seed of this library. Mask the model with weights='random' and one of its kernel "
                "initializers, such as 'signed_constant'."
            )

    def _change(self, kernel: MaskedKernel) -> None:
        raise NotImplementedError


class IterativeRandomization(_Redraw):
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

    def _change(self, kernel: MaskedKernel) -> None:
        mask = kernel.read_mask()
        seed = initializers.derive_seed(kernel.seed, "redrawn", self._redraw)
        numbers = np.random.Generator(np.random.Philox(key=seed))
        chosen = (numbers.random(mask.shape, np.float32) < self.rate) & (mask == 0)
        values = kernel.initializer.of_redraw(self._redraw).values(mask.shape, kernel.fans())
        frozen = kernel.kernel.numpy()
        kernel.kernel.assign(np.where(chosen, values.astype(frozen.dtype, copy=False), frozen))


class Recycle(_Redraw):
    """Gives weights that the masks do not keep the values of the best ones, from time to time: weight recycling.

    After every `every` training steps, in each kernel of n weights, the floor(rate * n) weights with the smallest
    scores get the values of those with the largest, both in the order of their scores. Scores s are compared by |s|, as
    in `TopK`; of equal ones the lower flat index (C order) comes first. Only weights that are not kept get a value, and
    only kept ones give theirs: where `rate` is more than either share, fewer do. Weights that are kept stay as they
    are. Nothing is random, so a resumed run does the same.

    Of kernels whose values differ in sign only, such as "signed_constant", a ticket says for each kept weight whether
    the sign has turned: at most one bit. Of others it holds the values of the kept weights.

    Args:
        every: int, 1 or more, the number of training steps between two changes.
        rate: float in (0, 1], the share of the weights of each kernel that get another value.

    Raises:
        ValueError: if an argument is out of its range; when training begins, if no layer is masked, if a kernel is not
            drawn from a seed, as with `mask_model(weights="keep")`, or if a selector does not rank weights by |s|, as
            `Bernoulli`.

    Reference:
        Gorbett and Whitley, [Randomly Initialized Subnetworks with Iterative Weight
        Recycling](https://arxiv.org/abs/2303.15953).

    Example:

    >>> import keras_popup
    >>> recycle = keras_popup.callbacks.Recycle(every=300, rate=0.1)
    """

    def _check(self, path: str, kernel: MaskedKernel) -> None:
        super()._check(path, kernel)
        if kernel.selector.draws:
            raise ValueError(
                f"Recycle ranks weights by the size of their scores. The selector of layer '{path}', "
                f"{type(kernel.selector).__name__}, draws its masks: use 'top_k', or IterativeRandomization."
            )

    def _change(self, kernel: MaskedKernel) -> None:
        kept = kernel.read_mask().ravel() != 0
        order = np.argsort(np.abs(kernel.scores.numpy()), axis=None, kind="stable")
        worst, best = order[~kept[order]], order[kept[order]]
        count = min(int(self.rate * kept.size), worst.size, best.size)
        frozen = kernel.kernel.numpy()
        frozen.flat[worst[:count]] = frozen.flat[best[best.size - count :]]
        kernel.kernel.assign(frozen)
