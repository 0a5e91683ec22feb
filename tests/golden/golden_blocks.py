"""Layers, models and a selector with code of their own, as users write them, which the files in models-v1 hold.

What is here must stay as it is, or the files cannot be read. The layers that are masked have kernels of 108 weights:
those of one size share their programs, which take long to compile.
"""

import keras
import tensorflow as tf

import keras_popup
from keras_popup import layers, selectors


@keras.saving.register_keras_serializable("golden")
class Block(keras.layers.Layer):
    """Makes its layers in the constructor: Dense layers in a list, and a BatchNormalization."""

    def __init__(self, depth=2, **kwargs):
        super().__init__(**kwargs)
        self.depth = depth
        self.stack = [keras.layers.Dense((12, 9)[number % 2], activation="tanh") for number in range(depth)]
        self.norm = keras.layers.BatchNormalization()

    def call(self, x, training=None):
        for layer in self.stack:
            x = layer(x)
        return self.norm(x, training=training)

    def get_config(self):
        return {**super().get_config(), "depth": self.depth}


@keras.saving.register_keras_serializable("golden")
class Encoder(keras.layers.Layer):
    """Makes its layers in `build`, holds a block that holds layers, and has a weight of its own."""

    def __init__(self, heads=3, **kwargs):
        super().__init__(**kwargs)
        self.heads = heads

    def build(self, shape):
        self.positions = self.add_weight(name="positions", shape=shape[1:])
        self.attention = keras.layers.MultiHeadAttention(self.heads, 4)
        self.attention.build(shape, shape)
        self.inner = Block()
        self.inner.build(shape)
        self.norms = {"first": keras.layers.LayerNormalization(), "second": keras.layers.LayerNormalization()}
        for norm in self.norms.values():
            norm.build(shape)

    def call(self, x, training=None):
        x = x + self.positions
        x = self.norms["first"](x + self.attention(x, x, training=training))
        return self.norms["second"](x + self.inner(x, training=training))

    def get_config(self):
        return {**super().get_config(), "heads": self.heads}


@keras.saving.register_keras_serializable("golden")
class Projection(keras.layers.Layer):
    """Makes a Dense layer in `build`."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def build(self, shape):
        self.dense = keras.layers.Dense(self.units)
        self.dense.build(shape)

    def call(self, x):
        return self.dense(x)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable("golden")
class Scaled(keras.layers.Layer):
    """Has a weight of its own beside a Dense layer and a PReLU."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.dense = keras.layers.Dense(units)
        self.activation = keras.layers.PReLU()

    def build(self, shape):
        self.scale = self.add_weight(name="scale", shape=(self.units,), initializer="ones")
        self.dense.build(shape)
        self.activation.build((*shape[:-1], self.units))

    def call(self, x):
        return self.activation(self.dense(x)) * self.scale

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable("golden")
class Gated(keras.layers.Layer):
    """Is given the layer that it holds, and has a weight of its own."""

    def __init__(self, layer, **kwargs):
        super().__init__(**kwargs)
        self.layer = layer

    def build(self, shape):
        if not self.layer.built:
            self.layer.build(shape)
        self.gate = self.add_weight(name="gate", shape=(self.layer.compute_output_shape(shape)[-1],))

    def call(self, x):
        return self.gate * self.layer(x)

    def get_config(self):
        return {**super().get_config(), "layer": keras.saving.serialize_keras_object(self.layer)}

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "layer": keras.saving.deserialize_keras_object(config["layer"])})


@keras.saving.register_keras_serializable("golden")
class Classifier(keras.Model):
    """A subclassed model, which holds a Sequential one."""

    def __init__(self, classes, **kwargs):
        super().__init__(**kwargs)
        self.classes = classes
        self.stem = keras.Sequential([keras.layers.Conv2D(4, 3, activation="tanh"), keras.layers.Flatten()])
        self.hidden = keras.layers.Dense(12)
        self.head = keras.layers.Dense(classes)

    def call(self, x):
        return self.head(self.hidden(self.stem(x)))

    def get_config(self):
        return {**super().get_config(), "classes": self.classes}


@keras.saving.register_keras_serializable("golden")
class MadeMasked(keras.layers.Layer):
    """Its own code makes masked layers, which cannot be stripped."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.first = layers.MaskedDense(units, k=0.3, seed=1, activation="tanh")

    def build(self, shape):
        self.first.build(shape)
        self.second = layers.MaskedDense(shape[-1], k=0.6, seed=2, use_bias=True)
        self.second.build((*shape[:-1], self.units))

    def call(self, x):
        return self.second(self.first(x))

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable("golden")
class Positive(selectors.Selector):
    """Keeps the weights of positive score, however many."""

    def __call__(self, scores, k, training=False):
        hard = tf.cast(scores > 0, tf.float32)
        return scores + tf.stop_gradient(hard - scores)  # straight through


def functional(shape, *stack, name="golden"):
    """A Functional model of layers one after the other. Attention is given its input twice."""
    inputs = keras.Input(shape, name="inputs")
    outputs = inputs
    for layer in stack:
        outputs = layer(outputs, outputs) if "Attention" in type(layer).__name__ else layer(outputs)
    return keras.Model(inputs, outputs, name=name)


def by_hand():
    """Masked layers of several kinds, put into a model by hand."""
    return functional(
        (6, 6, 3),
        layers.MaskedConv2D(4, 3, k=0.4, seed=1, activation="tanh", name="conv"),
        layers.MaskedDepthwiseConv2D(3, depth_multiplier=3, k=0.6, seed=2, use_bias=True, name="depthwise"),
        keras.layers.BatchNormalization(name="norm"),
        keras.layers.GlobalAveragePooling2D(name="pool"),
        layers.MaskedDense(9, k=0.5, seed=3, use_bias=True, train_bias=False, name="classes"),
    )


def supermask():
    """Layers that draw their masks in training, and one that rescales what is kept."""
    return functional(
        (9,),
        layers.MaskedDense(12, selector="bernoulli", seed=1, activation="tanh", name="hidden"),
        layers.MaskedDense(9, selector=selectors.Bernoulli(rescale=True), seed=2, use_bias=True, name="classes"),
    )


def encoder():
    """A plain model of layers that hold layers which hold layers."""
    return functional((5, 9), Encoder(name="encoder"), keras.layers.Dense(12, name="classes"))


def transformer():
    """The same with masks by `mask_model`, except for one layer."""
    return keras_popup.mask_model(
        encoder(),
        {"encoder/inner": 0.3, "*": 0.6},
        train_biases=True,
        train_norms=True,
        exclude="encoder/attention/query",
        seed=1,
    )


def classifier():
    """A subclassed model with masks by `mask_model`."""
    plain = Classifier(9, name="golden")
    plain(tf.zeros((1, 5, 5, 3)))
    return keras_popup.mask_model(plain, {"hidden": 0.2, "*": 0.6}, seed=1)


WEIGHTS = {"by_hand": by_hand, "supermask": supermask, "transformer": transformer, "classifier": classifier}
"""How to make the models whose weights are in files `.weights.h5`."""
