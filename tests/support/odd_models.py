"""Small models as nobody would write them for a test: each could lose something in a conversion without a word.

`TABLE` lists them by kind. Their classes are registered, so that files of them are loaded where this module is
imported; it needs Keras alone, so that the files of stripped models can be loaded without keras_popup. A model of a
layer that is to be made maskable by the user calls for `register_maskable`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops
from roundtrips import Odd, outputs, randomise

own = keras.saving.register_keras_serializable("odd")


class OddModel(NamedTuple):
    """A row of the table.

    Attributes:
        make: returns the model, and a batch for it.
        masked: how many layers are masked; None for any number.
        odd: what the checks have to know.
        policy: the dtype policy to make it under.
        refused: what the error says, as a regular expression, where the model cannot be copied.
        quick: whether it is one of those that are tested each time.
    """

    name: str
    kind: str
    make: Callable[[], tuple[keras.Model, Any]]
    masked: int | None
    odd: Odd = Odd()
    policy: str = "float32"
    refused: str = ""
    quick: bool = False

    def build(self) -> tuple[keras.Model, Any]:
        """Returns the model, called once and with random variables, and a batch."""
        keras.config.set_dtype_policy(self.policy)
        keras.utils.set_random_seed(4)
        model, x = self.make()
        outputs(model, x)
        return randomise(model, 11), x


TABLE: list[OddModel] = []


def row(kind: str, masked: int | None, **rest: Any) -> Callable[[Any], Any]:
    """Puts a function that makes a model into the table, under its name."""

    def add(make: Any) -> Any:
        odd = Odd(**{name: rest.pop(name) for name in Odd._fields if name in rest})
        TABLE.append(OddModel(make.__name__, kind, make, masked, odd, **rest))
        return make

    return add


def maskable(*kernels: str) -> Callable[[type], type]:
    """Marks a layer that its user registers with `keras_popup.register_maskable`; see `register`."""

    def add(layer_class: type) -> type:
        _MASKABLE.append((layer_class, kernels))
        return layer_class

    return add


_MASKABLE: list[tuple[type, tuple[str, ...]]] = []


def register() -> None:
    """Makes the marked layers maskable."""
    import keras_popup

    for layer_class, kernels in _MASKABLE:
        keras_popup.register_maskable(layer_class, kernels=kernels)


def floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(3).normal(size=shape).astype(np.float32)


def whole(high: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, high, shape).astype(np.int32)


def chain(shape: tuple[int | None, ...], *stack: Any, x: Any = None, dtype: Any = None) -> tuple[keras.Model, Any]:
    """A Functional model of layers one after the other, and a batch of it."""
    inputs = y = keras.Input(shape, dtype=dtype)
    for layer in stack:
        y = layer(y)
    return keras.Model(inputs, y), floats(3, *(size or 4 for size in shape)) if x is None else x


# ------------------------------------------------------------------------------------------------ variables


@own
class Gate(layers.Layer):
    """Two variables to which nobody gave a name."""

    def build(self, shape):
        self.opening = self.add_weight(shape=shape[-1:])
        self.closing = self.add_weight(shape=shape[-1:])

    def call(self, x):
        return ops.sigmoid(x * self.opening) - x * self.closing


@own
class Cooled(layers.Layer):
    """A scalar made in the constructor, past `add_weight`."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.heat = keras.Variable(1.5)

    def call(self, x):
        return x / (0.5 + ops.square(ops.cast(self.heat, x.dtype)))


@own
class Polynomial(layers.Layer):
    """Its coefficients are a list of variables."""

    def __init__(self, degree, **kwargs):
        super().__init__(**kwargs)
        self.degree = degree
        self.coefficients = [keras.Variable(float(power)) for power in range(degree + 1)]

    def call(self, x):
        return sum(factor * x**power for power, factor in enumerate(self.coefficients))

    def get_config(self):
        return {**super().get_config(), "degree": self.degree}


