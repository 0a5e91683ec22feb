"""Bernoulli: masks that are drawn at random, the supermask."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from keras_popup.selectors import drawing
from keras_popup.selectors.base import Selector, check_scores


@keras.saving.register_keras_serializable("keras_popup")
class Bernoulli(Selector):
    """Keeps each weight with a learned probability: the supermask.

    With n scores t, in training,

        p = sigmoid(t),  m ~ Bernoulli(p) drawn anew at every call,  the layer uses w * m
        dL/dt = dL/dm * p * (1 - p)

    The gradient passes the draw unchanged (straight-through), then the sigmoid. Outside of training, m = 1 where
    p >= 1/2. `keras_popup.evaluate_draws` gives the mean over drawn masks. The scores decide how many weights are kept:
    `k` has no effect.

    With `rescale` (dynamic weight rescaling), the layer uses `w * m * f` with `f = n / sum(m)`, or f = 1 if no weight
    is kept. Then

        dL/dm_i = f * (g_i * w_i - sum_j(g_j * w_j * m_j) / sum(m)),  g = dL/d(w * m * f)

    A draw depends only on the layer's `seed` and on the number of its calls in training. That number is a weight of
    the layer. So runs with the same seed draw the same masks, even if they are resumed, and all replicas of a
    `tf.distribute` strategy have the same mask.

    Scores start at 0 (p = 1/2), as in the reference. Train them at high learning rates: about 20 to 500 for SGD with
    momentum 0.9, without weight decay. The best learning rate depends on the network.

    Reference:
        Zhou et al., [Deconstructing Lottery Tickets: Zeros, Signs, and the
        Supermask](https://arxiv.org/abs/1905.01067), section 5.

    Args:
        rescale: bool, whether the kept weights are multiplied by n / sum(m).

    Call arguments:
        scores: float32 tensor, of any shape with 1 to 2**31 - 1 elements.
        k: ignored.
        training: bool, whether the mask is drawn.
        seed: int64 tensor of shape (2,), required in training. The same seed gives the same mask.

    Output shape:
        Same as `scores`, float32, exactly 0 or 1.

    Raises:
        TypeError: if the scores are a tensor or an array of another dtype than float32.
        ValueError: if `seed` is missing in training.

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
        scores = check_scores(scores)
        return drawing.mask_kernel(False, "float32", tf.ones_like(scores), scores, _convert_seed(training, seed))

    def masked_kernel(
        self,
        kernel: tf.Tensor,
        scores: tf.Tensor,
        k: Any,
        training: bool,
        dtype: str,
        hint: Any = None,
        *,
        seed: Any = None,
        **takes: Any,
    ) -> tf.Tensor:
        seeds = _convert_seed(training, seed)
        return drawing.mask_kernel(self.rescale, dtype, kernel, check_scores(scores), seeds)

    def factor(self, kept: int, size: int) -> np.float32:
        """Returns the scale applied to the kept weights: size / kept in float32 with `rescale` if kept > 0, else 1."""
        return np.float32(size) / np.float32(kept) if self.rescale and kept else np.float32(1)

    def scores_for(self, mask: NDArray[Any], start: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns scores for which this selector chooses `mask`: +-|start|, or +-2 where `start` is 0."""
        return np.where(mask, np.float32(1), np.float32(-1)) * np.where(start == 0, np.float32(2), np.abs(start))

    def get_config(self) -> dict[str, Any]:
        return {"rescale": self.rescale}


def _convert_seed(training: bool, seed: Any) -> tuple[tf.Tensor, ...]:
    """Returns the arguments of a draw besides the scores: `(seed,)` in training, `()` outside."""
    if not training:
        return ()
    if seed is None:
        raise ValueError("Bernoulli draws its mask in training and needs `seed`, two integers. Received: seed=None.")
    return (tf.convert_to_tensor(seed, tf.int64),)
