"""Evaluation of networks with random masks: the mean over several drawn masks."""

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from keras_popup import conversion, initializers
from keras_popup.layers import MaskedKernel

__all__ = ["evaluate_draws"]


def evaluate_draws(model: keras.Model, data: Any, draws: int = 10, *, seed: int, **kwargs: Any) -> dict[str, Any]:
    """Evaluates a model with masks that are drawn from its scores, instead of the mask that its threshold gives.

    Each mask is drawn once and used for all of the data, as in the reference. While a mask is evaluated, the model's
    scores are replaced by scores that give this mask. The model gets its own scores back at the end.

    Args:
        model: a compiled `keras.Model` with layers whose selector draws masks, such as `selectors.Bernoulli`.
        data: as `x` of `keras.Model.evaluate`.
        draws: int, 1 or more, the number of masks.
        seed: integer in [0, 2**64). The same seed gives the same masks.
        **kwargs: further arguments of `keras.Model.evaluate`, such as `y`.

    Returns:
        A dict of the loss and the metrics by name, as float64 arrays of shape `(draws,)`. Take their mean.

    Raises:
        ValueError: if the model draws no masks or is not compiled, if `draws` or `seed` is outside its range, or if
            `data` is an iterator and `draws` is more than 1.
        NotImplementedError: if your own selector does not implement `scores_for`.

    Reference:
        Zhou et al., [Deconstructing Lottery Tickets: Zeros, Signs, and the
        Supermask](https://arxiv.org/abs/1905.01067), section 5.

    Example:

    >>> import keras, numpy as np, keras_popup
    >>> model = keras_popup.mask_model(keras_popup.models.FullyConnected(), selector="bernoulli", seed=1)
    >>> model.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    >>> images, labels = np.zeros((4, 28, 28, 1)), np.zeros(4)
    >>> keras_popup.evaluate_draws(model, images, draws=3, seed=1, y=labels)["accuracy"].shape
    (3,)
    """
    initializers.check_seed(seed)
    if not isinstance(draws, int) or draws < 1:
        raise ValueError(f"`draws` must be a positive integer. Received: {draws=}.")
    if not _find_drawing_kernels(model):
        raise ValueError(
            f"Model '{model.name}' draws no masks: none of its layers has a selector that draws, such as 'bernoulli'. "
            "Use model.evaluate."
        )
    if not model.compiled:
        raise ValueError(f"Model '{model.name}' is not compiled, so it has no loss and no metrics. Call compile first.")
    if draws > 1 and isinstance(data, Iterator):
        raise ValueError(
            "`data` is read once per draw. Received: an iterator, which can be read once. Pass arrays or a "
            "tf.data.Dataset, or use draws=1."
        )
    return evaluate_each(model, lambda: model.evaluate(data, return_dict=True, **{"verbose": 0, **kwargs}), draws, seed)


def evaluate_each(
    model: keras.Model, evaluate: Callable[[], dict[str, float]], draws: int, seed: int
) -> dict[str, NDArray[np.float64]]:
    """Calls `evaluate` once for each mask that `evaluate_draws` draws. Returns its results as arrays, by name."""
    drawing = _find_drawing_kernels(model)
    scores = [kernel.scores.numpy() for kernel in drawing]
    results = []
    try:
        for draw in range(draws):
            for kernel, own_scores in zip(drawing, scores, strict=True):
                draw_seed = initializers.derive_seed(kernel.seed, "evaluation", seed), draw
                arguments: dict[str, Any] = {"seed": draw_seed}  # only selectors that draw take it
                mask = kernel.selector(own_scores, kernel.k, True, **arguments).numpy()
                # `scores_for` keeps the magnitudes, so that regularizers give the same penalty. 0 has no sign to
                # change, so it becomes a number that is too small to change a penalty.
                start = np.where(own_scores == 0, np.float32(1e-30), own_scores)
                kernel.scores.assign(kernel.selector.scores_for(mask, start))
            results.append(evaluate())
    finally:
        for kernel, own_scores in zip(drawing, scores, strict=True):
            kernel.scores.assign(own_scores)
    return {name: np.array([result[name] for result in results]) for name in results[0]}


def _find_drawing_kernels(model: keras.Model) -> list[MaskedKernel]:
    """Returns the masked kernels whose selector draws masks."""
    return [kernel for _, kernel in conversion.masked_kernels(model) if kernel.selector.draws]
