"""The base class of selectors, which choose the weights that a layer keeps: (scores, k, training) -> mask."""

from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from keras_popup.selectors import programs

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        f"keras_popup needs Keras's TensorFlow backend. Received: {keras.backend.backend()!r}. Set the "
        "environment variable KERAS_BACKEND=tensorflow (or `backend` in ~/.keras/keras.json) before importing keras."
    )


class Selector:
    """Base class of selectors: chooses the weights that a layer keeps, from their scores.

    A selector is called with `(scores, k, training)` and returns the mask. It has no state, so several layers can
    use the same object. To write your own, subclass this class, decorate the subclass with
    `keras.saving.register_keras_serializable` and pass an object of it as a layer's `selector`.

    Attributes:
        scores_initializer: the initializer of scores in layers without a `scores_initializer` of their own.
        draws: bool, whether the selector draws masks at random in training. If True, `__call__` and `masked_kernel`
            take one more argument, `seed`. In training, they receive an int64 tensor of shape (2,), which is
            different at each call. A layer with such a selector counts its calls in training, in a weight.

    Call arguments:
        scores: float32 tensor, of any shape with at least one element.
        k: the fraction kept, in (0, 1]: a Python number or a float64 scalar tensor.
        training: bool, whether the layer is called in training mode.

    Output shape:
        Same as `scores`, float32, 0 or 1.
    """

    scores_initializer: ClassVar[Any] = "score_uniform"
    draws: ClassVar[bool] = False

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
        seed: Any = None,
    ) -> tf.Tensor:
        """Returns `kernel * self(scores, k, training)` in `dtype`. Override it to fuse the choice and the product.

        Args:
            kernel: float tensor of the shape of `scores`.
            scores: as in a call.
            k: as in a call.
            training: as in a call.
            dtype: str, the dtype of the result.
            hint: None, or an int64 scalar variable that belongs to these scores and starts at 0. A selector may
                store a value there that makes its next choice faster. The value must not change the choice.
            seed: None, or the seed of a draw, as in a call.
        """
        arguments = {} if seed is None else {"seed": seed}
        return tf.cast(kernel, dtype) * tf.cast(self(scores, k, training, **arguments), dtype)

    def kept(self, scores: Any, k: float) -> int:
        """Returns how many weights are kept outside of training. Override it to compute the number more cheaply."""
        with programs.without_compiling():
            return int(np.count_nonzero(self(scores, k, False)))

    def factor(self, kept: int, size: int) -> np.float32:
        """Returns the scale applied to the kept weights, if `kept` of `size` weights are kept. It is 1 here."""
        return np.float32(1)

    def scores_for(self, mask: NDArray[np.uint8], start: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns scores for which this selector chooses `mask`.

        A masked model that is loaded from a ticket starts from them, because a ticket does not store the scores.

        Args:
            mask: array, 0 or 1.
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
