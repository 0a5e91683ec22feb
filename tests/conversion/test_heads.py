"""replace_head: a model for another task, whose other layers are those of the base."""

import keras
import numpy as np
import pytest

import keras_popup
from keras_popup import conversion, replace_head

X = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype("float32")


def end_with(*layers):
    """A Functional model with these layers after the features."""
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, name="conv")(inputs)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.GlobalAveragePooling2D(name="features")(x)
    for layer in layers:
        x = layer(x)
    return keras.Model(inputs, x, name="base")


def sequential():
    stack = [keras.Input((8, 8, 3)), keras.layers.Flatten(name="features"), keras.layers.Dense(7, name="top")]
    return keras.Sequential([*stack, keras.layers.Softmax()], name="base")


def nested():
    inside = end_with()
    inputs = keras.Input((8, 8, 3))
    return keras.Model(inputs, keras.layers.Dense(5, name="top")(inside(inputs)), name="base")


BASES = {
    "logits": lambda: end_with(keras.layers.Dense(5, name="top")),
    "without_bias": lambda: end_with(keras.layers.Dense(5, use_bias=False, name="top")),
    "softmax_after": lambda: end_with(keras.layers.Dense(5, name="top"), keras.layers.Softmax()),
    "operation_after": lambda: keras_popup.models.Conv2((8, 8, 3), classes=5, width=0.1),
    "sequential": sequential,
    "nested": nested,
    "application": lambda: keras.applications.MobileNetV2((32, 32, 3), alpha=0.35, weights=None),
}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.integration] * (n == "application")) for n in BASES]
)
def test_replace_head_keeps_all_else(name):
    base = BASES[name]()
    rng = np.random.default_rng(1)
    for variable in base.variables:
        variable.assign(rng.uniform(0.1, 1, variable.shape))
    before = [variable.numpy() for variable in base.variables]
    model = replace_head(base, 3, seed=1)
    head = model.layers[-1]
    assert type(head) is keras.layers.Dense
    assert model.output_shape == (None, 3)
    assert head.activation is keras.activations.linear
    assert model.name == base.name
    old = base.get_layer(head.name)
    assert head.use_bias == old.use_bias
    for layer in [layer for layer in model.layers[:-1] if layer.weights]:
        for ours, theirs in zip(layer.weights, base.get_layer(layer.name).weights, strict=True):
            assert ours is not theirs
            np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    for variable, values in zip(base.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), values)
    x = np.ones((2, *base.input_shape[1:]), "float32")
    features = keras.Model(base.inputs[0], old.input)(x)
    np.testing.assert_allclose(model(x), head(features), rtol=1e-5, atol=1e-5)
    again = replace_head(base, 3, seed=1)
    np.testing.assert_array_equal(again.layers[-1].kernel.numpy(), head.kernel.numpy())
    assert not np.array_equal(replace_head(base, 3, seed=2).layers[-1].kernel.numpy(), head.kernel.numpy())


def used_twice():
    inputs, dense = keras.Input((6,)), keras.layers.Dense(6, name="twice")
    return keras.Model(inputs, dense(keras.layers.ReLU()(dense(inputs))), name="base")


def test_replace_head_with_mixed_precision_gives_float32():
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = replace_head(keras_popup.models.FullyConnected((8, 8, 3)), 3)
    assert model.output.dtype == "float32"


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__(name="base")
        self.dense = keras.layers.Dense(3)

    def call(self, x):
        return self.dense(x)


def added_to():
    inputs = keras.Input((4,))
    return keras.Model(inputs, keras.layers.Dense(2)(inputs) + 1.0, name="base")


def two_outputs():
    inputs = keras.Input((4,))
    return keras.Model(inputs, [keras.layers.Dense(2)(inputs), keras.layers.Dense(3)(inputs)], name="base")


@pytest.mark.parametrize(
    ("make", "classes", "error", "message"),
    [
        (
            lambda: end_with(keras.layers.Dense(4), keras.layers.LayerNormalization(name="last")),
            3,
            ValueError,
            "'last'",
        ),
        (lambda: end_with(keras.layers.Reshape((4, 1)), keras.layers.Conv1D(2, 1, name="c")), 3, ValueError, "Conv1D"),
        (end_with, 3, ValueError, "must end in a Dense.*It has GlobalAveragePooling2D 'features' there"),
        (used_twice, 3, ValueError, "'twice', is used inside of the model too"),
        (lambda: end_with(keras.layers.Dense(4), keras.layers.Reshape((2, 2), name="r")), 3, ValueError, "Reshape 'r'"),
        (added_to, 3, ValueError, "It has Add"),
        (two_outputs, 3, ValueError, "It has several outputs"),
        (Subclassed, 3, ValueError, "or code of its own, there. Build the model"),
        (lambda: "base.keras", 3, TypeError, "Load it first"),
        (lambda: end_with(keras.layers.Dense(4)), 0, ValueError, "`classes` must be a positive integer. Received: 0"),
        (lambda: end_with(keras.layers.Dense(4)), 2.0, ValueError, "Received: 2.0"),
        (lambda: end_with(keras.layers.Dense(4)), True, ValueError, "Received: True"),
    ],
)
def test_replace_head_refuses_other_ends(make, classes, error, message):
    with pytest.raises(error, match=message):
        replace_head(make(), classes)


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ([keras.layers.Dense(4)], False),
        ([keras.layers.Dense(4), keras.layers.ReLU()], False),
        ([keras.layers.Dense(4, activation="softmax")], True),
        ([keras.layers.Dense(4, activation="sigmoid"), keras.layers.Reshape((2, 2))], True),
        ([keras.layers.Dense(4), keras.layers.Softmax()], True),
        ([keras.layers.Dense(4), keras.ops.softmax], True),
        ([keras.layers.Dense(4, activation="softmax"), keras.layers.Dense(4)], False),
    ],
)
def test_gives_probabilities_looks_for_a_softmax_or_sigmoid(ends, expected):
    assert conversion.gives_probabilities(end_with(*ends)) == expected
