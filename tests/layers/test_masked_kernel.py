"""Kernels with scores: fans, channels, hints, and several of them in one layer."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from converted import random, spread
from tables import INDICES, SEVERAL_KERNELS, every_layer, small_model

from keras_popup import layers, load_ticket, save_ticket, strip_masks
from keras_popup.conversion import masked_kernels
from keras_popup.selectors import plain


@pytest.mark.parametrize(
    ("layer", "input_shape", "fans"),
    [
        (layers.MaskedDense(4), (2, 5), (5, 4)),
        (layers.MaskedConv2D(8, 3), (1, 5, 5, 6), (54, 72)),
        (layers.MaskedConv2D(8, 3, groups=2), (1, 5, 5, 6), (27, 72)),
        (layers.MaskedDepthwiseConv2D(3, depth_multiplier=2), (1, 5, 5, 6), (9, 18)),
        (layers.MaskedDepthwiseConv1D(4), (1, 5, 6), (4, 4)),
        (layers.MaskedConv2DTranspose(8, 3), (1, 5, 5, 6), (54, 72)),
        (layers.MaskedEinsumDense("abc,cde->abde", (None, 2, 3)), (1, 5, 4), (4, 6)),
        (layers.MaskedEinsumDense("abde,dec->abc", (None, 7)), (1, 5, 2, 3), (6, 7)),
    ],
)
def test_masked_kernel_knows_its_fans(layer, input_shape, fans):
    layer.build(input_shape)
    np.testing.assert_allclose(np.abs(layer.frozen_kernel.numpy()), np.sqrt(2 / fans[0]), rtol=1e-6)
    assert layer.masked_kernels["kernel"].fans() == fans
    limit = np.sqrt(1 / fans[0])
    assert 0.5 * limit < np.abs(layer.scores.numpy()).max() <= limit


def test_masked_kernel_that_is_scaled_is_that_of_the_first_k():
    layer = layers.MaskedDense(
        4, kernel_initializer={"class_name": "keras_popup>SignedConstant", "config": {"scaled": True}}, k=0.5, seed=1
    )
    layer.build((None, 8))
    np.testing.assert_allclose(np.abs(layer.frozen_kernel.numpy()), np.sqrt(2 / 8 / 0.5), rtol=1e-6)
    layer.k = 0.25
    clone = layers.MaskedDense.from_config(layer.get_config())
    clone.build((None, 8))
    np.testing.assert_array_equal(clone.frozen_kernel.numpy(), layer.frozen_kernel.numpy())
    assert clone.k == 0.25


@pytest.mark.parametrize("channels", [None, 0])
def test_masked_kernel_refuses_unknown_channels_and_none(channels):
    with pytest.raises((ValueError, TypeError), match="channels are known and not 0|None"):
        layers.MaskedDense(4, name="x").build((None, channels))


@pytest.mark.parametrize("use", ["predict", "evaluate"])
def test_masked_kernel_remembers_where_to_look_for_inference(use):
    layer = layers.MaskedDense(50, k=0.3, seed=1)
    model = keras.Sequential([keras.Input((60,)), layer])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    x, y = np.ones((8, 60), np.float32), np.ones((8, 50), np.float32)
    model.fit(x, y, verbose=0)
    {"predict": model.predict, "evaluate": lambda *args, **kwargs: model.evaluate(x, y, **kwargs)}[use](x, verbose=0)
    ranks = plain.rank_scores(tf.reshape(layer.scores.value, [-1]))
    assert int(layer.masked_kernels["kernel"]._hint) == int(plain.find_threshold(ranks, tf.constant(layer.kept)).hint)


@every_layer
def test_channel_axes_are_those_of_the_outputs(case):
    """Without the kernel of one output channel that channel's outputs are 0, and no others."""
    linear = {name: None for name in ("activation", "bias_axes") if name in case.arguments}
    model = small_model(case, k=1.0, **linear, **({"use_bias": False} if "use_bias" in case.arguments else {}))
    layer = model.layers[-1]
    rows, columns = layer.masked_kernels["kernel"].channel_axes()
    assert not set(rows) & set(columns) or case.kernel_argument == "depthwise"
    kernel = np.ones(layer.scores.shape, np.float32)
    kernel[tuple(0 if axis in columns else slice(None) for axis in range(kernel.ndim))] = 0
    layer.frozen_kernel.assign(kernel)
    outputs = model(np.ones((1, *case.input_shape[1:]), np.float32)).numpy()
    channels = outputs.reshape(-1, np.prod([kernel.shape[axis] for axis in columns]))
    assert not channels[:, 0].any()
    assert channels[:, 1:].any(axis=0).all()


def draw_inputs(case):
    if case in [row.values[0] for row in INDICES]:
        return np.random.default_rng(0).integers(0, 9, case.input_shape)
    return random(*case.input_shape)


other_layers = pytest.mark.parametrize("case", [*SEVERAL_KERNELS, *INDICES])


@other_layers
def test_masked_kernels_equal_those_of_the_stock_layer(case):
    x = draw_inputs(case)
    model = spread(small_model(case))
    layer = model.layers[-1]
    twin = case.stock(**{"use_bias": False, **case.arguments} if "filters" in case.arguments else case.arguments)
    twin.build(case.input_shape)
    baked = [kernel.kernel.numpy() * kernel.mask().numpy() for kernel in layer.masked_kernels.values()]
    others = [weight.numpy() for weight in layer.weights if weight.name == "bias"]
    twin.set_weights([*baked, *others])
    np.testing.assert_array_equal(layer(x), twin(x))
    for kernel in layer.masked_kernels.values():
        assert kernel.kept == int(0.4 * kernel.size + 0.5) == kernel.mask().numpy().sum()


@other_layers
def test_masked_kernels_come_back_from_files_and_tickets(case, tmp_path):
    x = draw_inputs(case)
    model = spread(small_model(case))
    expected = model(x)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    clone = keras.models.clone_model(model)
    for fresh, kernel in zip(masked_kernels(clone), masked_kernels(small_model(case)), strict=True):
        np.testing.assert_array_equal(fresh[1].kernel, kernel[1].kernel)  # of the same seed
        np.testing.assert_array_equal(fresh[1].scores, kernel[1].scores)
    clone.set_weights(model.get_weights())
    save_ticket(model, tmp_path / "model.ticket")
    for other in (
        loaded,
        clone,
        strip_masks(model),
        load_ticket(tmp_path / "model.ticket"),
        load_ticket(tmp_path / "model.ticket", masked=True),
    ):
        np.testing.assert_array_equal(other(x), expected)


def test_masked_kernels_of_a_layer_differ():
    layer = layers.MaskedSeparableConv2D(4, 1, k=0.5, seed=1)
    layer.build((None, 4, 4, 4))
    first, second = layer.masked_kernels.values()
    assert first.seed != second.seed
    assert layer.seed == first.seed == 1
    assert {name: kernel.fans() for name, kernel in layer.masked_kernels.items()} == {
        "depthwise_kernel": (1, 1),
        "pointwise_kernel": (4, 4),
    }
    with pytest.raises(AttributeError, match="several masked kernels"):
        layer.mask()
    layer.k = 0.75
    assert layer.k == {"depthwise_kernel": 0.75, "pointwise_kernel": 0.75}
    assert layer.kept == 3 + 12