@own
class Drawers(layers.Layer):
    """Variables and layers in dicts in dicts in lists."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.chest = [{"left": {"dense": layers.Dense(units)}, "right": [layers.Dense(units), layers.PReLU()]}]
        self.offsets = {}

    def build(self, shape):
        self.chest[0]["left"]["dense"].build(shape)
        self.chest[0]["right"][0].build(shape)
        self.chest[0]["right"][1].build((*shape[:-1], self.units))
        self.offsets = {side: self.add_weight(shape=(self.units,), name="offset") for side in ("left", "right")}

    def call(self, x):
        first, second = self.chest[0]["right"]
        left = self.chest[0]["left"]["dense"](x) * self.offsets["left"]
        return left + second(first(x)) * self.offsets["right"]

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@own
class Affine(layers.Layer):
    """Two variables of one name and shape, one of which is frozen."""

    def build(self, shape):
        self.slope = self.add_weight(name="parameter", shape=shape[-1:])
        self.shift = self.add_weight(name="parameter", shape=shape[-1:], trainable=False)

    def call(self, x):
        return x * self.slope + self.shift


@own
class Bilinear(layers.Layer):
    """Has a `kernel` that nobody has registered, and a Dense beside it."""

    def build(self, shape):
        self.kernel = self.add_weight(name="kernel", shape=(shape[-1], shape[-1]))
        self.dense = layers.Dense(shape[-1], name="dense")
        self.dense.build(shape)

    def call(self, x):
        return ops.matmul(x, self.kernel) * self.dense(x)


@own
class Centred(layers.Layer):
    """State: a running mean that calls in training move, and an integer that counts them."""

    def build(self, shape):
        self.mean = self.add_weight(shape=shape[-1:], trainable=False)
        self.calls = self.add_weight(shape=(), dtype="int64", initializer="zeros", trainable=False, name="calls")

    def call(self, x, training=False):
        if training:
            self.mean.assign(0.9 * self.mean + 0.1 * ops.mean(x, 0))
            self.calls.assign_add(1)
        return x - self.mean + ops.cast(self.calls, x.dtype)


@own
class Jitter(layers.Layer):
    """Has a generator of seeds, and a layer whose noise it scales."""

    def __init__(self, seed, **kwargs):
        super().__init__(**kwargs)
        self.seed = seed
        self.generator = keras.random.SeedGenerator(seed)
        self.width = layers.Dense(1)

    def build(self, shape):
        self.width.build(shape)

    def call(self, x, training=False):
        if training:
            x = x + self.width(x) * keras.random.normal(ops.shape(x), seed=self.generator)
        return x * self.width(x)

    def get_config(self):
        return {**super().get_config(), "seed": self.seed}


@own
class Centres(layers.Layer):
    """Distances to centres, which are a matrix, then a Dense made in the constructor."""

    def __init__(self, count, **kwargs):
        super().__init__(**kwargs)
        self.count = count
        self.mix = layers.Dense(2)

    def build(self, shape):
        self.centres = self.add_weight(shape=(self.count, shape[-1]))
        self.mix.build((*shape[:-1], self.count))

    def call(self, x):
        return self.mix(ops.exp(-ops.sum(ops.square(x[:, None] - self.centres), -1)))

    def get_config(self):
        return {**super().get_config(), "count": self.count}


@row("variables", 1, quick=True)
def variables_without_names():
    return chain((5,), layers.Dense(4), Gate())


@row("variables", 2)
def variable_of_the_constructor():
    return chain((5,), layers.Dense(4), Cooled(), layers.Dense(2))


@row("variables", 1)
def variables_in_a_list():
    return chain((5,), layers.Dense(4), Polynomial(3))


@row("variables", 2, quick=True)
def variables_in_deep_dictionaries():
    return chain((5,), Drawers(4))


@row("variables", 1)
def variables_of_one_name():
    return chain((5,), layers.Dense(4), Affine(), Affine())


@row("variables", 1)
def variable_called_kernel():
    return chain((5,), Bilinear())


@row("variables", 1, quick=True)
def variables_that_count():
    return chain((5,), Centred(), layers.Dense(4), Centred())


@row("variables", 1)
def variables_of_a_seed():
    return chain((5,), Jitter(7), layers.Dropout(0.3, seed=1))


@row("variables", 1)
def variables_as_centres():
    return chain((5,), Centres(3))


# ------------------------------------------------------------------------------------------------ sharing


@own
class AddBack(layers.Layer):
    """Is given the layer that it holds, and another one or none."""

    def __init__(self, layer, other=None, **kwargs):
        super().__init__(**kwargs)
        self.layer, self.other = layer, other

    def build(self, shape):
        for each in (self.layer, self.other):
            if each is not None and not each.built:
                each.build(shape)

    def call(self, x):
        return x + self.layer(x) * (1 if self.other is None else self.other(x))

    def get_config(self):
        pair = {name: keras.saving.serialize_keras_object(getattr(self, name)) for name in ("layer", "other")}
        return {**super().get_config(), **pair}

    @classmethod
    def from_config(cls, config):
        pair = {name: keras.saving.deserialize_keras_object(config[name]) for name in ("layer", "other")}
        return cls(**{**config, **pair})


@own
class ReadTable(layers.Layer):
    """Scores over a vocabulary, by the table of an Embedding that it is given."""

    def __init__(self, embedding, **kwargs):
        super().__init__(**kwargs)
        self.embedding = embedding
        self.squeeze = layers.Dense(embedding.output_dim)

    def build(self, shape):
        self.squeeze.build(shape)
        self.bias = self.add_weight(shape=(self.embedding.input_dim,), name="bias")

    def call(self, x):
        return ops.matmul(self.squeeze(x), ops.transpose(self.embedding.embeddings)) + self.bias

    def get_config(self):
        return {**super().get_config(), "embedding": keras.saving.serialize_keras_object(self.embedding)}

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "embedding": keras.saving.deserialize_keras_object(config["embedding"])})


@own
class Backwards(layers.Layer):
    """Goes back through a Dense that it is given, by its kernel transposed."""

    def __init__(self, dense, **kwargs):
        super().__init__(**kwargs)
        self.dense = dense

    def call(self, x):
        return ops.matmul(x, ops.transpose(self.dense.kernel))

    def get_config(self):
        return {**super().get_config(), "dense": keras.saving.serialize_keras_object(self.dense)}

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "dense": keras.saving.deserialize_keras_object(config["dense"])})


@own
class TwoNames(layers.Layer):
    """Holds one Dense as an attribute, in a list and in a dict."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(4)
        self.all = [self.dense, layers.Dense(4)]
        self.by_name = {"dense": self.dense}

    def build(self, shape):
        self.dense.build(shape)
        self.all[1].build((*shape[:-1], 4))

    def call(self, x):
        for each in self.all:
            x = each(x)
        return self.by_name["dense"](x)


@row("sharing", 2)
def shared_in_a_graph():
    inputs = keras.Input((4,))
    again, y = layers.Dense(4, activation="tanh"), inputs
    for _ in range(3):
        y = again(y) + inputs
    return keras.Model(inputs, layers.Dense(2)(y)), floats(3, 4)


@row("sharing", 3, quick=True)
def siamese():
    tower = keras.Sequential([keras.Input((5,)), layers.Dense(4, activation="relu"), layers.Dense(3)])
    first, second = keras.Input((5,), name="first"), keras.Input((5,), name="second")
    distance = ops.abs(tower(first) - tower(second))
    return keras.Model([first, second], layers.Dense(1, activation="sigmoid")(distance)), [floats(3, 5), -floats(3, 5)]


@row("sharing", 2, quick=True)
def shared_across_a_border():
    inputs, shared = keras.Input((4,)), layers.Dense(4, name="shared")
    y = AddBack(shared)(ops.relu(shared(inputs)))
    return keras.Model(inputs, layers.Dense(2)(y)), floats(3, 4)


@row("sharing", 3)
def shared_by_two_blocks():
    first, second = layers.Dense(4), layers.Dense(4)
    return chain((4,), AddBack(first, second), AddBack(second, first), AddBack(first, layers.Dense(4)))


@row("sharing", 4)
def nested_three_deep():
    shared = layers.Dense(4, name="shared")
    inner, _ = chain((4,), layers.Dense(4), shared)
    middle, _ = chain((4,), inner, layers.LayerNormalization(), layers.Dense(4))
    return chain((4,), shared, middle, layers.BatchNormalization(), layers.Dense(2))


@row("sharing", 2, quick=True)
def tied_table():
    inputs, embedding = keras.Input((4,), dtype="int32"), layers.Embedding(7, 5)
    return keras.Model(inputs, ReadTable(embedding)(embedding(inputs))), whole(7, 3, 4)


@row("sharing", 1)
def tied_by_a_transpose():
    inputs, dense = keras.Input((5,)), layers.Dense(3)
    return keras.Model(inputs, Backwards(dense)(dense(inputs))), floats(3, 5)


