"""Layers put first in models: outputs, sharing, refusals."""

import keras
import numpy as np
import pytest
from tables import plain_model

import keras_popup
from keras_popup import conversion
from keras_popup.layers import walk

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 6), np.uint8)


def halves():
    return [keras.layers.Rescaling(0.5, offset=1.0, name="preprocessing")]


def sequential():
    return keras.Sequential([keras.Input((6,)), keras.layers.Dense(4, name="one"), keras.layers.Dense(2, name="two")])


def functional():
    inputs = keras.Input((6,), name="images")
    x = keras.layers.Dense(4, name="one")(inputs)
    return keras.Model(inputs, keras.layers.Dense(2, name="two")(x + keras.ops.relu(x)), name="branched")


def shared():
    inputs, layer = keras.Input((6,)), keras.layers.Dense(6, name="one")
    return keras.Model(inputs, layer(layer(inputs)))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.one = keras.layers.Dense(3, name="one")

    def call(self, inputs):
        return self.one(inputs)


def subclassed():
    model = Subclassed()
    model(PIXELS)
    return model


class OfFunctional(keras.Model):
    """A subclass of Functional with a method of its own."""

    def __init__(self):
        inputs = keras.Input((6,))
        super().__init__(inputs, keras.layers.Dense(2, name="one")(inputs))

    def train_step(self, data):
        return super().train_step(data)


BUILDERS = {build.__name__: build for build in (sequential, functional, shared, subclassed, OfFunctional)}


@pytest.mark.parametrize("masked", [False, True], ids=["plain", "masked"])
@pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS)
def test_put_first_gives_the_outputs_of_both(build, masked):
    model = keras_popup.mask_model(build(), seed=1, copy=False) if masked else build()
    first = halves()
    given = [keras.Input((6,)), *first] if build is subclassed else first
    both = conversion.put_first(given, model)
    expected = model.predict(first[0](PIXELS), verbose=0)
    np.testing.assert_array_equal(both.predict(PIXELS, verbose=0), expected)
    assert both.name == model.name
    assert [layer.name for layer in conversion.find_preprocessing(both)] == ["preprocessing"]
    assert not conversion.find_preprocessing(model)
    before = {id(variable) for variable in model.variables}
    assert {id(variable) for variable in both.variables} == before  # shared, not copied
    flat = build in (sequential, functional, shared)
    assert any(layer.name == "one" for layer in both.layers) == flat
    # Training the new model trains the given one.
    both.compile("sgd", "mse")
    both.fit(PIXELS, expected + 1, verbose=0)
    np.testing.assert_array_equal(both.predict(PIXELS, verbose=0), model.predict(first[0](PIXELS), verbose=0))


@pytest.mark.parametrize("build", [sequential, functional, shared], ids=lambda build: build.__name__)
def test_put_first_leaves_a_model_that_can_be_saved(build, tmp_path):
    both = conversion.put_first(halves(), keras_popup.mask_model(build(), seed=1))
    both.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.predict(PIXELS, verbose=0), both.predict(PIXELS, verbose=0))
    assert [layer.name for layer in again.layers] == [layer.name for layer in both.layers]


def test_put_first_with_another_input():
    image = keras.Input((None, None, 1), dtype="uint8")
    resize = keras.layers.Resizing(8, 8)
    model = conversion.put_first(
        [image, resize, keras.layers.Rescaling(1 / 255)], keras_popup.models.FullyConnected((8, 8, 1))
    )
    assert model.input_shape == (None, None, None, 1)
    assert model.inputs[0].dtype == "uint8"
    assert model.predict(np.zeros((2, 11, 5, 1), np.uint8), verbose=0).shape == (2, 10)


def test_put_first_of_nothing_gives_the_same_outputs():
    model = functional()
    np.testing.assert_array_equal(
        conversion.put_first([], model).predict(PIXELS, verbose=0), model.predict(PIXELS, verbose=0)
    )


def test_put_first_refuses_what_does_not_fit():
    two = plain_model("shared_two_in_two_out")
    with pytest.raises(ValueError, match="has 2 inputs"):
        conversion.put_first(halves(), two)
    with pytest.raises(ValueError, match=r"takes inputs of shape \(None, 6\).*give \(None, 3\)"):
        conversion.put_first([keras.layers.Dense(3)], functional())
    with pytest.raises(ValueError, match="does not say what it takes.*keras.Input"):
        conversion.put_first(halves(), subclassed())
    with pytest.raises(TypeError, match="must be Keras layers.*Received: 0.5"):
        conversion.put_first([0.5], functional())


def test_find_preprocessing_stops_at_the_first_other_layer():
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Rescaling(2.0), keras.layers.Dense(2), keras.layers.Rescaling(3.0)]
    )
    assert [layer.scale for layer in conversion.find_preprocessing(model)] == [2.0]
    assert not any(isinstance(layer, keras.layers.Rescaling) for _, layer in walk(functional()))
