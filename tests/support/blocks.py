"""Layers and models with code of their own, as users write them, for the table of models."""

import keras


@keras.saving.register_keras_serializable("tests")
class FeedForward(keras.layers.Layer):
    """Makes its layers in the constructor, in a list that grows."""

    def __init__(self, units, depth=2, **kwargs):
        super().__init__(**kwargs)
        self.units, self.depth = units, depth
        self.blocks = []
        for _ in range(depth):
            self.blocks.append(keras.layers.Dense(units, activation="relu"))
        self.norm = keras.layers.BatchNormalization()

    def call(self, x, training=None):
        for block in self.blocks:
            x = block(x)
        return self.norm(x, training=training)

    def get_config(self):
        return {**super().get_config(), "units": self.units, "depth": self.depth}


@keras.saving.register_keras_serializable("tests")
class Encoder(keras.layers.Layer):
    """Makes its layers in `build`, holds a block that holds layers, and has a weight of its own."""

    def __init__(self, heads, **kwargs):
        super().__init__(**kwargs)
        self.heads = heads

    def build(self, shape):
        self.positions = self.add_weight(name="positions", shape=shape[1:])
        self.attention = keras.layers.MultiHeadAttention(self.heads, 4)
        self.attention.build(shape, shape)
        self.feed_forward = FeedForward(shape[-1])
        self.norms = {"first": keras.layers.LayerNormalization(), "second": keras.layers.LayerNormalization()}
        for norm in self.norms.values():
            norm.build(shape)

    def call(self, x, training=None):
        x = x + self.positions
        x = self.norms["first"](x + self.attention(x, x, training=training))
        return self.norms["second"](x + self.feed_forward(x, training=training))

    def get_config(self):
        return {**super().get_config(), "heads": self.heads}


@keras.saving.register_keras_serializable("tests")
class Residual(keras.layers.Layer):
    """Is given the layer that it holds."""

    def __init__(self, layer, **kwargs):
        super().__init__(**kwargs)
        self.layer = layer

    def build(self, shape):
        if not self.layer.built:
            self.layer.build(shape)

    def call(self, x):
        return x + self.layer(x)

    def get_config(self):
        return {**super().get_config(), "layer": keras.saving.serialize_keras_object(self.layer)}

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "layer": keras.saving.deserialize_keras_object(config["layer"])})


@keras.saving.register_keras_serializable("tests")
class Classifier(keras.Model):
    """A subclassed model."""

    def __init__(self, classes, **kwargs):
        super().__init__(**kwargs)
        self.classes = classes
        self.stem = keras.Sequential([keras.layers.Conv2D(4, 3, activation="relu"), keras.layers.Flatten()])
        self.head = keras.layers.Dense(classes)

    def call(self, x):
        return self.head(self.stem(x))

    def get_config(self):
        return {**super().get_config(), "classes": self.classes}


@keras.saving.register_keras_serializable("tests")
class Twice(keras.layers.Layer):
    """Holds one layer under two names."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first = keras.layers.Dense(3)
        self.again = [self.first]

    def call(self, x):
        return self.first(x)


@keras.saving.register_keras_serializable("tests")
class NormalizedTwice(keras.layers.Layer):
    """Holds a normalization under two names."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first = keras.layers.BatchNormalization()
        self.again = [self.first]
        self.dense = keras.layers.Dense(3)

    def build(self, shape):
        self.first.build(shape)
        self.dense.build(shape)

    def call(self, x):
        return self.dense(self.first(x))


@keras.saving.register_keras_serializable("tests")
class MyDense(keras.layers.Dense):
    """A stock layer with code of its own."""

    def call(self, x):
        return 2 * super().call(x)


class WithoutConfig(keras.layers.Layer):
    """Cannot be copied: its argument is no plain value, and it has no `get_config`."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def call(self, x):
        return self.function(x)