@row("sharing", 2)
def model_twice_and_a_part_of_it():
    body, _ = chain((4,), layers.Dense(4, activation="relu"), layers.Dense(4))
    inputs = keras.Input((4,))
    y = body(body(inputs))
    return keras.Model(inputs, [y, body.layers[1](y)]), floats(3, 4)


@row("sharing", 2)
def activation_shared():
    slope = layers.PReLU()
    return chain((4,), layers.Dense(4), slope, layers.Dense(4), slope)


@row("sharing", 2)
def held_under_several_names():
    return chain((4,), TwoNames())


# ------------------------------------------------------------------------------------------------ wrapped


@own
class Halved(layers.Wrapper):
    """A wrapper with a weight of its own."""

    def build(self, input_shape=None):
        super().build(input_shape)
        self.factor = self.add_weight(shape=(), initializer="ones")

    def call(self, x):
        return self.layer(x) * self.factor

    def compute_output_shape(self, shape):
        return self.layer.compute_output_shape(shape)


@row("wrapped", 2)
def every_image_of_a_film():
    stack = layers.TimeDistributed(layers.Conv2D(2, 3)), layers.Flatten(), layers.Dense(2)
    return chain((2, 5, 5, 1), *stack)


@row("wrapped", 3)
def every_step_through_a_model():
    inner, _ = chain((4,), layers.Dense(4), layers.BatchNormalization(), layers.Dense(3))
    return chain((2, 4), layers.TimeDistributed(inner), layers.Dense(2))


@row("wrapped", 2, quick=True)
def both_ways():
    forward, backward = (
        layers.GRU(3, return_sequences=True),
        layers.SimpleRNN(3, return_sequences=True, go_backwards=True),
    )
    return chain((4, 3), layers.Bidirectional(forward, merge_mode="ave", backward_layer=backward))


@row("wrapped", 1)
def spectral():
    return chain((4,), layers.SpectralNormalization(layers.Dense(4), power_iterations=2), layers.Dense(2))


@row("wrapped", 2)
def wrapper_of_ones_own():
    return chain((4,), Halved(layers.Dense(4)), Halved(Halved(layers.Dense(3))))


@row("wrapped", 1)
def wrapper_in_a_wrapper():
    return chain((2, 4), layers.TimeDistributed(Halved(layers.Dense(4))))


# ------------------------------------------------------------------------------------------------ recurrent


@own
class Leaky(layers.Layer):
    """A recurrent cell with two kernels of its own, which nobody has registered."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = self.state_size = units

    def build(self, shape):
        self.w = self.add_weight(name="w", shape=(shape[-1], self.units))
        self.u = self.add_weight(name="u", shape=(self.units, self.units))

    def call(self, x, states):
        y = 0.5 * states[0] + ops.tanh(ops.matmul(x, self.w) + ops.matmul(states[0], self.u))
        return y, [y]

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@own
@maskable("w", "u")
class LeakyToo(Leaky):
    """The same, registered."""


@own
class CellOfLayers(layers.Layer):
    """A recurrent cell made of layers."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = self.state_size = units
        self.inward, self.onward = layers.Dense(units), layers.Dense(units, use_bias=False)
        self.norm = layers.LayerNormalization()

    def build(self, shape):
        self.inward.build(shape)
        self.onward.build((shape[0], self.units))
        self.norm.build((shape[0], self.units))

    def call(self, x, states):
        y = ops.tanh(self.norm(self.inward(x) + self.onward(states[0])))
        return y, [y]

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@row("recurrent", 3, quick=True)
def lstm_on_lstm():
    return chain((4, 3), layers.LSTM(4, return_sequences=True), layers.LSTM(3, use_bias=False), layers.Dense(2))


@row("recurrent", 2)
def gru_before_and_simple_backwards():
    first = layers.GRU(4, return_sequences=True, reset_after=False, dropout=0.2, recurrent_dropout=0.2)
    return chain((4, 3), first, layers.SimpleRNN(3, go_backwards=True, unroll=True))


@row("recurrent", 1)
def cell_of_ones_own():
    return chain((4, 3), layers.RNN(Leaky(4)), layers.Dense(2))


@row("recurrent", 2)
def cell_of_ones_own_registered():
    return chain((4, 3), layers.RNN(LeakyToo(4)), layers.Dense(2))


@row("recurrent", 2)
def cell_of_layers():
    return chain((4, 3), layers.RNN(CellOfLayers(4), return_sequences=True))


@row("recurrent", 3)
def cells_stacked():
    cells = [layers.LSTMCell(3), layers.GRUCell(4), layers.SimpleRNNCell(2)]
    return chain((4, 3), layers.RNN(layers.StackedRNNCells(cells)))


@row("recurrent", 1, refuses={"tickets": "stateful"})
def stateful():
    inputs = keras.Input(batch_shape=(3, 4, 3))
    return keras.Model(inputs, layers.LSTM(4, stateful=True)(inputs)), floats(3, 4, 3)


@row("recurrent", 4, quick=True)
def translator():
    source, target = keras.Input((4,), dtype="int32", name="source"), keras.Input((3,), dtype="int32", name="target")
    table = layers.Embedding(6, 4, mask_zero=True)
    _, *states = layers.LSTM(4, return_state=True)(table(source))
    said = layers.LSTM(4, return_sequences=True)(table(target), initial_state=states)
    return keras.Model([source, target], layers.Dense(6)(said)), [whole(6, 3, 4), whole(6, 3, 3)]


@row("recurrent", 2)
def masked_steps_both_ways():
    stack = (
        layers.Masking(0.0),
        layers.Bidirectional(layers.LSTM(3, return_sequences=True)),
        layers.GlobalAveragePooling1D(),
    )
    x = floats(3, 4, 3)
    x[:, 3] = 0
    return chain((4, 3), *stack, x=x)


@row("recurrent", 2)
def film_in_one_dimension():
    return chain((3, 5, 2), layers.ConvLSTM1D(2, 3, return_sequences=True), layers.ConvLSTM1D(2, 2))


@row("recurrent", 2)
def film_in_two_dimensions():
    return chain(
        (2, 4, 4, 1), layers.ConvLSTM2D(2, 3, padding="same", use_bias=False), layers.Flatten(), layers.Dense(2)
    )


# ------------------------------------------------------------------------------------------------ convolutions


