"""Models that a conversion could get wrong without a word: preprocessing, sharing, freezing, odd configs."""

import logging

import blocks
import keras
import numpy as np
import pytest
from converted import fit_once, masked_layers, moved
from tables import plain_model

from keras_popup import layers, mask_model, strip_masks
from keras_popup.exports import api
from keras_popup.layers import tree


def random(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def agree(a, b, x):
    np.testing.assert_allclose(a.predict(x, verbose=0), b.predict(x, verbose=0), atol=1e-6)


def test_adapted_normalization(tmp_path):
    normalization = keras.layers.Normalization()
    normalization.adapt(50 + 3 * random(50, 8))
    inputs = keras.Input((8,))
    plain = keras.Model(inputs, keras.layers.Dense(3)(normalization(inputs)))
    x = 50 + 3 * random(4, 8)
    masked = mask_model(plain, k=1.0, weights="keep", seed=1)
    agree(masked, plain, x)
    agree(strip_masks(masked), plain, x)
    keras.config.set_dtype_policy("mixed_bfloat16")
    half = mask_model(keras.Sequential([keras.Input((8,)), normalization, keras.layers.Dense(32)]), k=0.5, seed=1)
    for path in ("saved", "model.tflite", "model.onnx"):
        assert api.export(half, tmp_path / path, inputs=x).difference < 1e-5


def test_vocabulary(tmp_path):
    lookup = keras.layers.IntegerLookup()
    lookup.adapt(np.array([7, 7, 9, 11]))
    inputs = keras.Input((2,), dtype="int64")
    x = keras.layers.Flatten()(keras.layers.Embedding(4, 3)(lookup(inputs)))
    plain = keras.Model(inputs, keras.layers.Dense(3)(x))
    words = np.array([[7, 9], [11, 5]])
    masked = mask_model(plain, k=1.0, weights="keep", seed=1)
    agree(masked, plain, words)
    agree(strip_masks(masked), plain, words)
    assert api.export(masked, tmp_path / "saved", inputs=words).difference <= 1e-5


@pytest.mark.parametrize("exclude", [(), "first"])
def test_normalizations_in_code(exclude):
    plain = moved(keras.Sequential([keras.Input((4,)), blocks.NormalizedTwice(name="block")]))
    masked = mask_model(plain, k=0.5, exclude=exclude, seed=1)
    given, norm = plain.layers[0].first, masked.layers[0].first
    assert masked.layers[0].again[0] is norm
    assert type(masked.layers[0].dense) is layers.MaskedDense
    if exclude:
        for a, b in zip(norm.get_weights(), given.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
    else:  # anew, and frozen
        values = {v.name: v.numpy().tolist() for v in norm.weights}
        assert values == {"gamma": [1] * 4, "beta": [0] * 4, "moving_mean": [0] * 4, "moving_variance": [1] * 4}
        masked.trainable = False
        masked.trainable = True
        assert [v.name for v in masked.trainable_variables] == ["scores"]


def shared_models():
    dense, inputs = keras.layers.Dense(4, name="shared"), keras.Input((3, 4))
    nested = keras.Input((4,))
    submodel = keras.Model(nested, keras.layers.Dense(4)(dense(nested)))
    mean = keras.layers.GlobalAveragePooling1D()(inputs)
    for holder in (
        keras.layers.TimeDistributed(dense),
        keras.layers.TimeDistributed(submodel),
        blocks.Residual(keras.Sequential([dense, keras.layers.ReLU()])),
    ):
        yield keras.Model(inputs, [keras.layers.Dense(2)(holder(inputs)), dense(mean)])


@pytest.mark.parametrize("number", range(3))
def test_shared_across_a_border(number):
    plain = moved(list(shared_models())[number])
    x = random(4, 3, 4)
    masked = mask_model(plain, k=1.0, weights="keep", seed=1)
    for a, b in zip(masked.predict(x, verbose=0), plain.predict(x, verbose=0), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    stripped = strip_masks(mask_model(plain, k=0.5, seed=1))
    kernels = [v for v in stripped.weights if v.name == "kernel"]
    assert len({id(v) for v in kernels}) == len(kernels) == len([v for v in plain.weights if v.name == "kernel"])


def test_masks_shared_across_a_border_are_stripped():
    dense, inputs = layers.MaskedDense(4, seed=1), keras.Input((3, 4))
    once = dense(keras.layers.GlobalAveragePooling1D()(inputs))
    masked = keras.Model(inputs, [keras.layers.TimeDistributed(dense)(inputs), once])
    x = random(2, 3, 4)
    for a, b in zip(strip_masks(masked).predict(x, verbose=0), masked.predict(x, verbose=0), strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_cannot_be_copied_is_masked_in_place():
    class Closed(keras.layers.Layer):
        def __init__(self, function):
            super().__init__()
            self.function = function
            self.dense = keras.layers.Dense(4)

        def call(self, x):
            return self.function(self.dense(x))

    inputs = keras.Input((4,))
    plain = moved(keras.Model(inputs, keras.layers.Dense(2)(Closed(lambda x: 2 * x)(inputs))))
    x = random(3, 4)
    before = plain(x)
    with pytest.raises(TypeError, match="(?s)Closed 'closed' cannot be copied from its config.*`copy=False`"):
        mask_model(plain, k=0.5, seed=1)
    assert mask_model(plain, k=1.0, weights="keep", seed=1, copy=False) is plain
    assert len(masked_layers(plain)) == 2
    np.testing.assert_array_equal(plain(x), before)
    assert strip_masks(plain, copy=False) is plain
    assert not masked_layers(plain)
    np.testing.assert_array_equal(plain(x), before)


def test_lambda():
    inputs, nested = keras.Input((3, 4)), keras.Input((4,))
    inner = keras.Model(nested, keras.layers.Lambda(lambda x: 2 * x, name="twice")(keras.layers.Dense(4)(nested)))
    plain = keras.Model(inputs, keras.layers.TimeDistributed(inner)(inputs))
    masked = mask_model(plain, k=1.0, weights="keep", seed=1)
    assert len(masked_layers(masked)) == 1
    x = random(2, 3, 4)
    agree(masked, plain, x)
    agree(strip_masks(masked), plain, x)
    assert api._convert_to_float32(masked) is masked


def test_frozen_parts_stay_frozen_in_files(tmp_path):
    plain = plain_model("block_of_blocks")
    masked = mask_model(plain, k=0.5, weights="keep", seed=1)
    assert {v.name for v in masked.trainable_variables} == {"scores"}
    masked.save(tmp_path / "model.keras")
    for again in (keras.models.load_model(tmp_path / "model.keras"), keras.models.clone_model(masked)):
        assert {v.name for v in again.trainable_variables} == {"scores"}
        before = [v.numpy() for v in again.non_trainable_variables]
        fit_once(again, [random(4, 6, 8)])
        for a, b in zip(before, again.non_trainable_variables, strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_model_that_is_not_built():
    for weights in ("random", "keep"):
        with pytest.raises(ValueError, match="is not built.*Call it on data first, or give it an Input"):
            mask_model(keras.Sequential([blocks.Encoder(2)]), k=0.5, weights=weights, seed=1)


@keras.saving.register_keras_serializable("tests")
class Popping(keras.layers.Layer):
    """Takes its config apart, as many do. Holds a tuple, and reads a bias of a layer that it holds."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.pair = (keras.layers.Dense(units), keras.layers.BatchNormalization())

    def call(self, x, training=None):
        return self.pair[1](self.pair[0](x), training=training)

    def get_config(self):
        return {**super().get_config(), "units": self.units}

    @classmethod
    def from_config(cls, config):
        return cls(config.pop("units"), **config)


@pytest.mark.filterwarnings("ignore:.*`build\\(\\)` was called on layer:UserWarning")
def test_configs_are_not_used_up(tmp_path):
    inputs = keras.Input((4,))
    plain = moved(keras.Model(inputs, Popping(3, name="popping")(inputs)))
    masked = mask_model(plain, k={"popping/pair/0": 0.5}, seed=1)
    assert len(masked_layers(masked)) == 1
    x = random(4, 4)
    masked.save(tmp_path / "model.keras")
    agree(keras.models.load_model(tmp_path / "model.keras"), masked, x)
    agree(strip_masks(masked), masked, x)
    agree(strip_masks(masked), masked, x)


@keras.saving.register_keras_serializable("tests")
class Bare(keras.layers.Layer):
    """Its constructor takes nothing of Keras's own, and its attributes have names that others use."""

    def __init__(self, units):
        super().__init__()
        self.units = units
        self._stock, self._exchange, self._frozen = keras.layers.Dense(units), {}, False

    def build(self, shape):
        self._stock.build(shape)

    def call(self, x):
        return self._stock(x)

    def get_config(self):
        return {"units": self.units}


def test_a_constructor_without_keyword_arguments(tmp_path):
    inputs = keras.Input((4,))
    masked = mask_model(keras.Model(inputs, Bare(3)(inputs)), k=0.5, seed=1)
    masked.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert len(masked_layers(loaded)) == 1
    agree(loaded, masked, random(4, 4))
    agree(strip_masks(loaded), masked, random(4, 4))


def test_a_subclassed_model_compiled_with_a_loss_of_its_own(tmp_path):
    plain = plain_model("subclassed")
    plain.compile("sgd", lambda y, p: keras.ops.mean(y - p))
    masked = mask_model(plain, k=0.5, seed=1)
    assert not masked.compiled
    masked.compile("sgd", "mse")
    masked.save(tmp_path / "model.keras")
    agree(keras.models.load_model(tmp_path / "model.keras"), masked, random(2, 6, 6, 3))


def test_a_class_that_is_lost_is_named(caplog):
    class Own(keras.Model):
        def __init__(self, units):
            inputs = keras.Input((4,))
            super().__init__(inputs, keras.layers.Dense(units)(inputs))

    with caplog.at_level(logging.WARNING, "keras_popup"):
        mask_model(Own(3), k=0.5, seed=1)
    assert "(Own) is a Functional: it lacks the methods and attributes that its class adds" in caplog.text


def test_code_that_reads_a_bias():
    class Reads(keras.layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.dense = keras.layers.Dense(3)

        def call(self, x):
            return self.dense(x) + self.dense.bias

    inputs = keras.Input((4,))
    plain = moved(keras.Model(inputs, Reads()(inputs)))
    masked = mask_model(plain, k=0.5, seed=1)
    assert not masked.layers[1].dense.bias.numpy().any()
    assert [v.name for v in masked.trainable_variables] == ["scores"]
    trained = mask_model(plain, k=0.5, train_biases=True, seed=1)
    assert sorted(v.name for v in trained.trainable_variables) == ["bias", "scores"]


@pytest.mark.parametrize("exclude", [None, 3, [3]])
def test_exclude_of_a_wrong_type(exclude):
    plain = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    with pytest.raises(TypeError, match="`exclude` must be a pattern"):
        mask_model(plain, k=0.5, exclude=exclude, seed=1)
    with pytest.raises(ValueError, match="must have layers of the model only"):
        mask_model(plain, k=0.5, exclude=[keras.layers.Dense(3)], seed=1)


def test_paths_are_of_names_that_stay():
    first, second = (plain_model("block_of_blocks") for _ in range(2))
    assert [path for path, _ in tree.walk(first)][1:] == [path for path, _ in tree.walk(second)][1:]
    for a, b in zip(*(masked_layers(mask_model(m, k=0.5, seed=1)) for m in (first, second)), strict=True):
        np.testing.assert_array_equal(a.frozen_kernel, b.frozen_kernel)


@keras.saving.register_keras_serializable("tests")
class OddlyHeld(keras.layers.Layer):
    """Holds a layer under a key that is neither a name nor a number."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.held = {("a", 1): keras.layers.Dense(4)}
        self.second = keras.layers.Dense(4)

    def build(self, shape):
        self.held["a", 1].build(shape)
        self.second.build(shape)
        self.built = True

    def call(self, inputs):
        return self.second(self.held["a", 1](inputs))


def test_layers_held_in_an_unknown_way_are_masked():
    inputs = keras.Input((4,))
    plain = moved(keras.Model(inputs, OddlyHeld()(inputs)))
    model = mask_model(plain, k=1.0, weights="keep", seed=1)
    x = np.random.default_rng(0).random((2, 4)).astype(np.float32)
    assert len(masked_layers(model)) == 2
    np.testing.assert_array_equal(model(x), plain(x))
    np.testing.assert_array_equal(strip_masks(model)(x), plain(x))
