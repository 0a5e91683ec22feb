"""MaskedDense, MaskedEinsumDense and the masked embeddings."""

import math
from typing import Any

import keras

from keras_popup.layers.constructed import KERNEL, Constructed
from keras_popup.layers.masked_kernel import KernelSpec, MaskedKernel


def _split_equation(layer: Any) -> tuple[str, str, str]:
    """Returns the axes of inputs, kernel and outputs in the equation of an EinsumDense."""
    operands, output = layer.equation.replace(" ", "").split("->")
    inputs, kernel = operands.split(",")
    return inputs, kernel, output


def _compute_einsum_fans(layer: Any, shape: tuple[int, ...]) -> tuple[int, int]:
    inputs, kernel, output = _split_equation(layer)
    axes = list(zip(kernel, shape, strict=True))
    fan_in = math.prod(size for axis, size in axes if axis not in output)
    return fan_in, math.prod(size for axis, size in axes if axis not in inputs)


def _find_einsum_axes(layer: Any, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    inputs, kernel, output = _split_equation(layer)
    rows = tuple(index for index, axis in enumerate(kernel) if axis in inputs)
    return rows, tuple(index for index, axis in enumerate(kernel) if axis in output)


def _compute_table_fans(layer: Any, shape: tuple[int, ...]) -> tuple[int, int]:
    return shape[-1], shape[-1]  # an output is one weight; the next layer sums over shape[-1] of them


_TABLE = KernelSpec("embeddings", "_embeddings", "embeddings", _compute_table_fans)


_REVERSE_TABLE = KernelSpec("reverse_embeddings", "", "embeddings", is_there=lambda layer: not layer.tie_weights)


@keras.saving.register_keras_serializable("keras_popup")
class MaskedDense(Constructed, keras.layers.Dense):
    """Dense layer with a frozen, masked kernel: `activation(inputs @ (w * m) + bias)`.

    Input shape:
        `(batch, ..., inputs)`

    Output shape:
        `(batch, ..., units)`

    Example:

    >>> import numpy as np
    >>> import keras_popup
    >>> layer = keras_popup.layers.MaskedDense(2, k=0.5, seed=1)
    >>> layer(np.ones((1, 4), "float32")).shape
    TensorShape([1, 2])
    >>> layer.kept, int(layer.mask().numpy().sum())
    (4, 4)
    """

    kernel_specs = (KERNEL,)


@keras.saving.register_keras_serializable("keras_popup")
class MaskedEinsumDense(Constructed, keras.layers.EinsumDense):
    """EinsumDense layer with a frozen, masked kernel: `activation(einsum(equation, inputs, w * m) + bias)`.

    fan_in is the product of the sizes of the kernel's axes that the equation sums over (they are not in the output).

    Input shape:
        given by the equation.

    Output shape:
        given by the equation.

    Example:

    >>> import numpy as np
    >>> import keras_popup
    >>> layer = keras_popup.layers.MaskedEinsumDense("abc,cd->abd", output_shape=(None, 5), k=0.3, seed=1)
    >>> layer(np.ones((1, 2, 4), "float32")).shape
    TensorShape([1, 2, 5])
    """

    kernel_specs = (KernelSpec("kernel", "_kernel", "kernel", _compute_einsum_fans, _find_einsum_axes),)


@keras.saving.register_keras_serializable("keras_popup")
class MaskedEmbedding(Constructed, keras.layers.Embedding):
    """Embedding layer with a frozen, masked table. fan_in is the output dimension.

    Input shape:
        `(batch, ...)`, integers.

    Output shape:
        `(batch, ..., output_dim)`
    """

    kernel_specs = (_TABLE,)


@keras.saving.register_keras_serializable("keras_popup")
class MaskedReversibleEmbedding(Constructed, keras.layers.ReversibleEmbedding):
    """ReversibleEmbedding layer with a frozen, masked table for both directions, or two tables if `tie_weights=False`.

    Input shape:
        `(batch, ...)`, integers; with `reverse=True`, `(batch, ..., output_dim)`.

    Output shape:
        `(batch, ..., output_dim)`; with `reverse=True`, `(batch, ..., input_dim)`.
    """

    kernel_specs = (_TABLE, _REVERSE_TABLE)

    def kernels_of_call(self, *args: Any, reverse: bool = False, **kwargs: Any) -> list[MaskedKernel]:
        name = "reverse_embeddings" if reverse and not self.tie_weights else "embeddings"
        return [self.masked_kernels[name]]
