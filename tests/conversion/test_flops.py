"""Operations of kernels, against numbers that others have published and those worked out by hand."""

import keras
import numpy as np
import pytest
from tables import every_model

import keras_popup


def functional(shape, *layers):
    inputs = keras.Input(shape)
    outputs = inputs
    for layer in layers:
        outputs = layer(outputs, outputs) if "Attention" in type(layer).__name__ else layer(outputs)
    return keras.Model(inputs, outputs)


L = keras.layers
CASES = {
    "dense": (functional((4,), L.Dense(3)), 4 * 3),
    "dense_of_rank_3": (functional((7, 4), L.Dense(3)), 7 * 4 * 3),
    "conv2d": (functional((8, 8, 3), L.Conv2D(5, 3, padding="same")), 64 * 9 * 3 * 5),
    "conv2d_strided": (functional((8, 8, 3), L.Conv2D(5, 3, strides=2)), 9 * 9 * 3 * 5),
    "conv2d_groups": (functional((8, 8, 4), L.Conv2D(6, 3, groups=2, padding="same")), 64 * 9 * 2 * 6),
    "conv1d_causal": (functional((10, 3), L.Conv1D(5, 3, padding="causal")), 10 * 3 * 3 * 5),
    "depthwise": (functional((8, 8, 3), L.DepthwiseConv2D(3, padding="same")), 64 * 9 * 3),
    "separable": (functional((8, 8, 3), L.SeparableConv2D(5, 3, padding="same")), 64 * (9 * 3 + 3 * 5)),
    "transposed": (functional((4, 4, 3), L.Conv2DTranspose(5, 3, strides=2)), 16 * 9 * 3 * 5),
    "lstm": (functional((7, 5), L.LSTM(3)), 7 * (5 * 12 + 3 * 12)),
    "gru_both_ways": (functional((7, 5), L.Bidirectional(L.GRU(3))), 2 * 7 * (5 * 9 + 3 * 9)),
    "embedding": (functional((6,), L.Embedding(9, 4), L.Flatten(), L.Dense(2)), 24 * 2),
    "einsum": (functional((6, 8), L.EinsumDense("abc,cde->abde", (None, 2, 4))), 6 * 8 * 2 * 4),
    "attention": (functional((6, 8), L.MultiHeadAttention(2, 4)), 4 * 6 * 8 * 2 * 4),
    "time_distributed": (functional((6, 5), L.TimeDistributed(L.Dense(3))), 6 * 5 * 3),
}


@pytest.mark.parametrize(("model", "products"), CASES.values(), ids=CASES)
def test_flops_are_those_worked_out_by_hand(model, products):
    assert keras_popup.flops(model).dense == keras_popup.flops(model).kept == 2 * products
    masked = keras_popup.mask_model(model, k=0.5, seed=1)
    found = keras_popup.flops(masked)
    assert found.dense == 2 * products
    assert 0.45 * found.dense <= found.kept <= 0.55 * found.dense
    assert all("call" not in vars(layer) for layer in keras_popup.masked_layers(masked))  # nothing of it stays


def test_flops_are_those_that_are_published():
    mobile = keras.applications.MobileNetV2(weights=None)
    assert keras_popup.flops(mobile).dense / 2 == pytest.approx(300e6, rel=0.005)  # arXiv 1801.04381, table 4


@every_model
def test_flops_of_every_model(case):
    plain = case.make()
    masked = keras_popup.mask_model(plain, k=0.5, seed=1)
    inputs = case.inputs(plain)
    found = keras_popup.flops(masked, inputs)
    assert 0 < found.kept < found.dense == keras_popup.flops(keras_popup.strip_masks(masked), inputs).dense
    assert f"{found.dense:,}" in str(found)


def test_flops_refuses_models_without_inputs():
    with pytest.raises(ValueError, match="is not built, or does not say what its inputs are"):
        keras_popup.flops(keras.Sequential([L.Dense(3)]))
    with pytest.raises(TypeError, match="keras.Model"):
        keras_popup.flops(np.ones(3))


def test_flops_leaves_states_as_they_are():
    inputs = keras.Input(batch_shape=(2, 6, 8))
    model = keras.Model(inputs, L.LSTM(4, stateful=True)(inputs))
    model.predict(np.ones((2, 6, 8), "float32"), verbose=0)
    before = [state.numpy() for state in model.layers[-1].states]
    assert keras_popup.flops(model).dense == 2 * 6 * (8 * 16 + 4 * 16)
    assert all(map(np.array_equal, [state.numpy() for state in model.layers[-1].states], before))


def test_flops_of_a_model_of_strings():
    inputs = keras.Input((1,), dtype="string")
    tokens = L.StringLookup(vocabulary=["a", "b"])(inputs)
    model = keras.Model(inputs, L.Dense(3)(L.Flatten()(L.Embedding(3, 4)(tokens))))
    assert keras_popup.flops(model).dense == 2 * 4 * 3
