"""Selectors: which weights of a layer are kept. (scores, k, training) -> mask."""

from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from keras_popup import _bernoulli, _programs, _topk
from keras_popup._counts import check_kept

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
        with _programs.interpreted():
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
        return _straight_through_mask(*_checked(scores, k))

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
        hints = () if hint is None else (tf.convert_to_tensor(hint),)
        scores, kept = _checked(scores, k)
        # Flat, as kernels of one size share a program then.
        flat = tf.reshape(kernel, [-1]), tf.reshape(scores, [-1])
        masked, threshold = _straight_through_kernel(dtype, *flat, kept, *hints)
        if hint is not None:
            hint.assign(threshold)
        return tf.reshape(masked, kernel.shape)

    def kept(self, scores: Any, k: float) -> int:
        return check_kept(k, _programs.static_size(scores))

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
        return _bernoulli.masked(False, "float32", tf.ones_like(scores), scores, _checked_seed(training, seed))

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
        return _bernoulli.masked(self.rescale, dtype, kernel, _checked_scores(scores), seeds)

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


def _checked_scores(scores: Any) -> tf.Tensor:
    if hasattr(scores, "dtype") and keras.backend.standardize_dtype(scores.dtype) != "float32":
        raise TypeError(
            f"Scores must be float32, rounding to another type would make ties. Received: dtype={scores.dtype}."
        )
    # A Keras variable handed to tf.custom_gradient as it is would ask for a `variables` argument.
    return tf.convert_to_tensor(scores, tf.float32)


def _checked(scores: Any, k: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the scores as a tensor and the number kept as an int32 scalar."""
    scores = _checked_scores(scores)
    size = _programs.static_size(scores)
    kept = check_kept(k, size) if isinstance(k, (int, float, np.number)) else _topk.count_kept_tensor(k, size)
    return scores, tf.convert_to_tensor(kept, tf.int32)


# The gradients are straight through the choice and exact through the magnitude. They are made from scores and
# kernel, which are there anyway: nothing but the masked kernel is kept between the passes.


@tf.custom_gradient
def _straight_through_mask(scores: tf.Tensor, kept: tf.Tensor) -> Any:
    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, None]:
        return upstream * tf.sign(scores), None

    return _programs.compiled(_mask, scores.shape)(scores, kept), gradient


def _straight_through_kernel(
    dtype: str, kernel: tf.Tensor, scores: tf.Tensor, kept: tf.Tensor, *hint: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    @tf.custom_gradient
    def masked(*inputs: tf.Tensor) -> Any:
        def gradient(upstream: tf.Tensor, _: Any) -> tuple[Any, ...]:
            of_scores = _programs.compiled(_score_gradient, scores.shape, dtype)(upstream, kernel, scores)
            return None, of_scores, *[None] * (len(inputs) - 2)

        return _programs.compiled(_masked, scores.shape, dtype, len(hint))(dtype, *inputs), gradient

    return masked(kernel, scores, kept, *hint)


def _mask(scores: tf.Tensor, kept: tf.Tensor) -> tf.Tensor:
    return tf.cast(_topk.chosen(scores, kept), tf.float32)


def _masked(dtype: str, kernel: tf.Tensor, scores: tf.Tensor, kept: tf.Tensor, *hint: tf.Tensor) -> Any:
    threshold = _topk.threshold(scores, kept, *hint)
    return tf.cast(kernel * tf.cast(_topk.above(scores, threshold), kernel.dtype), dtype), threshold


def _score_gradient(upstream: tf.Tensor, kernel: tf.Tensor, scores: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.cast(upstream, kernel.dtype) * kernel, scores.dtype) * tf.sign(scores)


_SELECTORS: dict[str, type[Selector]] = {"top_k": TopK, "bernoulli": Bernoulli}


def get(identifier: Any) -> Selector:
    """Retrieves a selector.

    Args:
        identifier: a name (`"top_k"`, `"bernoulli"`), a serialized config, or a `Selector`.

    Raises:
        ValueError: if there is no such selector.
        TypeError: if a config is of a class that Keras does not know.

    Example:

    >>> import keras_popup
    >>> type(keras_popup.selectors.get("top_k")).__name__
    'TopK'
    """
    if isinstance(identifier, dict):
        identifier = deserialize(identifier)
    if isinstance(identifier, str) and identifier in _SELECTORS:
        return _SELECTORS[identifier]()
    if isinstance(identifier, Selector):
        return identifier
    raise ValueError(
        f"Unknown selector. Expected one of {sorted(_SELECTORS)}, a Selector object or its config. "
        f"Received: {identifier!r}."
    )


def serialize(selector: Selector) -> dict[str, Any]:
    """Returns a selector's config, as `deserialize` reads it."""
    return keras.saving.serialize_keras_object(selector)


def deserialize(config: dict[str, Any]) -> Selector:
    """Returns the selector of a serialized config."""
    return keras.saving.deserialize_keras_object(config)
