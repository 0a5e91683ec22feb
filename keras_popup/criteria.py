"""Masks of trained networks, from the weights before and after training, and values for the kept weights.

The experiments of Zhou et al., [Deconstructing Lottery Tickets: Zeros, Signs, and the
Supermask](https://arxiv.org/abs/1905.01067), sections 3 to 5. The criteria and treatments are plain functions of two
arrays of the same shape: the weights of a kernel before training (`initial`) and after it (`final`). Weights that are
not kept become 0.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from keras_popup import initializers, selectors
from keras_popup.conversion import copy_model, mask_model, masked_kernels
from keras_popup.layers import kernels_of, walk_parts

__all__ = [
    "CRITERIA",
    "TREATMENTS",
    "choose",
    "large_final",
    "large_final_same_sign",
    "magnitude_increase",
    "mask_trained",
    "random",
    "rewound",
    "signed_constant",
    "trained",
]

Array = NDArray[Any]


def large_final(initial: Array, final: Array) -> Array:
    """Returns |final|: the criterion of the lottery ticket hypothesis."""
    return np.abs(final)


def large_final_same_sign(initial: Array, final: Array) -> Array:
    """Returns |final|, but -|final| where training has changed the sign."""
    return np.where(np.signbit(initial) == np.signbit(final), np.abs(final), -np.abs(final))


def magnitude_increase(initial: Array, final: Array) -> Array:
    """Returns |final| - |initial|."""
    return np.abs(final) - np.abs(initial)


def random(initial: Array, final: Array, seed: int) -> Array:
    """Returns uniform random numbers in [0, 1). They do not depend on the weights.

    Args:
        initial: not used.
        final: array; the result has its shape.
        seed: integer in [0, 2**64).
    """
    return np.random.Generator(np.random.Philox(key=initializers.check_seed(seed))).random(final.shape)


def choose(values: Array, k: float) -> NDArray[np.bool_]:
    """Returns the mask of the `round-half-up(k * n)` largest of n values. Of equal values, lower flat indices win.

    Raises:
        ValueError: if `k` is outside (0, 1] or keeps no value.
    """
    mask = np.zeros(values.size, bool)
    mask[np.argsort(-values.ravel(), kind="stable")[: selectors.check_kept(k, values.size)]] = True
    return mask.reshape(values.shape)


def trained(initial: Array, final: Array) -> Array:
    """Returns the weights as training left them."""
    return final


def rewound(initial: Array, final: Array) -> Array:
    """Returns the weights as they were before training."""
    return initial


def signed_constant(initial: Array, final: Array) -> Array:
    """Returns the standard deviation of the initial weights, with the sign of each initial weight."""
    signed: Array = np.copysign(initial.std(), initial).astype(initial.dtype)
    return signed


CRITERIA: dict[str, Callable[..., Array]] = {
    "large_final": large_final,
    "large_final_same_sign": large_final_same_sign,
    "magnitude_increase": magnitude_increase,
    "random": random,
}
TREATMENTS: dict[str, Callable[[Array, Array], Array]] = {
    "trained": trained,
    "rewound": rewound,
    "signed_constant": signed_constant,
}


def mask_trained(
    initial: keras.Model,
    final: keras.Model,
    k: float,
    criterion: str = "large_final",
    treatment: str = "rewound",
    *,
    seed: int = 0,
    masked: bool = False,
) -> keras.Model:
    """Returns a network that keeps the weights that a criterion ranks highest. All other weights of its kernels are 0.

    Args:
        initial: plain `keras.Model` before training, such as a copy that was made then.
        final: the same model after training.
        k: float in (0, 1], the fraction kept. It applies to each kernel that `mask_model` could mask.
        criterion: how weights are ranked: "large_final", "large_final_same_sign", "magnitude_increase" or "random".
        treatment: the values of the kept weights: "trained", "rewound" or "signed_constant". Biases and all other
            weights come from `final` for "trained", from `initial` otherwise.
        seed: integer in [0, 2**64), used by "random" only, and for the scores of a masked model.
        masked: bool. False returns a plain model, whose zeros further training fills. True returns a masked model;
            `keras_popup.finetune` makes the weights under its masks trainable. With the treatment "rewound", that is
            the lottery ticket.

    Returns:
        A new `keras.Model`, not compiled.

    Raises:
        ValueError: if `criterion`, `treatment` or `k` has another value, if `initial` has no plain kernel, or if the
            kernels of the two models do not have the same shapes.

    Reference:
        Zhou et al., [arXiv 1905.01067](https://arxiv.org/abs/1905.01067).

    Example:

    >>> from keras_popup import criteria, models
    >>> before, after = models.FullyConnected(), models.FullyConnected()
    >>> network = criteria.mask_trained(before, after, k=0.3, criterion="large_final_same_sign")
    >>> int((network.get_layer("dense1").kernel.numpy() != 0).sum())
    70560
    """
    for name, value, table in (("criterion", criterion, CRITERIA), ("treatment", treatment, TREATMENTS)):
        if value not in table:
            raise ValueError(f"`{name}` must be one of {', '.join(table)}. Received: {value!r}.")
    before, after = _find_kernels(initial), _find_kernels(final)
    shapes = [[tuple(kernel.shape) for kernel in kernels] for kernels in (before, after)]
    if not before:
        raise ValueError(
            f"Model '{initial.name}' has no plain kernel to mask. Expected a model without masks, with layers that "
            "mask_model could mask. Strip the masks of a masked model with strip_masks first."
        )
    if shapes[0] != shapes[1]:
        raise ValueError(f"The two models must have kernels of the same shapes. Received: {shapes[0]} and {shapes[1]}.")
    network = copy_model(final if treatment == "trained" else initial)[0]
    masks: dict[int, NDArray[np.bool_]] = {}
    for number, (kernel, first, last) in enumerate(zip(_find_kernels(network), before, after, strict=True)):
        weights = first.numpy(), last.numpy()
        # The criterion's name is part of the path: mask_model derives the seeds of its kernels from number alone.
        arguments = {"seed": initializers.derive_seed(seed, criterion, number)} if criterion == "random" else {}
        mask = choose(CRITERIA[criterion](*weights, **arguments), k)
        masks[id(kernel)] = mask
        kernel.assign(TREATMENTS[treatment](*weights) if masked else np.where(mask, TREATMENTS[treatment](*weights), 0))
    if masked:
        mask_model(network, k=k, weights="keep", seed=seed, copy=False)
        for _, kernel in masked_kernels(network):
            chosen = masks[id(kernel.kernel)].astype(np.uint8)
            kernel.scores.assign(kernel.make_scores(chosen))
    return network


def _find_kernels(model: keras.Model) -> list[Any]:
    """Returns the variables of the kernels that `mask_model` could mask."""
    layers = [layer for layer in (model, *(part for _, part in walk_parts(model))) if layer.built]
    return [spec.plain_variable(layer) for layer in layers for spec in kernels_of(layer)]
