"""Masked convolution layers."""

import math
from typing import Any

import keras

from keras_popup import initializers
from keras_popup.layers.constructed import KERNEL, Constructed
from keras_popup.layers.masked_kernel import KernelSpec


def _compute_depthwise_fans(layer: Any, shape: tuple[int, ...]) -> tuple[int, int]:
    *window, _, multiplier = shape
    return math.prod(window), math.prod(window) * multiplier


def _find_depthwise_axes(layer: Any, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return (rank - 2,), (rank - 2, rank - 1)


def _compute_transposed_fans(layer: Any, shape: tuple[int, ...]) -> tuple[int, int]:
    fan_out, fan_in = initializers.kernel_fans(shape)  # the shape of a transposed kernel is (*window, outputs, inputs)
    return fan_in, fan_out


_DEPTHWISE_KERNEL = KernelSpec("kernel", "", "depthwise", _compute_depthwise_fans, _find_depthwise_axes)


_TRANSPOSED_KERNEL = KernelSpec(
    "kernel", "", "kernel", _compute_transposed_fans, lambda layer, rank: ((rank - 1,), (rank - 2,))
)


_SEPARABLE_KERNELS = (
    KernelSpec("depthwise_kernel", "", "depthwise", _compute_depthwise_fans, _find_depthwise_axes),
    KernelSpec("pointwise_kernel", "", "pointwise"),
)


@keras.saving.register_keras_serializable("keras_popup")
class MaskedConv1D(Constructed, keras.layers.Conv1D):
    """1D convolution layer with a frozen, masked kernel.

    Input shape:
        `(batch, steps, channels)`, or `(batch, channels, steps)` for "channels_first".

    Output shape:
        `(batch, new_steps, filters)`, or `(batch, filters, new_steps)`.
    """

    kernel_specs = (KERNEL,)


@keras.saving.register_keras_serializable("keras_popup")
class MaskedConv2D(Constructed, keras.layers.Conv2D):
    """2D convolution layer with a frozen, masked kernel.

    Input shape:
        `(batch, height, width, channels)`, or `(batch, channels, height, width)` for "channels_first".

    Output shape:
        `(batch, new_height, new_width, filters)`, or `(batch, filters, new_height, new_width)`.

    Example:

    >>> import numpy as np
    >>> import keras_popup
    >>> layer = keras_popup.layers.MaskedConv2D(8, 3, padding="same", k=0.3, seed=1)
    >>> layer(np.ones((1, 32, 32, 3), "float32")).shape
    TensorShape([1, 32, 32, 8])
    >>> layer.kept  # of 3 * 3 * 3 * 8 = 216
    65
    """

    kernel_specs = (KERNEL,)


@keras.saving.register_keras_serializable("keras_popup")
class MaskedConv3D(Constructed, keras.layers.Conv3D):
    """3D convolution layer with a frozen, masked kernel.

    Input shape:
        `(batch, depth, height, width, channels)`, or `(batch, channels, depth, height, width)` for "channels_first".

    Output shape:
        `(batch, new_depth, new_height, new_width, filters)`, or `(batch, filters, new_depth, new_height, new_width)`.
    """

    kernel_specs = (KERNEL,)


@keras.saving.register_keras_serializable("keras_popup")
class MaskedDepthwiseConv1D(Constructed, keras.layers.DepthwiseConv1D):
    """1D depthwise convolution with a frozen, masked kernel. fan_in is the kernel size.

    Input shape:
        `(batch, steps, channels)`, or `(batch, channels, steps)` for "channels_first".

    Output shape:
        `(batch, new_steps, channels * depth_multiplier)`, or `(batch, channels * depth_multiplier, new_steps)`.
    """

    kernel_specs = (_DEPTHWISE_KERNEL,)


@keras.saving.register_keras_serializable("keras_popup")
class MaskedDepthwiseConv2D(Constructed, keras.layers.DepthwiseConv2D):
    """2D depthwise convolution with a frozen, masked kernel. fan_in is kernel height * kernel width.

    Input shape:
        `(batch, height, width, channels)`, or `(batch, channels, height, width)` for "channels_first".

    Output shape:
        `(batch, new_height, new_width, channels * depth_multiplier)`, or, for "channels_first",
        `(batch, channels * depth_multiplier, new_height, new_width)`.
    """

    kernel_specs = (_DEPTHWISE_KERNEL,)


@keras.saving.register_keras_serializable("keras_popup")
class MaskedConv2DTranspose(Constructed, keras.layers.Conv2DTranspose):
    """2D transposed convolution with a frozen, masked kernel.

    fan_in is kernel height * kernel width * input channels, for any strides.

    Input shape:
        `(batch, height, width, channels)`, or `(batch, channels, height, width)` for "channels_first".

    Output shape:
        `(batch, new_height, new_width, filters)`, or `(batch, filters, new_height, new_width)`.
    """

    kernel_specs = (_TRANSPOSED_KERNEL,)


@keras.saving.register_keras_serializable("keras_popup")
class MaskedConv1DTranspose(Constructed, keras.layers.Conv1DTranspose):
    """1D transposed convolution with a frozen, masked kernel.

    fan_in is kernel size * input channels, for any strides.

    Input shape:
        `(batch, steps, channels)`, or `(batch, channels, steps)` for "channels_first".

    Output shape:
        `(batch, new_steps, filters)`, or `(batch, filters, new_steps)`.
    """

    kernel_specs = (_TRANSPOSED_KERNEL,)


@keras.saving.register_keras_serializable("keras_popup")
class MaskedConv3DTranspose(Constructed, keras.layers.Conv3DTranspose):
    """3D transposed convolution with a frozen, masked kernel.

    fan_in is kernel depth * kernel height * kernel width * input channels, for any strides.

    Input shape:
        `(batch, depth, height, width, channels)`, or `(batch, channels, depth, height, width)` for "channels_first".

    Output shape:
        `(batch, new_depth, new_height, new_width, filters)`, or `(batch, filters, new_depth, new_height, new_width)`.
    """

    kernel_specs = (_TRANSPOSED_KERNEL,)


@keras.saving.register_keras_serializable("keras_popup")
class MaskedSeparableConv1D(Constructed, keras.layers.SeparableConv1D):
    """1D separable convolution with two frozen, masked kernels: "depthwise_kernel" and "pointwise_kernel".

    Input shape:
        `(batch, steps, channels)`, or `(batch, channels, steps)` for "channels_first".

    Output shape:
        `(batch, new_steps, filters)`, or `(batch, filters, new_steps)`.
    """

    kernel_specs = _SEPARABLE_KERNELS


@keras.saving.register_keras_serializable("keras_popup")
class MaskedSeparableConv2D(Constructed, keras.layers.SeparableConv2D):
    """2D separable convolution with two frozen, masked kernels: "depthwise_kernel" and "pointwise_kernel".

    Input shape:
        `(batch, height, width, channels)`, or `(batch, channels, height, width)` for "channels_first".

    Output shape:
        `(batch, new_height, new_width, filters)`, or `(batch, filters, new_height, new_width)`.

    Example:

    >>> import numpy as np
    >>> import keras_popup
    >>> layer = keras_popup.layers.MaskedSeparableConv2D(4, 3, k=0.5, seed=1)
    >>> layer(np.ones((1, 8, 8, 2), "float32")).shape
    TensorShape([1, 6, 6, 4])
    >>> {name: kernel.kept for name, kernel in layer.masked_kernels.items()}
    {'depthwise_kernel': 9, 'pointwise_kernel': 4}
    """

    kernel_specs = _SEPARABLE_KERNELS
