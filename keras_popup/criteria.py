"""Masks of trained networks: what to keep by the weights before and after training, and what values to give it.

The experiments of Zhou et al., [Deconstructing Lottery Tickets: Zeros, Signs, and the
Supermask](https://arxiv.org/abs/1905.01067), sections 3 to 5: plain functions of a kernel's `initial` and `final`
weights, arrays of one shape. Weights that are not kept are 0.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from keras_popup import initializers, selectors
from keras_popup.conversion import copy_model
from keras_popup.layers import kernels_of, walk_parts

Array = NDArray[Any]


def large_final(initial: Array, final: Array) -> Array:
    """Returns |final|: the criterion of the lottery ticket hypothesis."""
    return np.abs(final)


def large_final_same_sign(initial: Array, final: Array) -> Array:
    """Returns |final|, negative where training has changed the sign."""
    return np.where(np.signbit(initial) == np.signbit(final), np.abs(final), -np.abs(final))


def magnitude_increase(initial: Array, final: Array) -> Array:
    """Returns |final| - |initial|."""
    return np.abs(final) - np.abs(initial)


def random(initial: Array, final: Array, seed: int) -> Array:
    """Returns uniform numbers, which know nothing of the weights.

    Args:
        seed: integer in [0, 2**64).
    """
    return np.random.Generator(np.random.Philox(key=initializers.check_seed(seed))).random(final.shape)


def choose(values: Array, k: float) -> NDArray[np.bool_]:
    """Returns the mask of the `round-half-up(k * n)` largest values; of equal ones, the lower flat index wins.

    Raises:
        ValueError: if `k` is outside (0, 1] or keeps none.
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
    """Returns the standard deviation of the initial weights, with the sign of each."""
    return np.copysign(initial.std(), initial).astype(initial.dtype)


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
) -> keras.Model:
    """Returns a network of which a part of the weights is kept, as a criterion chooses them, and the others are 0.

    Args:
        initial: plain `keras.Model` before training, such as a copy made then.
        final: the same model after training.
        k: float in (0, 1], the fraction kept of each kernel that a masked layer could have.
        criterion: "large_final", "large_final_same_sign", "magnitude_increase" or "random".
        treatment: what the weights kept are: "trained", "rewound" or "signed_constant". Biases and all other weights
            are the final model's for "trained", the initial one's otherwise.
        seed: integer in [0, 2**64), for "random".

    Returns:
        A new plain `keras.Model`, not compiled.

    Raises:
        ValueError: for another criterion, treatment or `k`, or for models that are not of the same kernels.

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
    before, after = _kernels(initial), _kernels(final)
    shapes = [[tuple(kernel.shape) for kernel in kernels] for kernels in (before, after)]
    if not before:
        raise ValueError(f"Model '{initial.name}' has no plain kernel to mask. Models with masked layers have masks.")
    if shapes[0] != shapes[1]:
        raise ValueError(f"The two models must have kernels of the same shapes. Received: {shapes[0]} and {shapes[1]}.")
    network = copy_model(final if treatment == "trained" else initial)[0]
    for place, (kernel, first, last) in enumerate(zip(_kernels(network), before, after, strict=True)):
        weights = first.numpy(), last.numpy()
        # By the criterion's name, as the seed and place alone are those of the kernels that mask_model makes.
        own_seed = {"seed": initializers.derive_seed(seed, criterion, place)} if criterion == "random" else {}
        mask = choose(CRITERIA[criterion](*weights, **own_seed), k)
        kernel.assign(np.where(mask, TREATMENTS[treatment](*weights), 0))
    return network


def _kernels(model: keras.Model) -> list[Any]:
    """Returns the variables of the kernels that could be masked."""
    found = [(layer, spec) for layer in (model, *(part for _, part in walk_parts(model))) for spec in kernels_of(layer)]
    return [spec.plain_variable(layer) for layer, spec in found if layer.built]
