"""The class of all selectors: which weights of a layer are kept. (scores, k, training) -> mask."""

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
    """Chooses the weights of a layer from their scores.

    A selector is called with `(scores, k, training)` and returns the mask. It holds no state, so one
    object may serve many layers. Subclass it, decorate the class with
    `keras.saving.register_keras_serializable` and pass an object as a layer's `selector`.

    Attributes:
        scores_initializer: that of layers which are given none.
        draws: bool, whether masks are drawn at random in training. Then `__call__` and `masked_kernel` have a
            further argument `seed`, given in training: an int64 tensor of shape (2,), another one at each call.
            A layer that has such a selector counts its calls, in a weight.

    Call arguments:
        scores: float32 tensor, of any shape with at least one element.
        k: the fraction kept, in (0, 1]: a Python number or a float64 scalar tensor.
        training: bool, whether the layer is called in training mode.

    Output shape:
        Same as `scores`, float32.
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
        """Returns `kernel * self(scores, k, training)` in `dtype`. Override it to fuse the two.

        Args:
            seed: as `__call__` of a selector that draws is given it.
            hint: None, or an int64 scalar variable, 0 at first, for this selector and these scores alone. What
                a selector leaves there may make its next choice quicker, and must not change it.
        """
        given = {} if seed is None else {"seed": seed}
        return tf.cast(kernel, dtype) * tf.cast(self(scores, k, training, **given), dtype)

    def kept(self, scores: Any, k: float) -> int:
        """Returns how many weights are kept outside of training. Override it where that is known without choosing."""
        with programs.without_compiling():
            return int(np.count_nonzero(self(scores, k, False)))

    def factor(self, kept: int, size: int) -> np.float32:
        """Returns what kept weights are multiplied by, of which `kept` of `size` are."""
        return np.float32(1)

    def scores_for(self, mask: NDArray[np.uint8], start: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns scores for which this selector chooses `mask`, to go on from where its own scores are lost.

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


def _checked_scores(scores: Any) -> tf.Tensor:
    if hasattr(scores, "dtype") and keras.backend.standardize_dtype(scores.dtype) != "float32":
        raise TypeError(
            f"Scores must be float32, rounding to another type would make ties. Received: dtype={scores.dtype}."
        )
    # A Keras variable handed to tf.custom_gradient as it is would ask for a `variables` argument.
    return tf.convert_to_tensor(scores, tf.float32)