@row("convolutions", 3, quick=True)
def separable():
    first = layers.SeparableConv2D(3, 3, depth_multiplier=2, activation="relu")
    second = layers.SeparableConv1D(3, 2, use_bias=False, dilation_rate=2)
    return chain((5, 5, 2), first, layers.Reshape((9, 3)), second, layers.Flatten(), layers.Dense(2))


@row("convolutions", 3)
def transposed():
    one = layers.Conv1DTranspose(2, 3, strides=2)
    three = layers.Conv3DTranspose(1, 2, strides=2, padding="same")
    return chain((4, 2), one, layers.Reshape((3, 3, 1, 2)), three, layers.Flatten(), layers.Dense(2))


@row("convolutions", 3)
def groups_dilated_depthwise():
    stack = layers.Conv2D(4, 3, groups=2), layers.Conv2D(4, 2, dilation_rate=2), layers.DepthwiseConv2D(2, strides=2)
    return chain((6, 6, 2), *stack)


@row("convolutions", 3, quick=True)
def regularized_and_constrained():
    first = layers.Conv2D(
        3, 3, kernel_regularizer="l2", bias_regularizer="l1", activity_regularizer="l2", kernel_constraint="unit_norm"
    )
    third = layers.SeparableConv1D(2, 2, depthwise_regularizer="l1", pointwise_constraint="max_norm")
    return chain((4, 4, 2), first, layers.Reshape((4, 3)), third, layers.Dense(2, bias_constraint="non_neg"))


@row("convolutions", 2)
def three_dimensions():
    return chain((3, 3, 3, 1), layers.Conv3D(2, 2), layers.UpSampling3D(), layers.Conv3D(1, 3, padding="same"))


@row("convolutions", 1)
def channels_first():
    return chain((2, 5, 5), layers.Conv2D(3, 3, data_format="channels_first"))


@row("convolutions", 2)
def causal_of_any_length():
    return chain(
        (None, 2), layers.Conv1D(3, 2, padding="causal"), layers.Conv1D(2, 2, padding="causal", dilation_rate=2)
    )


# ------------------------------------------------------------------------------------------------ attention


@own
class Decoder(layers.Layer):
    """A causal block: attention, and two Dense in a list made in `build`."""

    def __init__(self, heads, **kwargs):
        super().__init__(**kwargs)
        self.heads = heads

    def build(self, shape):
        self.attention = layers.MultiHeadAttention(self.heads, 2, dropout=0.1)
        self.attention.build(shape, shape)
        self.feed = [layers.Dense(6, activation="gelu"), layers.Dense(shape[-1])]
        self.feed[0].build(shape)
        self.feed[1].build((*shape[:-1], 6))
        self.norm = layers.RMSNormalization()
        self.norm.build(shape)

    def call(self, x, training=False):
        x = x + self.attention(x, x, use_causal_mask=True, training=training)
        return self.norm(x + self.feed[1](self.feed[0](x)))

    def get_config(self):
        return {**super().get_config(), "heads": self.heads}


@row("attention", 4, quick=True)
def cross_attention():
    queries, keys = keras.Input((3, 4), name="queries"), keras.Input((5, 6), name="keys")
    attention = layers.MultiHeadAttention(2, 3, value_dim=2, output_shape=5)
    found, scores = attention(queries, keys, return_attention_scores=True)
    return keras.Model([queries, keys], {"found": found, "scores": scores}), [floats(3, 3, 4), floats(3, 5, 6)]


@row("attention", 4)
def attention_over_two_axes():
    inputs = keras.Input((2, 3, 4))
    attention = layers.MultiHeadAttention(2, 2, attention_axes=(1, 2), use_bias=False)
    return keras.Model(inputs, attention(inputs, inputs)), floats(3, 2, 3, 4)


@row("attention", 4)
def grouped_queries():
    inputs = keras.Input((4, 6))
    attention = layers.GroupQueryAttention(3, 4, 2, use_bias=False)
    return keras.Model(inputs, attention(inputs, inputs, use_causal_mask=True)), floats(3, 4, 6)


@row("attention", 3)
def einsum_variants():
    stack = (
        layers.EinsumDense("abc,cde->abde", output_shape=(None, 2, 3), bias_axes="de"),
        layers.EinsumDense("abde,dec->abc", output_shape=(None, 4), activation="relu"),
        layers.EinsumDense("...x,xy->...y", output_shape=3, bias_axes="y"),
    )
    return chain((None, 4), *stack)


@row("attention", 1)
def additive_attention():
    inputs = keras.Input((3, 4))
    y = layers.Dense(4)(inputs)
    return keras.Model(inputs, layers.Attention(use_scale=True)([layers.AdditiveAttention()([y, inputs]), y])), floats(
        3, 3, 4
    )


@row("attention", 2, quick=True)
def reversible_tied():
    inputs, table = keras.Input((4,), dtype="int32"), layers.ReversibleEmbedding(7, 4)
    return keras.Model(inputs, table(layers.Dense(4)(table(inputs)), reverse=True)), whole(7, 3, 4)


@row("attention", 7)
def language_model():
    inputs, table = keras.Input((4,), dtype="int32"), layers.ReversibleEmbedding(7, 4)
    y = Decoder(2)(table(inputs))
    return keras.Model(inputs, table(y, reverse=True)), whole(7, 3, 4)


@row("attention", 1)
def reversible_untied():
    inputs, table = keras.Input((4,), dtype="int32"), layers.ReversibleEmbedding(7, 4, tie_weights=False)
    return keras.Model(inputs, table(table(inputs), reverse=True)), whole(7, 3, 4)


# ------------------------------------------------------------------------------------------------ experts


@own
@maskable("w")
class Experts(layers.Layer):
    """A mixture of experts: one kernel of three dimensions, registered by the user, and a bias."""

    def __init__(self, count, units, **kwargs):
        super().__init__(**kwargs)
        self.count, self.units = count, units

    def build(self, shape):
        self.w = self.add_weight(name="w", shape=(self.count, shape[-1], self.units))
        self.bias = self.add_weight(name="bias", shape=(self.count, self.units), initializer="zeros")

    def call(self, x, gates):
        return ops.einsum("bi,eio,be->bo", x, self.w, gates) + ops.matmul(gates, self.bias)

    def get_config(self):
        return {**super().get_config(), "count": self.count, "units": self.units}


