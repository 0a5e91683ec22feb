"""The tables that drive the behavioural tests: a new entry inherits every test."""

from typing import Any, NamedTuple

import keras
import pytest

from keras_popup import initializers, layers, selectors


class LayerCase(NamedTuple):
    """A masked layer, the arguments to make it with and the shape of one input."""

    masked: type
    arguments: dict[str, Any]
    input_shape: tuple[int, ...]

    @property
    def stock(self) -> type:
        return next(stock for stock, masked in layers.MASKED_LAYERS.items() if masked is self.masked)

    @property
    def kernel_argument(self) -> str:
        return self.masked.kernel_argument

    def make(self, **arguments: Any) -> Any:
        return self.masked(**{"k": 0.4, "seed": 7, **self.arguments, **arguments})


def _case(name: str, masked: type, shape: tuple[int, ...], **arguments: Any) -> Any:
    return pytest.param(LayerCase(masked, arguments, shape), id=name)


LAYERS = [
    _case("dense", layers.MaskedDense, (2, 5), units=4),
    _case("dense_rank3_bias", layers.MaskedDense, (2, 3, 5), units=4, use_bias=True, activation="relu"),
    _case("einsum_dense", layers.MaskedEinsumDense, (2, 3, 4), equation="abc,cde->abde", output_shape=(3, 2, 3)),
    _case(
        "einsum_dense_bias",
        layers.MaskedEinsumDense,
        (2, 3, 4),
        equation="...x,xy->...y",
        output_shape=5,
        bias_axes="y",
    ),
    _case("conv1d", layers.MaskedConv1D, (2, 7, 3), filters=4, kernel_size=3),
    _case("conv1d_causal", layers.MaskedConv1D, (2, 7, 3), filters=4, kernel_size=3, padding="causal", dilation_rate=2),
    _case("conv2d", layers.MaskedConv2D, (2, 6, 6, 3), filters=4, kernel_size=3, padding="same"),
    _case("conv2d_groups", layers.MaskedConv2D, (2, 6, 6, 4), filters=6, kernel_size=3, groups=2, strides=2),
    _case("conv2d_dilated", layers.MaskedConv2D, (2, 7, 7, 3), filters=4, kernel_size=3, dilation_rate=2),
    _case(
        "conv2d_bias",
        layers.MaskedConv2D,
        (2, 6, 6, 3),
        filters=4,
        kernel_size=(3, 1),
        use_bias=True,
        bias_initializer="ones",
        activation="tanh",
    ),
    _case("conv3d", layers.MaskedConv3D, (2, 4, 4, 4, 2), filters=3, kernel_size=2),
    _case("depthwise1d", layers.MaskedDepthwiseConv1D, (2, 7, 3), kernel_size=3, depth_multiplier=2),
    _case("depthwise2d", layers.MaskedDepthwiseConv2D, (2, 6, 6, 3), kernel_size=3, padding="same"),
    _case(
        "depthwise2d_bias",
        layers.MaskedDepthwiseConv2D,
        (2, 6, 6, 3),
        kernel_size=3,
        depth_multiplier=2,
        strides=2,
        use_bias=True,
    ),
    _case("conv2d_transpose", layers.MaskedConv2DTranspose, (2, 4, 4, 3), filters=4, kernel_size=3, strides=2),
    _case(
        "conv2d_transpose_bias",
        layers.MaskedConv2DTranspose,
        (2, 4, 4, 3),
        filters=4,
        kernel_size=3,
        padding="same",
        use_bias=True,
    ),
]

INITIALIZERS = sorted(initializers._INITIALIZERS)
SELECTORS = sorted(selectors._SELECTORS)

POLICIES = ["float32", "mixed_bfloat16", "mixed_float16"]


def small_model(case: LayerCase, **arguments: Any) -> keras.Model:
    """A Functional model of the case's layer alone."""
    inputs = keras.Input(case.input_shape[1:])
    return keras.Model(inputs, case.make(**arguments)(inputs))


def operations_of(concrete_function: Any) -> set[str]:
    """The kinds of operations in a graph and the functions it calls."""
    definition = concrete_function.graph.as_graph_def()
    operations = {node.op for function in definition.library.function for node in function.node_def}
    return operations | {node.op for node in definition.node}
