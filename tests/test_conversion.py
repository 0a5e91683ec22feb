"""mask_model on the library's models."""

import logging

import keras
import numpy as np
import pytest
from tables import INITIALIZERS

from keras_popup import initializers, layers, mask_model, models


def masked_layers(model):
    return [layer for layer in model._flatten_layers(include_self=False) if isinstance(layer, layers.MaskedLayer)]


@pytest.mark.parametrize("name", models._MODELS)
def test_every_model(name):
    plain = models.get(name)((32, 32, 3), 10, width=0.06)
    model = mask_model(plain, k=0.3, seed=1)
    assert [layer.name for layer in model.layers] == [layer.name for layer in plain.layers]
    kernels = [v for v in plain.trainable_variables if v.name == "kernel"]
    assert [layer.scores.shape for layer in masked_layers(model)] == [v.shape for v in kernels]
    assert {v.name for v in model.trainable_variables} == {"scores"}
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert all(not layer.center and not layer.scale and layer.moving_mean is not None for layer in norms)


@pytest.mark.parametrize("name", ["fc", "conv2", "resnet18"])
def test_save_and_load(name, tmp_path):
    model = mask_model(models.get(name)((32, 32, 3), 10, width=0.06), k=0.3, seed=1)
    x = np.random.default_rng(0).standard_normal((2, 32, 32, 3)).astype(np.float32)
    expected = model.predict(x, verbose=0)
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "model.keras").predict(x, verbose=0), expected)


def test_seeds():
    def kernels(seed):
        return [layer._kernel.numpy() for layer in masked_layers(mask_model(models.Conv4(width=0.1), k=0.5, seed=seed))]

    first, again, other = kernels(1), kernels(1), kernels(2)
    for a, b, c in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(a, b)
        assert (a != c).any()
    seeds = [layer.seed for layer in masked_layers(mask_model(models.ResNet18(width=0.1), k=0.5, seed=1))]
    assert len(set(seeds)) == len(seeds)


def test_the_given_model_is_left_alone():
    plain = models.FullyConnected(width=0.1)
    before = plain.get_config(), plain.get_weights()
    mask_model(plain, k=0.5, seed=1)
    assert plain.get_config() == before[0]
    for a, b in zip(plain.get_weights(), before[1], strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", INITIALIZERS)
def test_arguments_reach_the_layers(name):
    model = mask_model(
        models.FullyConnected(width=0.1),
        k=0.25,
        kernel_initializer=initializers._INITIALIZERS[name](scaled=True),
        scores_regularizer=keras.regularizers.L2(0.1),
        seed=3,
    )
    for layer in masked_layers(model):
        assert layer.k == 0.25
        assert layer.scores_regularizer.l2 == pytest.approx(0.1)
        assert type(layer.kernel_initializer) is initializers._INITIALIZERS[name]
        assert layer.kernel_initializer.scaled
    assert len(model.losses) == 3


def test_sequential_with_biases_and_nesting(caplog):
    block = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3), keras.layers.BatchNormalization()])
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            block,
            keras.layers.Flatten(),
            keras.layers.LayerNormalization(name="norm"),
            keras.layers.Dense(3),
        ]
    )
    with caplog.at_level(logging.WARNING, "keras_popup"):
        masked = mask_model(model, k=0.5, seed=1)
    assert isinstance(masked, keras.Sequential)
    assert [type(layer).__name__ for layer in masked_layers(masked)] == ["MaskedConv2D", "MaskedDense"]
    assert not any(layer.use_bias for layer in masked_layers(masked))
    assert "norm (LayerNormalization)" in caplog.text


def test_shared_layers_stay_shared():
    inputs = [keras.Input((4,)), keras.Input((4,))]
    shared = keras.layers.Dense(3)
    model = mask_model(keras.Model(inputs, keras.layers.Add()([shared(x) for x in inputs])), k=0.5, seed=1)
    assert len(masked_layers(model)) == 1
    assert len(model.trainable_variables) == 1


def test_operations_between_layers():
    inputs = keras.Input((4,))
    outputs = keras.ops.relu(keras.layers.Dense(3)(inputs)) * 2.0 + 1.0
    model = mask_model(keras.Model(inputs, outputs), k=0.5, seed=1)
    x = np.ones((2, 4), np.float32)
    (layer,) = masked_layers(model)
    np.testing.assert_allclose(model.predict(x, verbose=0), 1 + 2 * np.maximum(layer(x), 0), rtol=1e-6)


class Doubling(keras.Sequential):
    def call(self, inputs, training=None, mask=None):
        return 2 * super().call(inputs, training=training, mask=mask)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(3)

    def call(self, inputs):
        return self.dense(inputs)


@pytest.mark.parametrize("model", [None, "conv4", keras.layers.Dense(3), Subclassed(), Doubling()], ids=repr)
def test_not_a_model_it_can_take(model):
    with pytest.raises(TypeError, match="takes a Sequential or Functional keras.Model"):
        mask_model(model, k=0.5, seed=1)


def test_errors():
    plain = models.FullyConnected(width=0.1)
    with pytest.raises(ValueError, match=r"must be a number in \(0, 1\]"):
        mask_model(plain, k=0.0, seed=1)
    with pytest.raises(ValueError, match="keeps none of the 300 weights of layer 'dense2'"):
        mask_model(plain, k=0.001, seed=1)
    with pytest.raises(ValueError, match="`seed` must be an integer"):
        mask_model(plain, k=0.5, seed=-1)
    with pytest.raises(ValueError, match="Unknown selector"):
        mask_model(plain, k=0.5, selector="best", seed=1)
    with pytest.raises(ValueError, match="Unknown initializer"):
        mask_model(plain, k=0.5, kernel_initializer="best", seed=1)
    with pytest.raises(ValueError, match="must have no seed of its own"):
        mask_model(plain, k=0.5, kernel_initializer=initializers.SignedConstant(seed=4), seed=1)
    with pytest.raises(ValueError, match="is masked already: layer 'dense1'"):
        mask_model(mask_model(plain, k=0.5, seed=1), k=0.5, seed=1)
    with pytest.raises(ValueError, match="has no layer that can be masked"):
        mask_model(keras.Sequential([keras.Input((3,)), keras.layers.ReLU()]), k=0.5, seed=1)