@own
class Mixture(layers.Layer):
    """A mixture of experts, each a Dense in a list, and a Dense that chooses among them."""

    def __init__(self, count, units, **kwargs):
        super().__init__(**kwargs)
        self.count, self.units = count, units
        self.experts = [layers.Dense(units, activation="relu") for _ in range(count)]
        self.router = layers.Dense(count, use_bias=False, name="router")

    def build(self, shape):
        for each in (*self.experts, self.router):
            each.build(shape)

    def call(self, x):
        gates = ops.softmax(self.router(x))
        self.add_loss(0.01 * ops.mean(ops.square(gates)))
        return ops.einsum("beo,be->bo", ops.stack([expert(x) for expert in self.experts], 1), gates)

    def get_config(self):
        return {**super().get_config(), "count": self.count, "units": self.units}


@row("experts", 2, quick=True)
def experts_in_one_kernel():
    inputs = keras.Input((4,))
    gates = layers.Dense(3, activation="softmax")(inputs)
    return keras.Model(inputs, Experts(3, 2)(inputs, gates)), floats(3, 4)


@own
@maskable("w")
class ExpertsWithoutNames(Experts):
    """The same of a matrix without a name, with attributes that masked layers have, too."""

    def __init__(self, count, units, k=1, **kwargs):
        super().__init__(count, units, **kwargs)
        self.k, self.seed, self.mask = k, 5, "top"

    def build(self, shape):
        self.w = self.add_weight(shape=(self.count, shape[-1], self.units))
        self.bias = self.add_weight(shape=(self.count, self.units), name="bias", initializer="zeros")

    def call(self, x, gates):
        best = ops.top_k(gates, self.k)[0][:, -1:]
        return super().call(x, ops.where(gates >= best, gates, 0.0)) + self.seed * len(self.mask)

    def get_config(self):
        return {**super().get_config(), "k": self.k}


@row("experts", 2)
def experts_without_names():
    inputs = keras.Input((4,))
    gates = layers.Dense(3, activation="softmax")(inputs)
    return keras.Model(inputs, ExpertsWithoutNames(3, 2, k=2)(inputs, gates)), floats(3, 4)


@row("experts", 4)
def experts_in_a_list():
    return chain((4,), Mixture(3, 2))


# ------------------------------------------------------------------------------------------------ preprocessing


@row("preprocessing", 1, quick=True)
def normalized_numbers():
    normalization = layers.Normalization()
    normalization.adapt(5 + 3 * floats(20, 4))
    return chain((4,), normalization, layers.Dense(3), x=5 + 3 * floats(3, 4))


@row("preprocessing", 2)
def numbers_in_bins():
    bins = layers.Discretization(num_bins=4)
    bins.adapt(floats(40, 1))
    return chain((3,), bins, layers.Embedding(4, 3), layers.Flatten(), layers.Dense(2))


@row("preprocessing", 2, quick=True)
def words_looked_up():
    lookup = layers.StringLookup(vocabulary=["nut", "bolt", "screw"], num_oov_indices=2)
    x = tf.constant([["nut", "screw"], ["nail", "bolt"], ["bolt", "bolt"]])
    return chain((2,), lookup, layers.Embedding(5, 3), layers.Flatten(), layers.Dense(2), x=x, dtype="string")


@row("preprocessing", 1)
def numbers_looked_up():
    lookup = layers.IntegerLookup()
    lookup.adapt(np.array([4, 4, 9, 11]))
    category = layers.CategoryEncoding(4, output_mode="multi_hot")
    return chain((2,), lookup, category, layers.Dense(2), x=np.array([[4, 9], [11, 4], [3, 9]]), dtype="int64")


@row("preprocessing", 2)
def sentences():
    words = layers.TextVectorization(output_sequence_length=3, ngrams=2)
    words.adapt(["nuts and bolts", "bolts or screws", "nuts"])
    x = tf.constant([["nuts and screws"], ["bolts"], ["rivets or bolts"]])
    return chain((1,), words, layers.Embedding(14, 3), layers.Flatten(), layers.Dense(2), x=x, dtype="string")


@row("preprocessing", 1)
def crossed_and_hashed():
    first, second = keras.Input((1,), dtype="int32", name="first"), keras.Input((1,), dtype="int32", name="second")
    crossed = layers.HashedCrossing(5, output_mode="one_hot")((first, second))
    hashed = layers.Hashing(3, output_mode="one_hot")(first)
    y = layers.Dense(2)(layers.Concatenate()([crossed, hashed]))
    return keras.Model([first, second], y), [whole(9, 3, 1), whole(7, 3, 1)]


@row("preprocessing", 1)
def pipeline():
    steps = layers.Pipeline([layers.Rescaling(0.1, offset=1.0), layers.CenterCrop(3, 3)])
    return chain((5, 5, 1), steps, layers.Conv2D(2, 3))


# ------------------------------------------------------------------------------------------------ graphs


