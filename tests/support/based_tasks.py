"""A base model, and tasks that are masks over it."""

import keras
import numpy as np

import keras_popup

X = np.random.default_rng(0).normal(size=(16, 8, 8, 3)).astype("float32")


def network(head="head", classes=4, prefix="", dtype=None):
    """Its layers have other names with another prefix."""
    layers, name = keras.layers, lambda text: f"{prefix}{text}"
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(16, 3, name=name("conv"), dtype=dtype)(inputs)
    x = layers.BatchNormalization(name=name("norm"), dtype=dtype)(x)
    x = layers.Flatten()(layers.ReLU()(x))
    x = layers.Dense(64, activation="relu", name=name("hidden"), dtype=dtype)(x)
    return keras.Model(inputs, layers.Dense(classes, name=name(head), dtype=dtype)(x), name="base")


def randomize(model, seed=0):
    rng = np.random.default_rng(seed)
    for variable in model.variables:
        values = rng.normal(size=variable.shape)
        variable.assign(values**2 if "variance" in variable.path else values)
    return model


def task_of(base, prefix="", **arguments):
    """A mask over the base that has moved, with a head of its own."""
    task = network(prefix=prefix)
    for layer in task.layers[:-1]:
        if layer.weights:
            layer.set_weights(base.get_layer(layer.name.removeprefix(prefix)).get_weights())
    chosen = {"weights": "keep", "k": 0.5, "exclude": f"{prefix}head", "seed": 1, **arguments}
    masked = keras_popup.mask_model(task, **chosen)
    rng = np.random.default_rng(5)
    for weight in masked.trainable_weights:  # as training would change them
        weight.assign(weight.numpy() + 0.02 * rng.normal(size=weight.shape))
    moving = masked.get_layer(f"{prefix}norm").moving_mean
    moving.assign(moving.numpy() + 0.1)
    return masked


def assert_equal(one, other):
    for a, b in zip(one.weights, other.weights, strict=True):
        assert a.path.rpartition("/")[2] == b.path.rpartition("/")[2]
        np.testing.assert_array_equal(a.numpy(), b.numpy())
