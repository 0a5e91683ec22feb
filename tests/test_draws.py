"""Evaluation by the mean over drawn masks."""

import keras
import numpy as np
import pytest
from supermasks import trained

import keras_popup
from keras_popup import selectors


@pytest.mark.parametrize("rescale", [False, True])
def test_evaluate_draws_gives_what_is_computed_by_hand(rescale):
    """The same numbers come from forward passes written here, with the masks of `Bernoulli` and NumPy."""
    model, inputs = trained(rescale)
    before = model.get_weights()
    found = keras_popup.evaluate_draws(model, inputs, draws=4, seed=7, y=inputs, batch_size=5)
    assert found["loss"].shape == found["mae"].shape == (4,)
    assert len(set(found["mae"])) == 4
    again = keras_popup.evaluate_draws(model, inputs, draws=2, seed=7, y=inputs, batch_size=5)
    assert np.array_equal(again["mae"], found["mae"][:2])
    assert not np.array_equal(keras_popup.evaluate_draws(model, inputs, 4, seed=8, y=inputs)["mae"], found["mae"])
    assert all(map(np.array_equal, model.get_weights(), before))
    for draw in range(4):
        x = inputs
        for layer in model.layers:
            seed = (keras_popup.initializers.derive_seed(layer.seed, "evaluation", 7), draw)
            mask = selectors.Bernoulli()(layer.scores.numpy(), training=True, seed=seed).numpy()
            x = x @ (layer.frozen_kernel.numpy() * mask * (mask.size / mask.sum() if rescale else 1.0))
            x = np.maximum(x, 0) if layer is model.layers[0] else x
        assert found["mae"][draw] == pytest.approx(np.abs(x - inputs).mean(), rel=1e-4)


def test_evaluate_draws_with_any_loss_and_a_penalty():
    """Functions of the user's own, and the same loss as `evaluate` where all draws are the mask of evaluation."""

    def own_loss(y, outputs):
        return keras.ops.mean(keras.ops.square(y - outputs), axis=-1)

    model, inputs = trained(scores_regularizer=keras.regularizers.L2(0.01))
    model.compile("sgd", own_loss, metrics=[own_loss])
    for layer in model.layers:
        layer.scores.assign(np.where(layer.mask().numpy(), 50.0, -50.0))
    expected = model.evaluate(inputs, inputs, verbose=0)
    found = keras_popup.evaluate_draws(model, inputs, draws=2, seed=1, y=inputs)
    assert found["loss"].tolist() == pytest.approx([expected[0]] * 2)
    assert expected[0] > 100
    for layer in model.layers:  # as they begin, and stay where no gradient comes
        layer.scores.assign(np.zeros_like(layer.scores))
    model.compile(loss="mse", metrics=["mse"])
    found = keras_popup.evaluate_draws(model, inputs, draws=2, seed=1, y=inputs)
    assert found["loss"].tolist() == pytest.approx(found["mse"].tolist())


def test_evaluate_draws_gives_scores_back_after_an_error():
    model, inputs = trained()
    before = model.get_weights()
    with pytest.raises(Exception):  # noqa: B017, PT011  whatever Keras says of inputs of another shape
        keras_popup.evaluate_draws(model, inputs[:, :4], seed=1, y=inputs)
    assert all(map(np.array_equal, model.get_weights(), before))


def test_evaluate_draws_refuses_what_cannot_be_had():
    model, inputs = trained()
    with pytest.raises(ValueError, match="an iterator, which can be read once"):
        keras_popup.evaluate_draws(model, iter([(inputs, inputs)]), seed=1)
    with pytest.raises(ValueError, match="`draws` must be a positive integer"):
        keras_popup.evaluate_draws(model, inputs, draws=0, seed=1)
    with pytest.raises(ValueError, match="`seed` must be"):
        keras_popup.evaluate_draws(model, inputs, seed=-1)
    of_top_k = keras_popup.mask_model(keras_popup.models.FullyConnected(), seed=1)
    with pytest.raises(ValueError, match="draws no masks"):
        keras_popup.evaluate_draws(of_top_k, inputs, seed=1)
    of_top_k = keras_popup.mask_model(keras_popup.models.FullyConnected(), selector="bernoulli", seed=1)
    with pytest.raises(ValueError, match="not compiled"):
        keras_popup.evaluate_draws(of_top_k, inputs, seed=1)