@own
class PerhapsAdd(layers.Layer):
    """Takes one input more, or None."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.first, self.second = layers.Dense(units), layers.Dense(units)
        self.units = units

    def build(self, x_shape, more_shape=None):
        self.first.build(x_shape)
        self.second.build(x_shape)

    def call(self, x, more=None):
        return self.first(x) if more is None else self.first(x) + self.second(more)

    def compute_output_shape(self, x_shape, more_shape=None):
        return (*x_shape[:-1], self.units)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@row("graphs", 3, quick=True)
def dictionaries_in_and_out():
    inputs = {name: keras.Input((4,), name=name) for name in ("wide", "deep", "aside")}
    y = layers.Dense(4, activation="relu")(inputs["deep"])
    y = layers.Concatenate()([inputs["wide"], y])
    said = {"class": layers.Dense(3)(y), "more": (layers.Dense(1)(y), inputs["aside"] * 2.0)}
    return keras.Model(inputs, said), {name: floats(3, 4) * (1 + number) for number, name in enumerate(inputs)}


@row("graphs", 2, still=True)
def input_left_out():
    x, more = keras.Input((4,), name="x"), keras.Input((4,), name="more", optional=True)
    return keras.Model([x, more], PerhapsAdd(3)(x, more)), [floats(3, 4), None]


@row("graphs", 2)
def constants_and_operations():
    inputs = keras.Input((4,))
    y = ops.concatenate([layers.Dense(3)(inputs), ops.expand_dims(ops.sum(inputs, -1), -1)], -1)
    y = ops.where(y > np.float32(0), y, y * np.array([0.1, 0.2, 0.3, 0.4], np.float32))
    return keras.Model(inputs, layers.Dense(2)(1.0 - y)), floats(3, 4)


@row("graphs", 2, load={"safe_mode": False}, refuses={"tickets": "Lambda"})
def function_in_a_lambda():
    return chain((4,), layers.Dense(3), layers.Lambda(lambda x: x * 2 - 1), layers.Dense(2))


@row("graphs", 2)
def layers_as_activations():
    return chain((4,), layers.Dense(4, activation=layers.PReLU()), layers.Dense(3, activation=layers.LeakyReLU(0.2)))


@row("graphs", 2)
def sequential_built_late():
    model = keras.Sequential([layers.Conv1D(3, 2), keras.Sequential([layers.Flatten(), layers.Dense(2)])])
    return model, floats(3, 4, 2)


# ------------------------------------------------------------------------------------------------ models of one's own


@own
class Rivals(keras.Model):
    """Two networks against each other, with a training step and two optimizers of its own."""

    def __init__(self, size, **kwargs):
        super().__init__(**kwargs)
        self.size = size
        self.forger = keras.Sequential([keras.Input((size,)), layers.Dense(5, activation="relu"), layers.Dense(size)])
        self.judge = keras.Sequential([keras.Input((size,)), layers.Dense(4, activation="relu"), layers.Dense(1)])
        self.told = keras.metrics.Mean(name="told")

    def compile(self, rate=0.1):
        super().compile()
        self.rate = rate
        self.forger_optimizer, self.judge_optimizer = keras.optimizers.SGD(rate), keras.optimizers.SGD(rate)

    def get_compile_config(self):
        return {"rate": self.rate} if self.compiled else None

    def compile_from_config(self, config):
        self.compile(**config)

    def call(self, x):
        return self.judge(self.forger(x))

    def train_step(self, data):
        for part, optimizer, sign in (
            (self.judge, self.judge_optimizer, 1.0),
            (self.forger, self.forger_optimizer, -1.0),
        ):
            with tf.GradientTape() as tape:
                loss = sign * ops.mean(self.judge(self.forger(data)) - self.judge(data))
            gradients = tape.gradient(loss, part.trainable_variables)
            optimizer.apply_gradients(zip(gradients, part.trainable_variables, strict=True))
        self.told.update_state(loss)
        return {"told": self.told.result()}

    def get_config(self):
        return {**super().get_config(), "size": self.size}


@own
class Sampler(layers.Layer):
    """Draws around a mean in training, and tells a loss."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.generator = keras.random.SeedGenerator(3)

    def call(self, mean, spread, training=False):
        self.add_loss(ops.mean(ops.square(mean) + ops.exp(spread) - spread))
        if not training:
            return mean
        return mean + ops.exp(0.5 * spread) * keras.random.normal(ops.shape(mean), seed=self.generator)


@own
class Autoencoder(keras.Model):
    """Encoder and decoder as Functional models that it makes, a layer that draws, a tracker of its loss."""

    def __init__(self, size, code, **kwargs):
        super().__init__(**kwargs)
        self.size, self.code = size, code
        inputs = keras.Input((size,))
        y = layers.Dense(5, activation="relu")(inputs)
        self.encoder = keras.Model(inputs, [layers.Dense(code)(y), layers.Dense(code)(y)])
        self.decoder = keras.Sequential([keras.Input((code,)), layers.Dense(size)])
        self.sampler, self.loss_tracker = Sampler(), keras.metrics.Mean(name="loss")

    @property
    def metrics(self):
        return [self.loss_tracker]

    def call(self, x, training=False):
        return self.decoder(self.sampler(*self.encoder(x), training=training))

    def train_step(self, data):
        with tf.GradientTape() as tape:
            loss = ops.mean(ops.square(self(data, training=True) - data)) + sum(self.losses)
        self.optimizer.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
        self.loss_tracker.update_state(loss)
        return {"loss": self.loss_tracker.result()}

    def get_config(self):
        return {**super().get_config(), "size": self.size, "code": self.code}


@own
class Shelves(keras.Model):
    """Layers in lists, dicts and tuples, of which one grows."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.stages = []
        for stage in range(2):
            norm = layers.BatchNormalization(name=f"norm{stage}")
            self.stages.append({"dense": layers.Dense(units, name=f"dense{stage}"), "rest": [norm, layers.ReLU()]})
        self.heads = (layers.Dense(2, name="first"), layers.Dense(3, name="second"))

    def call(self, x, training=False):
        for stage in self.stages:
            x = stage["rest"][1](stage["rest"][0](stage["dense"](x), training=training))
        return [head(x) for head in self.heads]

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@own
class MadeLate(layers.Layer):
    """Makes its layers in `build`, as many as its input has steps, and names none of them."""

    def build(self, shape):
        self.steps = [layers.Dense(shape[-1]) for _ in range(shape[1])]
        for step in self.steps:
            step.build((shape[0], shape[-1]))

    def call(self, x):
        return ops.stack([step(x[:, number]) for number, step in enumerate(self.steps)], 1)


@own
class MadeAtLast(keras.Model):
    """Makes a layer in its first call."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units, self.first, self.second = units, layers.Dense(units), None

    def call(self, x):
        if self.second is None:
            self.second = layers.Dense(int(x.shape[-1]))
        return self.second(self.first(x))

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@own
class Narrow(keras.Model):
    """A Functional model whose constructor takes something else, and which keeps parts of itself at hand."""

    def __init__(self, units, **kwargs):
        inputs = keras.Input((4,))
        hidden = layers.Dense(units, activation="relu", name="hidden")
        super().__init__(inputs, layers.Dense(2, name="head")(hidden(inputs)), **kwargs)
        self.units, self.hidden = units, hidden

    def get_config(self):
        return {"units": self.units, "name": self.name}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


@own
class Doubling(keras.Model):
    """A Functional model with a forward pass of its own around that of the graph."""

    def __init__(self, units, **kwargs):
        inputs = keras.Input((4,))
        super().__init__(inputs, layers.Dense(units)(inputs), **kwargs)
        self.units, self.after = units, layers.Dense(units, name="after")
        self.after.build((None, units))

    def call(self, x, training=None, mask=None):
        return self.after(2 * super().call(x, training=training, mask=mask))

    def get_config(self):
        return {"units": self.units, "name": self.name}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


