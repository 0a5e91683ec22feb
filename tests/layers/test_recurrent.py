"""Recurrent layers, whose cells have masked kernels."""

import keras
import numpy as np
import pytest
from converted import random, spread

from keras_popup import mask_model, mask_summary, strip_masks
from keras_popup.conversion import masked_kernels

RECURRENT = {
    "lstm": lambda: keras.layers.LSTM(3, name="layer"),
    "gru": lambda: keras.layers.GRU(3, name="layer"),
    "simple": lambda: keras.layers.SimpleRNN(3, name="layer"),
    "rnn": lambda: keras.layers.RNN(keras.layers.LSTMCell(3, name="cell"), name="layer"),
    "stacked": lambda: keras.layers.RNN([keras.layers.GRUCell(3), keras.layers.LSTMCell(3)], name="layer"),
    "bidirectional": lambda: keras.layers.Bidirectional(keras.layers.LSTM(3), name="layer"),
}


def recurrent(name):
    inputs = keras.Input((5, 4))
    return keras.Model(inputs, keras.layers.Dense(2)(RECURRENT[name]()(inputs)))


@pytest.mark.parametrize("name", RECURRENT)
@pytest.mark.parametrize("selector", ["top_k", "bernoulli"])
def test_recurrent_layers_train_and_come_back(name, selector, tmp_path):
    plain = recurrent(name)
    model = spread(mask_model(plain, k=0.5, selector=selector, seed=1))
    x = random(3, 5, 4)
    names = [kernel.name for _, kernel in masked_kernels(model)]
    assert names.count("recurrent_kernel") == len(names) // 2
    model.compile("sgd", "mse")
    model.train_on_batch(x, np.ones((3, 2)))
    for _, kernel in masked_kernels(model):
        if kernel.draws is not None:
            assert int(kernel.draws) == 1  # once a call, not once a time step
    expected = model.predict(x, verbose=0)
    model.save(tmp_path / "model.keras")
    for other in (keras.models.load_model(tmp_path / "model.keras"), strip_masks(model)):
        np.testing.assert_allclose(other.predict(x, verbose=0), expected, atol=1e-6)


def test_recurrent_layer_chooses_once_a_call(monkeypatch):
    model = mask_model(recurrent("lstm"), k=0.5, seed=1)
    chosen = []
    selector = next(kernel.selector for _, kernel in masked_kernels(model))
    choose = type(selector).masked_kernel
    monkeypatch.setattr(type(selector), "masked_kernel", lambda *args, **kw: chosen.append(1) or choose(*args, **kw))
    model(random(3, 5, 4))
    assert len(chosen) == 3  # two of the cell, one of the Dense; five time steps


def test_recurrent_kernels_have_paths_of_their_own():
    plain = recurrent("lstm")
    model = mask_model(plain, k={"layer/lstm_cell/recurrent_kernel": 0.25, "layer/cell": 0.75, "*": 0.5}, seed=1)
    rows = {row.path: row.k for row in mask_summary(model, print_fn=len).layers}
    assert rows == {"layer/lstm_cell/kernel": 0.75, "layer/lstm_cell/recurrent_kernel": 0.25, "dense": 0.5}
    kept = mask_model(plain, k=0.5, weights="keep", exclude="layer/lstm_cell/recurrent_kernel", seed=1)
    assert [path for path, _ in masked_kernels(kept)] == ["layer/lstm_cell", "dense"]
    assert sorted(v.name for v in kept.trainable_variables) == ["recurrent_kernel", "scores", "scores"]
    x = random(3, 5, 4)
    np.testing.assert_array_equal(strip_masks(kept)(x), kept(x))
