"""Bernoulli: masks that are drawn, by the supermask."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from keras_popup.selectors import drawing
from keras_popup.selectors.base import Selector, _checked_scores


@keras.saving.register_keras_serializable("keras_popup")
class Bernoulli(Selector):
    """Keeps each weight with a learned probability: the supermask.

    With n scores t, in training,

        p = sigmoid(t),  m ~ Bernoulli(p) drawn anew at every call,  the layer uses w * m
        dL/dt = dL/dm * p * (1 - p)

    straight through the draw, then through the sigmoid. Outside of training m = 1 where p >= 1/2; see
    `keras_popup.evaluate_draws` for the mean over drawn masks. How many weights are kept follows from the scores:
    `k` changes nothing.

    With `rescale`, dynamic weight rescaling, the layer uses `w * m * f` with `f = n / sum(m)`, or 1 if none is kept, so
    that

        dL/dm_i = f * (g_i * w_i - sum_j(g_j * w_j * m_j) / sum(m)),  g = dL/d(w * m * f)

    A draw is a function of the layer's `seed` and of the number of its calls in training, which is a weight of the
    layer. So runs with the same seed are the same, also when they are resumed, and all replicas of
    a `tf.distribute` strategy have the same mask.

    Scores start at 0, p = 1/2, as in the reference. They are trained at high learning rates, some 20 to 500 for
    SGD with momentum 0.9, without decay. Which is best depends on the network.

    Reference:
        Zhou et al., [Deconstructing Lottery Tickets: Zeros, Signs, and the
        Supermask](https://arxiv.org/abs/1905.01067), section 5.

    Args:
        rescale: bool, whether the kept weights are multiplied by n / sum(m).

    Call arguments:
        scores: float32 tensor, of any shape with 1 to 2**31 - 1 elements.
        k: ignored.
        training: bool, whether the mask is drawn.
        seed: int64 tensor of shape (2,), in training. The same one gives the same mask.

    Output shape:
        Same as `scores`, float32, exactly 0 or 1.

    Raises:
        TypeError: if the scores are a tensor or array of another type than float32.
        ValueError: in training without `seed`.

    Example:

    >>> import keras_popup
    >>> selector = keras_popup.selectors.Bernoulli()
    >>> selector([0.1, -0.9, 0.0, -0.2]).numpy().tolist()
    [1.0, 0.0, 1.0, 0.0]
    >>> selector([9.0, -9.0, 9.0, -9.0], training=True, seed=[1, 0]).numpy().tolist()
    [1.0, 0.0, 1.0, 0.0]
    """

    scores_initializer = "zeros"
    draws = True

    def __init__(self, rescale: bool = False) -> None:
        self.rescale = bool(rescale)

    def __call__(self, scores: Any, k: Any = None, training: bool = False, seed: Any = None) -> tf.Tensor:
        scores = _checked_scores(scores)
        return drawing.mask_kernel(False, "float32", tf.ones_like(scores), scores, _checked_seed(training, seed))

    def masked_kernel(
        self,
        kernel: tf.Tensor,
        scores: tf.Tensor,
        k: Any,
        training: bool,
        dtype: str,
        hint: Any = None,
        seed: Any = None,
    ) -> tf.Tensor:
        seeds = _checked_seed(training, seed)
        return drawing.mask_kernel(self.rescale, dtype, kernel, _checked_scores(scores), seeds)

    def factor(self, kept: int, size: int) -> np.float32:
        """Returns n / sum(m) with `rescale`, as float32 numbers are divided; 1 without, or if none is kept."""
        return np.float32(size) / np.float32(kept) if self.rescale and kept else np.float32(1)

    def scores_for(self, mask: NDArray[np.uint8], start: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns scores for which this selector chooses `mask`: of the magnitude of `start`; of 2 where that is 0."""
        return np.where(mask, np.float32(1), np.float32(-1)) * np.where(start == 0, np.float32(2), np.abs(start))

    def get_config(self) -> dict[str, Any]:
        return {"rescale": self.rescale}


def _checked_seed(training: bool, seed: Any) -> tuple[tf.Tensor, ...]:
    """Returns what a draw takes besides the scores: nothing where the mask is not drawn."""
    if not training:
        return ()
    if seed is None:
        raise ValueError("Bernoulli draws its mask in training, and needs `seed`, two integers. Received: seed=None.")
    return (tf.convert_to_tensor(seed, tf.int64),)