@own
class Tower(keras.Sequential):
    """A Sequential model of a class of its own."""

    def __init__(self, widths, **kwargs):
        super().__init__([keras.Input((4,)), *(layers.Dense(width, activation="relu") for width in widths)], **kwargs)
        self.widths = tuple(widths)

    def get_config(self):
        return {"widths": list(self.widths), "name": self.name}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return cls(**config)


@own
class Backbone(keras.Model):
    """Is given a Functional model, of which it calls layers one by one."""

    def __init__(self, body, classes, **kwargs):
        super().__init__(**kwargs)
        self.body, self.classes, self.head = body, classes, layers.Dense(classes)

    def call(self, x):
        middle = self.body.layers[1](x)
        return self.head(middle + self.body(x))

    def get_config(self):
        return {**super().get_config(), "body": keras.saving.serialize_keras_object(self.body), "classes": self.classes}

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "body": keras.saving.deserialize_keras_object(config["body"])})


@own
class Marked(keras.Model):
    """Has weights itself: one without a name in front, and a list of them behind."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units, self.dense = units, layers.Dense(units)
        self.mark = self.add_weight(shape=(1, 4))
        self.levels = [self.add_weight(shape=(), name="level") for _ in range(2)]

    def call(self, x):
        return self.dense(x * self.mark) * self.levels[0] + self.levels[1]

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@row("own models", 1)
def weights_of_the_model_itself():
    return Marked(3), floats(3, 4)


@row("own models", 4, quick=True)
def rivals():
    model = Rivals(3)
    model.compile(0.2)
    return model, floats(3, 3)


@row("own models", 4)
def autoencoder():
    model = Autoencoder(4, 2)
    model.compile("sgd")
    return model, floats(3, 4)


@row("own models", 4, quick=True)
def layers_on_shelves():
    return Shelves(4), floats(3, 4)


@row("own models", 3)
def layers_made_in_build():
    return chain((2, 4), MadeLate(), layers.Flatten(), layers.Dense(2))


@row("own models", 2)
def layers_made_in_a_call():
    return MadeAtLast(3), floats(3, 4)


@row("own models", 2, quick=True)
def graph_of_ones_own_class():
    return Narrow(3), floats(3, 4)


@row("own models", 3)
def graph_of_ones_own_class_in_a_graph():
    return chain((4,), layers.Dense(4), Narrow(3))


@row("own models", 2)
def graph_with_a_call_of_its_own():
    return Doubling(3), floats(3, 4)


@row("own models", 3)
def sequential_of_ones_own_class():
    return chain((4,), Tower((5, 4)), layers.Dense(2))


@row("own models", 3)
def body_taken_apart():
    body, x = chain((4,), layers.Dense(4, activation="relu"), layers.Dense(4))
    return Backbone(body, 2), x


@row("own models", 2)
def compiled_and_fitted():
    model, x = chain((4,), layers.Dense(3, activation="relu"), layers.Dense(2))
    model.compile(keras.optimizers.Adam(0.01), "mse", metrics=["mae"])
    model.train_on_batch(x, floats(3, 2))
    return model, x


# ------------------------------------------------------------------------------------------------ files of their own


@own
class Packed(layers.Layer):
    """Writes its two variables as one array, and holds a Dense."""

    def build(self, shape):
        self.low, self.high = (self.add_weight(shape=shape[-1:], name=name) for name in ("low", "high"))
        self.dense = layers.Dense(shape[-1], name="dense")
        self.dense.build(shape)

    def call(self, x):
        return self.dense(ops.clip(x, -ops.abs(self.low), ops.abs(self.high)))

    def save_own_variables(self, store):
        store["both"] = np.stack([self.low.numpy(), self.high.numpy()])

    def load_own_variables(self, store):
        low, high = np.asarray(store["both"])
        self.low.assign(low)
        self.high.assign(high)


@own
class Annotated(layers.Layer):
    """Keeps a file of its own, whose content counts in its output, and a Dense."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.factor = 1.0
        self.dense = layers.Dense(3)

    def build(self, shape):
        self.dense.build(shape)

    def call(self, x):
        return self.dense(x) * self.factor

    def save_assets(self, folder):
        with open(f"{folder}/factor.txt", "w") as file:
            file.write(str(self.factor))

    def load_assets(self, folder):
        with open(f"{folder}/factor.txt") as file:
            self.factor = float(file.read())


@own
class Planned(layers.Layer):
    """Says in its build config how many layers it is to make."""

    count = None

    def build(self, shape):
        self.shape, self.count = tuple(shape), self.count or int(shape[-1])
        self.steps = [layers.Dense(shape[-1], name=f"step{number}") for number in range(self.count)]
        for step in self.steps:
            step.build(shape)

    def call(self, x):
        for step in self.steps:
            x = ops.tanh(step(x))
        return x

    def get_build_config(self):
        return {"shape": list(self.shape), "count": self.count}

    def build_from_config(self, config):
        self.count = config["count"]
        self.build((None, *config["shape"][1:]))
        self.built = True


@row("files", 2, quick=True)
def variables_saved_its_own_way():
    return chain((4,), Packed(), layers.Dense(2))


@row("files", 1)
def files_of_its_own():
    annotated = Annotated()
    annotated.factor = 2.5
    return chain((4,), annotated)


@row("files", 3)
def built_its_own_way():
    return chain((3,), Planned())


# ------------------------------------------------------------------------------------------------ without a config


class Applied(layers.Layer):
    """Is given a function, and has no config."""

    def __init__(self, function):
        super().__init__()
        self.function, self.dense = function, layers.Dense(3)

    def call(self, x):
        return self.function(self.dense(x))


class Nameless(keras.Model):
    """Its constructor's argument is in no config."""

    def __init__(self, units, activation):
        super().__init__()
        self.dense, self.activation, self.head = layers.Dense(units), activation, layers.Dense(2)

    def call(self, x):
        return self.head(self.activation(self.dense(x)))


