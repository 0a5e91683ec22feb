"""The base class of selectors, which choose the weights that a layer keeps: (scores, k, training) -> mask."""

import math
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from keras_popup.selectors import programs
from keras_popup.selectors.counts import check_kept, count_kept, entropy_bits


class Selector:
    """Base class of selectors: chooses the weights that a layer keeps, from their scores.

    A selector is called with `(scores, k, training)` and returns the mask. It has no state, so several layers can
    use the same object. To write your own, subclass this class, decorate the subclass with
    `keras.saving.register_keras_serializable` and pass an object of it as a layer's `selector`.

    Attributes:
        scores_initializer: the initializer of scores in layers without a `scores_initializer` of their own.
        levels: tuple of ints, the values that a mask may have: (0, 1), or (-1, 0, 1), or (0, 1, 2). A weight of
            level 0 is not kept.
        draws: bool, whether the selector draws masks at random in training. If True, `__call__` and `masked_kernel`
            take one more argument, `seed`. In training, they receive an int64 tensor of shape (2,), which is
            different at each call. A layer with such a selector counts its calls in training, in a weight.
        takes: tuple of strings, more arguments that `__call__` and `masked_kernel` take. "axes": (axes of input
            channels, axes of output channels) of the kernel, two tuples of ints. "fixed": an int8 tensor of the shape
            of the scores, which `draw_fixed` has drawn. "threshold": an int64 scalar tensor, from the scores of all
            kernels of a group; only kernels of a group have one. "fans": (fan_in, fan_out) of the kernel.
        hint_shape: tuple of ints, the shape of a layer's `hint`.
        k_range: pair of floats, the least and the largest k that a mask can have.

    Call arguments:
        scores: float32 tensor, of any shape with at least one element.
        k: the fraction kept, in (0, 1]: a Python number or a float64 scalar tensor.
        training: bool, whether the layer is called in training mode.

    Output shape:
        Same as `scores`, float32, with the values of `levels`.
    """

    scores_initializer: ClassVar[Any] = "score_uniform"
    levels: tuple[int, ...] = (0, 1)
    draws: ClassVar[bool] = False
    takes: tuple[str, ...] = ()
    hint_shape: tuple[int, ...] = ()
    k_range: tuple[float, float] = (0.0, 1.0)

    def __call__(self, scores: Any, k: Any, training: bool = False) -> tf.Tensor:
        raise NotImplementedError(f"{type(self).__name__} must implement __call__(scores, k, training).")

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
        """Returns `kernel * self(scores, k, training)` in `dtype`. Override it to fuse the choice and the product.

        Args:
            kernel: float tensor of the shape of `scores`.
            scores: as in a call.
            k: as in a call.
            training: as in a call.
            dtype: str, the dtype of the result.
            hint: None, or an int64 variable of shape `hint_shape` that belongs to these scores and starts at 0. A
                selector may store values there that make its next choice faster. They must not change the choice.
            **takes: `seed` and what `takes` names, as in a call.
        """
        return tf.cast(kernel, dtype) * tf.cast(self(scores, k, training, **takes), dtype)

    def check(self, shape: tuple[int, ...], k: float, where: str = "", **takes: Any) -> None:
        """Raises ValueError if no mask of this shape can be chosen: here, if `k` keeps no weight.

        Args:
            shape: tuple of ints, the shape of the scores.
            k: float in (0, 1].
            where: str, the words that name the layer in the message.
            **takes: "axes", if `takes` names them.
        """
        check_kept(k, math.prod(shape), where)

    def round_k(self, shape: tuple[int, ...], k: float, **takes: Any) -> float:
        """Returns the fraction nearest to `k` that masks of this shape can have: that of a layer under a schedule.

        Here it is `k`. Override it, together with `check`, if masks of a shape cannot have every fraction.
        """
        return k

    def kept(self, scores: Any, k: float, **takes: Any) -> int:
        """Returns how many weights are kept outside of training. Override it to compute the number more cheaply."""
        with programs.without_compiling():
            return int(np.count_nonzero(self(scores, k, False, **takes)))

    def mask_bits(self, shape: tuple[int, ...], k: float, **takes: Any) -> float:
        """Returns the bits that a mask takes of which nothing but its shape and `k` is known.

        Here they are log2 C(n, kept), and the same for each weight that is kept to say which of several levels it has.
        """
        size = math.prod(shape)
        kept = count_kept(k, size)
        return entropy_bits(size, kept) + kept * math.log2(max(1, len(self.levels) - 1))

    def factor(self, kept: int, size: int) -> np.float32:
        """Returns the scale applied to the kept weights, if `kept` of `size` weights are kept. It is 1 here."""
        return np.float32(1)

    def draw_fixed(self, shape: tuple[int, ...], seed: int) -> NDArray[np.int8]:
        """Returns the values of the argument `fixed` for a kernel, if `takes` names it. They follow from the seed."""
        raise NotImplementedError(f"{type(self).__name__} must implement draw_fixed(shape, seed).")

    def scores_for(self, mask: NDArray[Any], start: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns scores for which this selector chooses `mask`.

        A masked model that is loaded from a ticket starts from them, because a ticket does not store the scores.

        Args:
            mask: int8 array, with the values of `levels`.
            start: array of the same shape, initial scores.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement scores_for(mask, start).")

    def get_config(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Selector":
        return cls(**config)


def check_scores(scores: Any) -> tf.Tensor:
    """Returns `scores` as a float32 tensor.

    Raises:
        TypeError: if they are a tensor or an array of another dtype.
    """
    if hasattr(scores, "dtype") and keras.backend.standardize_dtype(scores.dtype) != "float32":
        raise TypeError(
            f"Scores must be float32: rounding to another dtype would make ties. Received: dtype={scores.dtype}."
        )
    # tf.custom_gradient would demand a `variables` argument if it received a Keras variable.
    return tf.convert_to_tensor(scores, tf.float32)
