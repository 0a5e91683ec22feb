"""TopK: the k best-scored weights, by edge-popup."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from keras_popup.selectors import plain, programs, thresholds
from keras_popup.selectors.base import Selector, check_scores
from keras_popup.selectors.counts import check_kept


@keras.saving.register_keras_serializable("keras_popup")
class TopK(Selector):
    """Keeps the k best-scored weights of a layer: edge-popup.

    With n scores s and `kept = min(n, round-half-up(k * n))`,

        m_i  = 1 where |s_i| is among the `kept` largest, else 0
        dL/ds = dL/dm * sign(s)

    The gradient goes straight through the choice and exactly through the magnitude. The mask has exactly
    `kept` ones: of equal magnitudes the lower flat index (C order) wins, NaN ranks below every number.
    It is the same eagerly, in a graph and under XLA, and costs a number of passes over the scores that
    does not depend on n.

    Reference:
        Ramanujan et al., [What's Hidden in a Randomly Weighted Neural
        Network?](https://arxiv.org/abs/1911.13299), section 3.

    Call arguments:
        scores: float32 tensor, of any shape with 1 to 2**31 - 1 elements.
        k: the fraction kept, in (0, 1]: a Python number or a float64 scalar tensor.
        training: ignored, the choice is the same.

    Output shape:
        Same as `scores`, float32, exactly 0 or 1.

    Raises:
        TypeError: if the scores are a tensor or array of another type than float32.
        ValueError: if a Python `k` is outside (0, 1] or keeps no weight.

    Example:

    >>> import keras_popup
    >>> mask = keras_popup.selectors.TopK()([0.1, -0.9, 0.5, -0.2], k=0.5)
    >>> mask.numpy().tolist()
    [0.0, 1.0, 1.0, 0.0]
    """

    def __call__(self, scores: Any, k: Any, training: bool = False) -> tf.Tensor:
        scores, kept = _checked(scores, k)
        # Flat here and below, as scores of one size share a program then.
        return tf.reshape(_straight_through_mask(tf.reshape(scores, [-1]), kept), scores.shape)

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
        scores, kept = _checked(scores, k)
        hints = () if hint is None else (tf.convert_to_tensor(hint),)
        flat = tf.reshape(kernel, [-1]), tf.reshape(scores, [-1])
        masked, next_hint = _straight_through_kernel(dtype, *flat, kept, *hints)
        if hint is not None:
            hint.assign(next_hint)
        return tf.reshape(masked, kernel.shape)

    def kept(self, scores: Any, k: float) -> int:
        return check_kept(k, programs.static_size(scores))

    def scores_for(self, mask: NDArray[np.uint8], start: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns scores for which this selector chooses `mask`.

        They have the signs of `start`, and nearly its distribution: with b its largest magnitude, those of kept
        weights are squeezed into the upper part of [0, b], those of the others into the part below.
        """
        largest = np.abs(start).max(initial=0) or np.float32(1)
        threshold = np.float32(1 - mask.mean(dtype=np.float64)) * largest
        magnitudes = np.abs(start) / largest
        # The others stay below the threshold by more than rounding could take away.
        scores = np.where(mask, threshold + magnitudes * (largest - threshold), magnitudes * threshold * 0.999)
        return np.copysign(np.where(mask, np.maximum(scores, largest * np.float32(1e-6)), scores), start)


def _checked(scores: Any, k: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the scores as a tensor and the number kept as an int32 scalar."""
    scores = check_scores(scores)
    size = programs.static_size(scores)
    kept = check_kept(k, size) if isinstance(k, (int, float, np.number)) else thresholds.count_kept_tensor(k, size)
    return scores, tf.convert_to_tensor(kept, tf.int32)


# The gradients are straight through the choice and exact through the magnitude. They are made from scores and
# kernel, which are there anyway: nothing but the masked kernel is kept between the passes.


@tf.custom_gradient
def _straight_through_mask(scores: tf.Tensor, kept: tf.Tensor) -> Any:
    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, None]:
        return upstream * tf.sign(scores), None

    return programs.trace_once(_mask)(scores, kept), gradient


def _straight_through_kernel(
    dtype: str, kernel: tf.Tensor, scores: tf.Tensor, kept: tf.Tensor, *hint: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    @tf.custom_gradient
    def masked(*inputs: tf.Tensor) -> Any:
        def gradient(upstream: tf.Tensor, _: Any) -> tuple[Any, ...]:
            of_scores = programs.trace_once(_score_gradient)(upstream, kernel, scores)
            return None, of_scores, *[None] * (len(inputs) - 2)

        return programs.trace_once(_masked, dtype)(*inputs), gradient

    kernel_and_threshold: tuple[tf.Tensor, tf.Tensor] = masked(kernel, scores, kept, *hint)
    return kernel_and_threshold


def _mask(scores: tf.Tensor, kept: tf.Tensor) -> tf.Tensor:
    return tf.cast(_choose(scores, kept)[0], tf.float32)


def _masked(dtype: str, kernel: tf.Tensor, scores: tf.Tensor, kept: tf.Tensor, *hint: tf.Tensor) -> Any:
    mask, next_hint = _choose(scores, kept, *hint)
    return tf.cast(tf.where(mask, kernel, tf.zeros((), kernel.dtype)), dtype), next_hint


def _choose(scores: tf.Tensor, kept: tf.Tensor, *hint: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the mask of flat scores, a bool tensor, and the next hint."""
    if programs.use_numpy() or programs.is_compiling():
        threshold = thresholds.find_threshold(scores, kept, *hint)
        return thresholds.is_above(scores, threshold), threshold
    ranks = plain.rank_scores(scores)
    found = plain.find_threshold(ranks, kept, *hint)
    return found.is_above(ranks), found.hint


def _score_gradient(upstream: tf.Tensor, kernel: tf.Tensor, scores: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.cast(upstream, kernel.dtype) * kernel, scores.dtype) * tf.sign(scores)
