"""fold_norms: BatchNormalization with two numbers per channel, and the same outputs."""

import keras
import numpy as np
import pytest
from blocks import Classifier

import keras_popup
from keras_popup.conversion import comparison, fold_norms, norms

L = keras.layers


def _residual():
    """Norms of all kinds: without gamma, without beta, without both, shared, over another axis, of an inner model."""
    inputs = keras.Input((8, 8, 3))
    x = L.Conv2D(6, 3, padding="same", use_bias=False)(inputs)
    x = shared = (norm := L.BatchNormalization(epsilon=0.1, name="shared"))(x)
    x = L.BatchNormalization(scale=False, name="centered")(L.ReLU()(x))
    x = L.BatchNormalization(center=False, name="scaled")(L.Conv2D(6, 3, padding="same")(x))
    x = L.add([norm(x), shared])
    x = L.BatchNormalization(center=False, scale=False, name="bare")(x)
    x = L.BatchNormalization(axis=1, name="rows")(x)
    inner = keras.Sequential([keras.Input((8, 8, 6)), L.BatchNormalization(name="inside"), L.Flatten()], name="inner")
    return keras.Model(inputs, L.Dense(4, name="classes")(inner(x)))


MODELS = {
    "residual": _residual,
    "masked": lambda: keras_popup.mask_model(_residual(), k=0.5, weights="keep", seed=1),
    "resnet8": lambda: keras_popup.mask_model(
        keras_popup.models.ResNet8((8, 8, 3), classes=3, width=0.25), k=0.5, train_norms=True, seed=1
    ),
    "no norm": lambda: keras_popup.models.FullyConnected((8, 8, 3), classes=4, width=0.1),
}


def _randomize(model):
    rng = np.random.default_rng(3)
    for layer in model._flatten_layers():
        if isinstance(layer, L.BatchNormalization):
            for variable in layer.variables:
                variable.assign(rng.uniform(0.2, 3, variable.shape) * (1 if "variance" in variable.path else -1))
    return model


def _norms(model):
    return {each.path: each for each in model._flatten_layers() if isinstance(each, L.BatchNormalization)}


@pytest.mark.parametrize("name", MODELS)
def test_outputs_stay(name):
    model = _randomize(MODELS[name]())
    before = [variable.numpy() for variable in model.variables]
    folded = fold_norms(model)
    x = np.random.default_rng(5).normal(size=(16, 8, 8, 3)).astype(np.float32)
    expected = model.predict(x, verbose=0)
    np.testing.assert_allclose(folded.predict(x, verbose=0), expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)
    for layer in _norms(folded).values():
        if layer.scale:
            np.testing.assert_array_equal(layer.moving_variance, np.float32(1 - layer.epsilon))
        if layer.center:
            np.testing.assert_array_equal(layer.moving_mean, 0)


def test_norms_without_gamma_and_beta_stay():
    model = _randomize(_residual())
    before, after = _norms(model)["bare"], _norms(fold_norms(model))["bare"]
    np.testing.assert_array_equal(after.moving_mean, before.moving_mean)
    np.testing.assert_array_equal(after.moving_variance, before.moving_variance)


def test_folding_twice_is_folding_once():
    once = fold_norms(_randomize(_residual()))
    twice = fold_norms(once)
    for first, second in zip(once.variables, twice.variables, strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-6)


def test_other_outputs_are_an_error(monkeypatch):
    monkeypatch.setattr(norms, "_fold", lambda norm: norm.moving_mean.assign(norm.moving_mean + 1.0))
    with pytest.raises(RuntimeError, match="With folded norms, model '.*' gives other outputs.*leave out `fold_norms`"):
        fold_norms(_randomize(_residual()))


def test_model_without_known_inputs_is_refused():
    model = Classifier(3)
    model(np.zeros((1, 6, 6, 3), np.float32))
    with pytest.raises(ValueError, match="needs a model that knows its inputs.*Received: model '.*', Classifier"):
        fold_norms(model)


def test_ticket_with_folded_norms_is_smaller(tmp_path):
    model = _randomize(MODELS["resnet8"]())
    whole = keras_popup.save_ticket(model, tmp_path / "whole.ticket")
    info = keras_popup.save_ticket(model, tmp_path / "folded.ticket", fold_norms=True)
    channels = sum(layer.gamma.shape[0] for layer in _norms(model).values())
    assert whole.bytes - info.bytes > 2 * 4 * channels * 0.8
    plain = keras_popup.load_ticket(tmp_path / "folded.ticket")
    (batch,) = comparison.draw_inputs(model)
    folded = keras_popup.strip_masks(fold_norms(model))
    np.testing.assert_array_equal(plain.predict(batch, verbose=0), folded.predict(batch, verbose=0))
    np.testing.assert_allclose(plain.predict(batch, verbose=0), model.predict(batch, verbose=0), rtol=1e-4, atol=1e-4)
    masked = keras_popup.load_ticket(tmp_path / "folded.ticket", masked=True)
    assert keras_popup.compare_masks(model, masked).iou == 1
