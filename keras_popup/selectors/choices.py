"""Choices by the scores: how they run, are multiplied with a kernel, and are differentiated."""

import dataclasses
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from keras_popup.selectors import plain, programs, thresholds
from keras_popup.selectors.base import Selector, check_scores
from keras_popup.selectors.counts import check_kept


@dataclasses.dataclass(frozen=True)
class Choice:
    """What a selector computes, as functions at the top of a module, of flat tensors.

    Attributes:
        choose: takes (scores, kept, hint, *fixed, *options) and returns (mask, next hint). The mask is a bool or an
            integer tensor of the shape of the scores. `hint` may be None, and is then returned.
        spread: takes (gradient of the mask, scores, *options) and returns the gradient of the scores.
        options: what both take in addition.
    """

    choose: Callable[..., tuple[tf.Tensor, Any]]
    spread: Callable[..., tf.Tensor]
    options: tuple[Hashable, ...] = ()


class ByChoice(Selector):
    """Base class of selectors whose mask is a `Choice`, the same in training and outside.

    Subclasses implement `choice`. Those that do not keep the share k of the weights also implement `count`.
    """

    def choice(self, shape: tuple[int, ...], **takes: Any) -> Choice:
        """Returns the choice among scores of a shape."""
        raise NotImplementedError

    def count(self, scores: tf.Tensor, k: Any, **takes: Any) -> tf.Tensor:
        """Returns what the choice gets as `kept`, an int32 tensor."""
        return count_kept_of(scores, k)

    def list_fixed(self, **takes: Any) -> tuple[tf.Tensor, ...]:
        """Returns what the choice gets after the hint: nothing, or `fixed`."""
        return ()

    def __call__(self, scores: Any, k: Any, training: bool = False, **takes: Any) -> tf.Tensor:
        scores = check_scores(scores)
        choice, kept = self.choice(tuple(scores.shape), **takes), self.count(scores, k, **takes)
        return _compute_mask(choice, scores, kept, *self.list_fixed(**takes))

    def masked_kernel(
        self,
        kernel: tf.Tensor,
        scores: tf.Tensor,
        k: Any,
        training: bool,
        dtype: str,
        hint: Any = None,
        **takes: Any,
    ) -> tf.Tensor:
        scores = check_scores(scores)
        choice, kept = self.choice(tuple(scores.shape), **takes), self.count(scores, k, **takes)
        return _mask_kernel(choice, dtype, kernel, scores, kept, hint, *self.list_fixed(**takes))

    def kept(self, scores: Any, k: float, **takes: Any) -> int:
        return check_kept(k, programs.static_size(scores))

    def scores_for(self, mask: NDArray[Any], start: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns scores for which this selector chooses `mask`, with the signs of `start` and nearly its distribution.

        With b its largest magnitude, those of each level of the mask are squeezed into a part of [0, b], the higher the
        level.
        """
        return make_scores(mask.astype(np.uint8), start)


def _compute_mask(choice: Choice, scores: tf.Tensor, kept: tf.Tensor, *fixed: tf.Tensor) -> tf.Tensor:
    """Returns the mask of scores in float32, of their shape, with the gradient of the choice."""

    @tf.custom_gradient
    def mask(*inputs: tf.Tensor) -> Any:
        def gradient(upstream: tf.Tensor) -> tuple[Any, ...]:
            return choice.spread(upstream, inputs[0], *choice.options), *[None] * (len(inputs) - 1)

        return programs.trace_once(_choose_mask, choice)(*inputs), gradient

    # Flat here and below, as scores of one size share a program then.
    return tf.reshape(mask(tf.reshape(scores, [-1]), kept, *_flatten(fixed)), scores.shape)


def _mask_kernel(
    choice: Choice, dtype: str, kernel: tf.Tensor, scores: tf.Tensor, kept: tf.Tensor, hint: Any, *fixed: tf.Tensor
) -> tf.Tensor:
    """Returns a kernel times the mask of scores in `dtype`, with the gradient of the choice.

    Args:
        choice: the choice.
        dtype: of what is returned.
        kernel: tensor of the shape of `scores`.
        scores: float32 tensor.
        kept: int32 tensor, how many are kept.
        hint: None, or the variable that the next hint is assigned to.
        fixed: none, or an int8 tensor of the shape of `scores`.
    """
    shape = kernel.shape
    hints = () if hint is None else (tf.convert_to_tensor(hint),)
    flat_kernel, flat_scores = tf.reshape(kernel, [-1]), tf.reshape(scores, [-1])

    # The gradients are made from scores and kernel, which are there anyway: nothing but the masked kernel is kept
    # between the passes.
    @tf.custom_gradient
    def masked(*inputs: tf.Tensor) -> Any:
        def gradient(upstream: tf.Tensor, *_: Any) -> tuple[Any, ...]:
            of_scores = programs.trace_once(_compute_gradient, choice)(upstream, flat_kernel, flat_scores)
            return None, of_scores, *[None] * (len(inputs) - 2)

        return programs.trace_once(_choose_kernel, choice, dtype, len(hints))(*inputs), gradient

    results = masked(flat_kernel, flat_scores, kept, *hints, *_flatten(fixed))
    if hint is not None:
        hint.assign(results[1])
    return tf.reshape(results[0], shape)


def _flatten(tensors: tuple[tf.Tensor, ...]) -> list[tf.Tensor]:
    return [tf.reshape(tensor, [-1]) for tensor in tensors]


def _choose_mask(choice: Choice, scores: tf.Tensor, kept: tf.Tensor, *fixed: tf.Tensor) -> tf.Tensor:
    return tf.cast(choice.choose(scores, kept, None, *fixed, *choice.options)[0], tf.float32)


def _choose_kernel(
    choice: Choice, dtype: str, hints: int, kernel: tf.Tensor, scores: tf.Tensor, kept: tf.Tensor, *more: tf.Tensor
) -> tuple[tf.Tensor, ...]:
    hint = more[0] if hints else None
    mask, next_hint = choice.choose(scores, kept, hint, *more[hints:], *choice.options)
    if mask.dtype == tf.bool:  # a product would take longer
        masked = tf.where(mask, kernel, tf.zeros((), kernel.dtype))
    else:
        masked = kernel * tf.cast(mask, kernel.dtype)
    return (tf.cast(masked, dtype), next_hint) if hints else (tf.cast(masked, dtype),)


def _compute_gradient(choice: Choice, upstream: tf.Tensor, kernel: tf.Tensor, scores: tf.Tensor) -> tf.Tensor:
    of_mask = tf.cast(tf.cast(upstream, kernel.dtype) * kernel, scores.dtype)
    return choice.spread(of_mask, scores, *choice.options)


def count_kept_of(scores: tf.Tensor, k: Any) -> tf.Tensor:
    """Returns how many of some scores `k` keeps, an int32 scalar.

    Raises:
        ValueError: if `k` is a Python number that is outside (0, 1] or keeps none.
    """
    size = programs.static_size(scores)
    kept = check_kept(k, size) if isinstance(k, (int, float, np.number)) else thresholds.count_kept_tensor(k, size)
    return tf.convert_to_tensor(kept, tf.int32)


def choose_largest(scores: tf.Tensor, kept: tf.Tensor, hint: Any) -> tuple[tf.Tensor, Any]:
    """Tells which scores are the `kept` largest in magnitude.

    Args:
        scores: float32 tensor of shape (n,).
        kept: int32 scalar, in [1, n].
        hint: int64 scalar, which only the time depends on, or None.

    Returns:
        (bool tensor, the next hint).
    """
    hints = () if hint is None else (hint,)
    if programs.use_numpy() or programs.is_compiling():
        threshold = thresholds.find_threshold(scores, kept, *hints)
        return thresholds.is_above(scores, threshold), threshold
    ranks = plain.rank_scores(scores)
    found = plain.find_threshold(ranks, kept, *hints)
    return found.is_above(ranks), found.hint


def spread_by_sign(upstream: tf.Tensor, scores: tf.Tensor, *options: Any) -> tf.Tensor:
    """Returns the gradient of scores whose magnitude is chosen: straight through the choice, exact through |.|."""
    return upstream * tf.sign(scores)


def make_scores(levels: NDArray[np.uint8], start: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns scores whose magnitudes have the order of `levels`.

    They have the signs of `start`, and nearly its distribution: with b its largest magnitude, those of each level are
    squeezed into a part of [0, b], which is as long as the level's share of the scores.

    Args:
        levels: array of integers from 0 up.
        start: array of the same shape.
    """
    largest = np.abs(start).max(initial=0) or np.float32(1)
    magnitudes = np.abs(start) / largest
    scores = np.zeros(levels.shape, np.float32)
    present = np.unique(levels)
    for level in present:
        chosen = levels == level
        low = np.float32((levels < level).mean(dtype=np.float64)) * largest
        high = largest if level == present[-1] else np.float32((levels <= level).mean(dtype=np.float64)) * largest
        # Those below another level stay there by more than rounding could take away.
        room = (high - low) * np.float32(1 if level == present[-1] else 0.999)
        of_level = low + magnitudes[chosen] * room
        scores[chosen] = np.maximum(of_level, largest * np.float32(1e-6)) if level else of_level
    return np.copysign(scores, start)