class Through(layers.Layer):
    """Calls what it is given, which may reach for layers that it does not hold."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def call(self, x):
        return self.function(x)


@row("without a config", 2, refused="Applied|get_config")
def layer_without_a_config():
    return chain((4,), layers.Dense(4), Applied(lambda x: x * x))


@row("without a config", 2, refused="Nameless|get_config|units")
def model_without_a_config():
    return Nameless(4, lambda x: ops.maximum(x, 0.1 * x)), floats(3, 4)


@row("without a config", 2, refused="Through|get_config")
def closure_over_a_layer_of_the_graph():
    inputs, dense = keras.Input((4,)), layers.Dense(4, name="closed_over")
    y = Through(lambda x: dense(x) + ops.sum(dense.kernel))(ops.tanh(dense(inputs)))
    return keras.Model(inputs, layers.Dense(2)(y)), floats(3, 4)


@row("without a config", 3, refused="Applied|get_config")
def layer_without_a_config_inside():
    inner, _ = chain((4,), Applied(ops.tanh), layers.Dense(4))
    return chain((4,), inner, layers.Dense(2))


# ------------------------------------------------------------------------------------------------ frozen parts


@own
class HalfFrozen(layers.Layer):
    """Freezes one of its layers, and one of its weights."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.still, self.moving = layers.Dense(units, trainable=False), layers.Dense(units)

    def build(self, shape):
        self.still.build(shape)
        self.moving.build(shape)
        self.fixed = self.add_weight(shape=(self.units,), trainable=False)
        self.loose = self.add_weight(shape=(self.units,))

    def call(self, x):
        return self.still(x) * self.fixed + self.moving(x) * self.loose

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@row("frozen parts", 3)
def frozen_body():
    body, _ = chain((4,), layers.Dense(4), layers.BatchNormalization(), layers.Dense(3))
    body.trainable = False
    return chain((4,), body, layers.Dense(2))


@row("frozen parts", 2)
def frozen_in_a_block():
    return chain((4,), HalfFrozen(3))


@row("frozen parts", 2)
def frozen_statistics_and_a_layer():
    return chain((4,), layers.Dense(4, trainable=False), layers.BatchNormalization(trainable=False), layers.Dense(2))


@row("frozen parts", 2)
def frozen_by_hand_in_a_block():
    drawers = Drawers(4)
    model, x = chain((5,), drawers)
    drawers.chest[0]["left"]["dense"].trainable = False
    return model, x


@row("frozen parts", 1, exclude="head", quick=True)
def head_left_out():
    return chain((4,), layers.Dense(4), layers.LayerNormalization(), layers.Dense(2, name="head"))


@row("frozen parts", 2, exclude="*router")
def part_of_a_block_left_out():
    return chain((4,), Mixture(2, 3))


# ------------------------------------------------------------------------------------------------ types of numbers


@row("types", 3, policy="mixed_float16", tolerance=2e-3)
def half_precision():
    return chain(
        (4, 3), layers.Conv1D(4, 2), layers.BatchNormalization(), layers.LSTM(3), Gate(), layers.Dense(2), Gate()
    )


@row("types", 3, policy="mixed_bfloat16", tolerance=1e-2)
def brain_precision():
    stack = layers.Embedding(6, 4), layers.SeparableConv1D(4, 2), layers.LayerNormalization(), layers.Dense(2)
    return chain((4,), *stack, x=whole(6, 3, 4), dtype="int32")


@row("types", 2, tolerance=2e-3)
def one_layer_of_doubles():
    return chain((4,), layers.Dense(4, dtype="float64"), layers.Dense(2, dtype="mixed_float16"))


@row("types", 1, merges=True, refuses={"tickets": "lora_rank"})
def low_rank_dense():
    dense = layers.Dense(4)
    model, x = chain((5,), dense, layers.Dense(2))
    dense.enable_lora(2)
    return model, x


@row("types", 1, merges=True, refuses={"tickets": "lora_rank"})
def low_rank_table():
    table = layers.Embedding(6, 4)
    model, x = chain((3,), table, layers.Dense(2), x=whole(6, 3, 3), dtype="int32")
    table.enable_lora(2)
    return model, x


@row("types", 2)
def computed_again():
    with keras.RematScope(mode="full"):
        first = layers.Dense(4, activation="relu")
    return chain((4,), first, layers.Dense(2))


# ------------------------------------------------------------------------------------------------ kinds of Dense


@own
class Bent(layers.Dense):
    """A Dense with a `call` of its own."""

    def call(self, x):
        return ops.sin(super().call(x))


@own
class Renamed(layers.Dense):
    """A Dense of another name, and nothing else."""


@own
class Head(layers.Dense):
    """A Dense with a constructor of its own."""

    def __init__(self, classes, **kwargs):
        kwargs.pop("units", None)
        super().__init__(classes, **kwargs)

    def get_config(self):
        return {**super().get_config(), "classes": self.units}


@row("subclasses", 1)
def dense_with_a_call_of_its_own():
    return chain((4,), Bent(4), layers.Dense(2))


@row("subclasses", 2)
def dense_by_another_name():
    return chain((4,), Renamed(4), layers.Dense(2))


@row("subclasses", None)
def dense_with_a_constructor_of_its_own():
    return chain((4,), Head(3), layers.Dense(2))


# ------------------------------------------------------------------------------------------------ reading along


@own
class NormOfKernel(layers.Layer):
    """Scales by the norm of the kernel of a layer that it holds and calls."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units, self.dense = units, layers.Dense(units)

    def build(self, shape):
        self.dense.build(shape)

    def call(self, x):
        return self.dense(x) / (1 + ops.sqrt(ops.sum(ops.square(self.dense.kernel))))

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@own
class BiasTwice(NormOfKernel):
    """Adds the bias of its Dense once more."""

    def call(self, x):
        return self.dense(x) + self.dense.bias


@own
class PastTheCall(NormOfKernel):
    """Multiplies by its Dense's kernel, without a call of it."""

    def call(self, x):
        return ops.matmul(x, ops.softmax(self.dense.kernel, 0)) + self.dense.bias


@own
class GammaRead(layers.Layer):
    """Reads what its normalization has learned, and calls it."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.norm, self.dense = layers.BatchNormalization(), layers.Dense(3)

    def build(self, shape):
        self.norm.build(shape)
        self.dense.build(shape)

    def call(self, x, training=False):
        return self.dense(self.norm(x, training=training) * self.norm.gamma + self.norm.beta)


@row("reading", 1)
def gamma_read():
    return chain((4,), GammaRead(), layers.BatchNormalization())


@row("reading", 1)
def kernel_read_and_called():
    return chain((4,), NormOfKernel(3))


@row("reading", 1)
def bias_read():
    return chain((4,), BiasTwice(3))


@row("reading", 1, quick=True)
def kernel_read_only():
    return chain((4,), PastTheCall(3))
