"""The tables that drive the behavioural tests: a new entry inherits every test."""

from collections.abc import Callable
from typing import Any, NamedTuple

import blocks
import keras
import numpy as np
import pytest

from keras_popup import initializers, layers
from keras_popup.search import SearchConfig
from keras_popup.selectors import registry


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
        return self.masked.kernel_specs[0].argument

    def make(self, **arguments: Any) -> Any:
        return self.masked(**{"k": 0.4, "seed": 7, **self.arguments, **arguments})


def _case(name: str, masked: type, shape: tuple[int, ...], **arguments: Any) -> Any:
    return pytest.param(LayerCase(masked, arguments, shape), id=name)


# Kernels of 108 weights, all of them: layers of one size share their XLA programs, and those take long to compile.
LAYERS = [
    _case("dense", layers.MaskedDense, (2, 9), units=12),
    _case("dense_rank3_bias", layers.MaskedDense, (2, 3, 9), units=12, use_bias=True, activation="relu"),
    _case("einsum_dense", layers.MaskedEinsumDense, (2, 3, 6), equation="abc,cde->abde", output_shape=(3, 3, 6)),
    _case(
        "einsum_dense_bias",
        layers.MaskedEinsumDense,
        (2, 3, 9),
        equation="...x,xy->...y",
        output_shape=12,
        bias_axes="y",
    ),
    _case("conv1d", layers.MaskedConv1D, (2, 7, 3), filters=12, kernel_size=3),
    _case(
        "conv1d_causal", layers.MaskedConv1D, (2, 7, 3), filters=12, kernel_size=3, padding="causal", dilation_rate=2
    ),
    _case("conv2d", layers.MaskedConv2D, (2, 6, 6, 3), filters=4, kernel_size=3, padding="same"),
    _case("conv2d_groups", layers.MaskedConv2D, (2, 6, 6, 4), filters=6, kernel_size=3, groups=2, strides=2),
    _case("conv2d_dilated", layers.MaskedConv2D, (2, 7, 7, 3), filters=4, kernel_size=3, dilation_rate=2),
    _case(
        "conv2d_bias",
        layers.MaskedConv2D,
        (2, 6, 6, 3),
        filters=12,
        kernel_size=(3, 1),
        use_bias=True,
        bias_initializer="ones",
        activation="tanh",
    ),
    _case("conv3d", layers.MaskedConv3D, (2, 4, 4, 4, 3), filters=3, kernel_size=(3, 2, 2)),
    _case("depthwise1d", layers.MaskedDepthwiseConv1D, (2, 7, 9), kernel_size=3, depth_multiplier=4),
    _case("depthwise2d", layers.MaskedDepthwiseConv2D, (2, 6, 6, 12), kernel_size=3, padding="same"),
    _case(
        "depthwise2d_bias",
        layers.MaskedDepthwiseConv2D,
        (2, 6, 6, 6),
        kernel_size=3,
        depth_multiplier=2,
        strides=2,
        use_bias=True,
    ),
    _case("conv1d_transpose", layers.MaskedConv1DTranspose, (2, 5, 3), filters=12, kernel_size=3, strides=2),
    _case("conv3d_transpose", layers.MaskedConv3DTranspose, (2, 3, 3, 3, 3), filters=3, kernel_size=(3, 2, 2)),
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

SEVERAL_KERNELS = [
    _case("separable1d", layers.MaskedSeparableConv1D, (2, 7, 6), filters=6, kernel_size=3, depth_multiplier=2),
    _case("separable2d", layers.MaskedSeparableConv2D, (2, 6, 6, 6), filters=9, kernel_size=(3, 3), use_bias=True),
]
"""Masked layers with several kernels."""

INDICES = [
    _case("embedding", layers.MaskedEmbedding, (2, 5), input_dim=9, output_dim=12),
    _case("reversible_embedding", layers.MaskedReversibleEmbedding, (2, 5), input_dim=9, output_dim=12),
]
"""Masked layers whose inputs are integers."""


class ModelCase(NamedTuple):
    """A plain model, and which of its layers cannot be masked, with a part of the reason."""

    name: str
    make: Callable[[], keras.Model]
    not_masked: dict[str, str] = {}  # noqa: RUF012

    def inputs(self, model: keras.Model) -> list[np.ndarray]:
        rng = np.random.default_rng(0)
        shapes = [x.shape[1:] for x in model.inputs] if getattr(model, "inputs", None) else [(6, 6, 3)]
        return [rng.random((4, *shape)).astype(np.float32) for shape in shapes]


def _functional(shape: tuple[int, ...], *stack: Any) -> keras.Model:
    inputs = keras.Input(shape, name="inputs")
    outputs = inputs
    for layer in stack:
        outputs = layer(outputs, outputs) if "Attention" in type(layer).__name__ else layer(outputs)
    return keras.Model(inputs, outputs)


def _nested_sequential() -> keras.Model:
    block = keras.Sequential([keras.Input((6, 6, 3)), keras.layers.Conv2D(4, 3), keras.layers.BatchNormalization()])
    norm = keras.layers.LayerNormalization(name="norm")
    return keras.Sequential([keras.Input((6, 6, 3)), block, keras.layers.Flatten(), norm, keras.layers.Dense(3)])


def _shared_two_in_two_out() -> keras.Model:
    left, right = keras.Input((5,), name="left"), keras.Input((5,), name="right")
    tower = _functional((5,), keras.layers.Dense(4, activation="relu"), keras.layers.Dense(4))
    shared = keras.layers.Dense(4, name="shared")
    both = keras.layers.Concatenate()([shared(tower(left)), shared(tower(right))])
    outputs = [keras.layers.Dense(3, name="classes")(both), keras.layers.Dense(1, name="value")(both * 2.0 + 1.0)]
    return keras.Model([left, right], outputs)


def _subclassed() -> keras.Model:
    model = blocks.Classifier(3)
    model(np.zeros((1, 6, 6, 3), np.float32))
    return model


def _transformer() -> keras.Model:
    tokens = keras.Input((6,), name="tokens")
    x = keras.layers.Embedding(7, 8, name="embedding")(tokens)
    for number in (1, 2):
        attention = keras.layers.MultiHeadAttention(2, 4, name=f"attention{number}")
        x = keras.layers.LayerNormalization()(x + attention(x, x))
        hidden = keras.layers.Dense(16, activation="gelu")(x)
        x = keras.layers.LayerNormalization()(x + keras.layers.Dense(8)(hidden))
    return keras.Model(tokens, keras.layers.Dense(3)(keras.layers.GlobalAveragePooling1D()(x)))


MODELS = [
    ModelCase("nested_sequential", _nested_sequential),
    ModelCase("shared_two_in_two_out", _shared_two_in_two_out),
    ModelCase("subclassed", _subclassed),
    ModelCase("transformer", _transformer),
    ModelCase("grouped_query_attention", lambda: _functional((6, 8), keras.layers.GroupQueryAttention(4, 4, 2))),
    ModelCase("time_distributed", lambda: _functional((6, 5), keras.layers.TimeDistributed(keras.layers.Dense(3)))),
    ModelCase("block", lambda: _functional((5,), blocks.FeedForward(4))),
    ModelCase(
        "block_of_blocks",
        lambda: _functional((6, 8), blocks.Encoder(2, name="encoder")),
        {"encoder": "weights that its own code makes (positions)"},
    ),
    ModelCase("given_a_layer", lambda: _functional((4,), blocks.Residual(keras.layers.Dense(4)))),
    ModelCase(
        "recurrent",
        lambda: _functional((6, 5), keras.layers.Dense(4), keras.layers.LSTM(3, name="lstm"), keras.layers.Dense(3)),
    ),
    ModelCase(
        "separable",
        lambda: _functional((6, 6, 3), keras.layers.SeparableConv2D(4, 3, name="separable"), keras.layers.Conv2D(4, 3)),
    ),
    ModelCase(
        "spectral",
        lambda: _functional(
            (5,),
            keras.layers.SpectralNormalization(keras.layers.Dense(4, name="inner"), name="spectral"),
            keras.layers.Dense(3),
        ),
        {"spectral/inner": "SpectralNormalization rescales its kernel"},
    ),
    ModelCase(
        "unknown",
        lambda: _functional((5,), blocks.Twice(name="twice"), blocks.MyDense(4, name="mine"), keras.layers.Dense(3)),
        {"mine": "a subclass of Dense with its own code"},
    ),
]


def plain_model(name: str) -> keras.Model:
    """The model of this name in the table."""
    return next(case for case in MODELS if case.name == name).make()


INITIALIZERS = sorted(initializers.INITIALIZERS)
SELECTORS = sorted(registry._SELECTORS)

# With arguments too: what does not draw its masks.
CHOOSING = [
    *(name for name in SELECTORS if name not in ("bernoulli", "global_top_k")),
    "top_k:pruned=0.3:locked=0.25",
    "multicoat:coats=3",
    "n_m:m=2",
    "block:size=3",
]

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


TUNERS = list(SearchConfig.__dataclass_fields__["tuner"].metadata["choices"])


every_layer = pytest.mark.parametrize("case", LAYERS)


every_model = pytest.mark.parametrize("case", MODELS, ids=lambda case: case.name)
