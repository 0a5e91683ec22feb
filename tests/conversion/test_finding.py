"""find_dead: counts of dead channels, as numbers and as a table."""

import keras
import numpy as np
import pytest

from keras_popup.conversion import find_dead


def network():
    model = keras.Sequential(
        [keras.Input((5,)), keras.layers.Dense(6, name="first"), keras.layers.Dense(3, name="last")], name="small"
    )
    kernel = np.ones((5, 6), "float32")
    kernel[:, [1, 4]] = 0
    model.get_layer("first").kernel.assign(kernel)
    kernel = np.ones((6, 3), "float32")
    kernel[:, 2] = 0
    model.get_layer("last").kernel.assign(kernel)
    return model


def test_find_dead_counts_what_leaves_and_what_stays():
    dead = find_dead(network())
    assert [(layer.path, layer.channels, layer.leaving) for layer in dead.layers] == [("first", 6, 2), ("last", 3, 0)]
    assert (dead.channels, dead.leaving, dead.staying) == (9, 2, {"an output of the model": 1})


def test_find_dead_is_a_table_and_a_line():
    dead = find_dead(network())
    assert dead.summary() == ("2 of 9 channels of model 'small' leave. Constant, but stay: 1: an output of the model.")
    lines = [" ".join(line.split()) for line in str(dead).splitlines()]
    assert lines[0] == "Dead channels of model: small"
    assert "first 6 2" in lines
    assert "last 3 0 1: an output of the model" in lines
    assert "all layers 9 2 1" in lines


def test_find_dead_refuses_what_is_no_built_model():
    with pytest.raises(TypeError, match="find_dead takes a keras.Model"):
        find_dead(keras.layers.Dense(3))
    with pytest.raises(ValueError, match="is not built, so it has no channels yet"):
        find_dead(keras.Sequential([keras.layers.Dense(3)]))
