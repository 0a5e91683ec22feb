"""Evaluation of networks whose masks are drawn, by the mean over several of them."""

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from keras_popup import conversion, initializers


def evaluate_draws(model: keras.Model, data: Any, draws: int = 10, *, seed: int, **kwargs: Any) -> dict[str, Any]:
    """Evaluates a model with masks that are drawn from its scores, rather than chosen by a threshold.

    Each mask is drawn once and used for all of the data, as in the reference. Meanwhile the model has scores of which
    these are the masks; it gets its own back.

    Args:
        model: a compiled `keras.Model` with layers whose selector draws, such as `selectors.Bernoulli`.
        data: as `x` of `keras.Model.evaluate`.
        draws: int, how many masks.
        seed: integer in [0, 2**64). The same gives the same masks.
        **kwargs: further arguments of `keras.Model.evaluate`, such as `y`.

    Returns:
        A dict of the loss and the metrics by name, as float64 arrays of shape `(draws,)`: take their mean.

    Raises:
        ValueError: if the model draws no masks or is not compiled, if `draws` is no positive number or `seed` is
            outside its range, or if `data` is an iterator.
        NotImplementedError: if a selector of your own has no `scores_for`.

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
    if not _drawing(model):
        raise ValueError(
            f"Model '{model.name}' draws no masks: no layer has a selector such as 'bernoulli'. Use model.evaluate."
        )
    if not model.compiled:
        raise ValueError(f"Model '{model.name}' is not compiled, so there is nothing to measure. Call compile first.")
    if draws > 1 and isinstance(data, Iterator):
        raise ValueError("`data` must be there for every draw. Received: an iterator, which can be read once.")
    return evaluate_each(model, lambda: model.evaluate(data, return_dict=True, **{"verbose": 0, **kwargs}), draws, seed)


def evaluate_each(
    model: keras.Model, evaluate: Callable[[], dict[str, float]], draws: int, seed: int
) -> dict[str, NDArray[np.float64]]:
    """Calls a function that evaluates a model, once with each of the masks that `evaluate_draws` draws."""
    drawing = _drawing(model)
    scores = [kernel.scores.numpy() for kernel in drawing]
    found = []
    try:
        for draw in range(draws):
            for kernel, own in zip(drawing, scores, strict=True):
                of_draw = initializers.derive_seed(kernel.seed, "evaluation", seed), draw
                mask = kernel.selector(own, kernel.k, True, seed=of_draw).numpy()
                # A score of 0 has no magnitude to be kept: the least that a penalty would see.
                start = np.where(own == 0, np.float32(1e-30), own)
                kernel.scores.assign(kernel.selector.scores_for(mask, start))
            found.append(evaluate())
    finally:
        for kernel, own in zip(drawing, scores, strict=True):
            kernel.scores.assign(own)
    return {name: np.array([values[name] for values in found]) for name in found[0]}


def _drawing(model: keras.Model) -> list[Any]:
    return [kernel for _, kernel in conversion.masked_kernels(model) if kernel.selector.draws]
