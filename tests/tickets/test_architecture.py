"""The plain model of a ticket: arguments, operations, files, classes of one's own."""

import keras
import numpy as np
import pytest
from ticket_checks import round_trip

import keras_popup
from keras_popup import load_ticket, mask_model, save_ticket, tickets


@keras.saving.register_keras_serializable("tests")
class Gain(keras.layers.Layer):
    """Its argument has the name of something that Keras puts into serialized layers."""

    def __init__(self, options, **kwargs):
        super().__init__(**kwargs)
        self.options = options

    def call(self, inputs):
        return inputs * self.options["build_config"]["gain"]

    def get_config(self):
        return {**super().get_config(), "options": {"build_config": {"gain": self.options["build_config"]["gain"]}}}


def test_serialize_plain_keeps_arguments_as_they_are(tmp_path):
    inputs = keras.Input((4,))
    outputs = keras.layers.Dense(3)(Gain({"build_config": {"gain": 5.0}})(inputs))
    model = mask_model(keras.Model(inputs, outputs), k=0.5, seed=1)
    round_trip(model, np.ones((2, 4), np.float32), tmp_path / "gain.ticket")


def test_serialize_plain_keeps_operations_between_layers(tmp_path):
    inputs = keras.Input((4,))
    x = keras.ops.concatenate([inputs * 2.0, keras.ops.relu(inputs - 0.5)], axis=-1)
    x = keras.ops.cast(keras.ops.expand_dims(x, 1)[:, 0], "float32")
    outputs = keras.layers.Dense(3, activation=keras.activations.silu)(keras.ops.softmax(x))
    model = mask_model(keras.Model(inputs, outputs), k=0.5, seed=1)
    round_trip(model, np.random.default_rng(0).random((2, 4)), tmp_path / "operations.ticket")


@keras.saving.register_keras_serializable("tests")
def doubled(x):
    return x * 2.0


@pytest.mark.parametrize("activation", [doubled, "relu", keras.activations.gelu])
def test_serialize_plain_keeps_functions(activation, tmp_path):
    stack = [keras.Input((4,)), keras.layers.Activation(activation), keras.layers.Dense(3, activation=activation)]
    model = mask_model(keras.Sequential(stack), k=0.5, seed=1)
    round_trip(model, np.ones((2, 4), np.float32), tmp_path / "function.ticket")


def test_collect_assets_of_layers_with_files_of_their_own(tmp_path):
    text = keras.Input((), dtype="string", name="text")
    words = keras.layers.TextVectorization(max_tokens=9, output_sequence_length=4, name="words")
    words.adapt(np.array(["a ticket holds a seed", "and a mask"]))
    numbers = keras.layers.Embedding(9, 4, name="embedding")(words(text))
    outputs = keras.layers.Dense(3, name="classes")(keras.layers.Flatten()(numbers))
    model = mask_model(keras.Model(text, outputs), k=0.5, seed=1)
    save_ticket(model, tmp_path / "text.ticket")
    inputs = keras.ops.convert_to_tensor(["a mask", "a seed and more"])
    np.testing.assert_array_equal(load_ticket(tmp_path / "text.ticket")(inputs), model(inputs))


def test_collect_tensors_of_normalization_statistics(tmp_path):
    norm = keras.layers.Normalization(name="norm")
    norm.adapt(np.random.default_rng(0).normal(3.0, 2.0, (64, 5)))
    model = mask_model(keras.Sequential([keras.Input((5,)), norm, keras.layers.Dense(4)]), k=0.5, seed=1)
    round_trip(model, np.ones((2, 5), np.float32), tmp_path / "norm.ticket")


def test_find_user_classes_that_must_be_given(tmp_path):
    """Classes that are not registered are given, as Keras has it."""
    inner = keras.Input((4,))
    model = keras.Model(inner, keras.layers.Dense(3)(Doubled(name="doubled")(inner)))
    save_ticket(mask_model(model, k=0.5, seed=1), tmp_path / "custom.ticket")
    with pytest.raises(tickets.TicketError, match="be passed to load_ticket in custom_objects"):
        load_ticket(tmp_path / "custom.ticket")
    loaded = load_ticket(tmp_path / "custom.ticket", custom_objects={"Doubled": Doubled}, masked=True)
    assert type(loaded.get_layer("doubled")) is Doubled


class Projected(keras.layers.Layer):
    """A block with a layer to mask."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.dense = keras.layers.Dense(units)

    def build(self, shape):
        self.dense.build(shape)

    def call(self, inputs):
        return self.dense(inputs)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def test_find_user_classes_inside_of_others(tmp_path):
    plain = keras.Sequential([keras.Input((2, 4)), keras.layers.TimeDistributed(Projected(3))])
    own = {"Projected": Projected}
    with keras.saving.custom_object_scope(own):
        save_ticket(mask_model(plain, k=0.5, seed=1), tmp_path / "custom.ticket")
    loaded = load_ticket(tmp_path / "custom.ticket", custom_objects=own, masked=True)
    assert len(keras_popup.conversion.masked_layers(loaded)) == 1


class Doubled(keras.layers.Layer):
    def call(self, inputs):
        return inputs * 2.0
