"""Signed: the k best-scored weights, each with the sign of its score."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from keras_popup.selectors.choices import ByChoice, Choice, choose_largest, make_scores


@keras.saving.register_keras_serializable("keras_popup")
class Signed(ByChoice):
    """Keeps the k best-scored weights of a layer, each with the sign of its score: signed masks.

    With n scores s and `kept = min(n, round-half-up(k * n))`,

        m_i  = sign(s_i) where |s_i| is among the `kept` largest, else 0
        dL/ds = dL/dm

    The gradient goes straight through. A score that crosses 0 turns its weight around. It is meant for k below some
    0.2, where few weights must do everything. A ticket takes up to one bit more for each kept weight than with
    `TopK`. The choice is that of `TopK`: exactly `kept` entries are not 0. A kept score of 0 has the sign +1.

    Reference:
        Koster et al., [Signing the Supermask](https://arxiv.org/abs/2201.13361). There a threshold chooses, here `k`.

    Call arguments:
        scores: float32 tensor, of any shape with 1 to 2**31 - 1 elements.
        k: the fraction kept, in (0, 1]: a Python number or a float64 scalar tensor.
        training: ignored, the choice is the same.

    Output shape:
        Same as `scores`, float32, exactly -1, 0 or 1.

    Raises:
        TypeError: if the scores are a tensor or array of another type than float32.
        ValueError: if a Python `k` is outside (0, 1] or keeps no weight.

    Example:

    >>> import keras_popup
    >>> mask = keras_popup.selectors.Signed()([0.1, -0.9, 0.5, -0.2], k=0.5)
    >>> mask.numpy().tolist()
    [0.0, -1.0, 1.0, 0.0]
    """

    levels = (-1, 0, 1)

    def choice(self, shape: tuple[int, ...], **takes: Any) -> Choice:
        return Choice(_choose_signs, _spread)

    def scores_for(self, mask: NDArray[Any], start: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns scores for which this selector chooses `mask`: magnitudes as of `TopK`, signs of the mask."""
        magnitudes = make_scores(np.abs(mask).astype(np.uint8), start)
        return np.where(mask == 0, magnitudes, np.copysign(magnitudes, mask.astype(np.float32)))


def _choose_signs(scores: tf.Tensor, kept: tf.Tensor, hint: Any) -> tuple[tf.Tensor, Any]:
    chosen, next_hint = choose_largest(scores, kept, hint)
    signs = tf.where(scores < 0.0, tf.constant(-1, tf.int8), tf.constant(1, tf.int8))
    return tf.where(chosen, signs, tf.constant(0, tf.int8)), next_hint


def _spread(upstream: tf.Tensor, scores: tf.Tensor) -> tf.Tensor:
    return upstream
