"""finetune: weights trained inside of a mask, with zeros that stay zeros."""

import keras
import numpy as np
import pytest
from tables import every_model

import keras_popup
from keras_popup import conversion, criteria, layers, selectors

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(32, 8)).astype("float32"), RNG.normal(size=(32, 3)).astype("float32")
SELECTORS = {"top_k": "top_k", "bernoulli": "bernoulli", "rescaled": selectors.Bernoulli(rescale=True)}


def plain():
    hidden = keras.layers.Dense(16, activation="relu", kernel_regularizer="l2")
    return keras.Sequential([keras.Input((8,)), hidden, keras.layers.Dense(3)])


def constructed(selector):
    hidden = layers.MaskedDense(16, activation="relu", use_bias=True, selector=selector, seed=1)
    model = keras.Sequential([keras.Input((8,)), hidden, layers.MaskedDense(3, selector=selector, seed=2)])
    model(X)
    return model


def masked(kind, selector="top_k"):
    model = constructed(selector) if kind == "constructed" else None
    model = model or keras_popup.mask_model(plain(), k=0.4, selector=selector, weights=kind, seed=1)
    for layer in keras_popup.masked_layers(model):
        layer.scores.assign(np.random.default_rng(3).normal(size=layer.scores.shape))
    return model


def masks_of(model):
    return [kernel.mask().numpy() for _, kernel in conversion.masked_kernels(model)]


def trained_names(model):
    return [weight.path.split("/")[-2:] for weight in model.trainable_weights]


def fit(model, epochs=8):
    model.compile(keras.optimizers.AdamW(0.02), "mse")
    before = model.evaluate(X, Y, verbose=0)
    model.fit(X, Y, epochs=epochs, verbose=0, shuffle=False)
    assert model.evaluate(X, Y, verbose=0) < before


@pytest.mark.parametrize("selector", SELECTORS.values(), ids=SELECTORS)
@pytest.mark.parametrize("kind", ["constructed", "random", "keep"])
def test_finetune_keeps_zeros_everywhere(kind, selector, tmp_path):
    model = masked(kind, selector)
    before, masks = model(X).numpy(), masks_of(model)
    tuned = keras_popup.finetune(model)
    np.testing.assert_allclose(tuned(X), before, rtol=1e-6)
    fit(tuned)
    np.testing.assert_array_equal(model(X), before)  # a copy was trained
    assert all(map(np.array_equal, masks_of(tuned), masks))
    stripped = keras_popup.strip_masks(tuned)
    np.testing.assert_array_equal(stripped(X), tuned(X))
    for layer, mask in zip(keras_popup.masked_layers(tuned), masks, strict=True):
        kernel = stripped.get_layer(layer.name).kernel.numpy()
        assert not kernel[mask == 0].any()
        assert kernel[mask == 1].all()
    keras_popup.save_ticket(tuned, tmp_path / "a.ticket")
    np.testing.assert_array_equal(keras_popup.load_ticket(tmp_path / "a.ticket")(X), stripped(X))
    again = keras_popup.load_ticket(tmp_path / "a.ticket", masked=True)
    np.testing.assert_allclose(again(X), stripped(X), rtol=1e-5, atol=1e-6)
    tuned.save(tmp_path / "a.keras")
    loaded = keras.models.load_model(tmp_path / "a.keras")
    np.testing.assert_array_equal(loaded(X), tuned(X))
    assert trained_names(again) == trained_names(loaded) == trained_names(tuned)
    assert {name for _, name in trained_names(tuned)} <= {"kernel", "bias"}
    for each in (tuned, loaded):  # goes on alike
        each.fit(X, Y, epochs=1, verbose=0, shuffle=False)
    np.testing.assert_allclose(loaded(X), tuned(X), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("selector", SELECTORS.values(), ids=SELECTORS)
def test_finetune_of_masks_too(selector):
    model = masked("keep", selector)
    masks = masks_of(model)
    tuned = keras_popup.finetune(model, train_masks=True, copy=False)
    assert tuned is model
    kernels = [kernel.kernel.numpy() for _, kernel in conversion.masked_kernels(model)]
    fit(tuned)
    assert not all(map(np.array_equal, masks_of(tuned), masks))
    assert not all(
        map(np.array_equal, [kernel.kernel.numpy() for _, kernel in conversion.masked_kernels(tuned)], kernels)
    )
    np.testing.assert_array_equal(keras_popup.strip_masks(tuned)(X), tuned(X))


def test_finetune_trains_the_kernel_by_the_formula():
    """dL/dw = dL/d(w * m) * m, and for the scores the formula of edge-popup."""
    import tensorflow as tf

    model = keras_popup.finetune(masked("keep"), train_masks=True)
    layer = keras_popup.masked_layers(model)[-1]
    x, upstream = RNG.normal(size=(5, 16)).astype("float32"), RNG.normal(size=(5, 3)).astype("float32")
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(x, training=True) * upstream)
    of_scores, of_kernel = tape.gradient(loss, [layer.scores.value, layer.frozen_kernel.value])
    of_product, mask = x.T @ upstream, layer.mask().numpy()
    np.testing.assert_allclose(of_kernel, of_product * mask, rtol=1e-4)
    expected = of_product * layer.frozen_kernel.numpy() * np.sign(layer.scores.numpy())
    np.testing.assert_allclose(of_scores, expected, rtol=1e-4)


def test_finetune_has_the_regularizers_of_masked_kernels_once():
    model = masked("keep")
    expected = float(sum(model.losses))
    for train_masks in (False, True):
        tuned = keras_popup.finetune(model, train_masks=train_masks)
        assert float(sum(tuned.losses)) == pytest.approx(expected)
    plain_again = keras_popup.strip_masks(tuned)
    assert float(sum(plain_again.losses)) == pytest.approx(expected)


@every_model
def test_finetune_of_every_model(case):
    model = keras_popup.mask_model(case.make(), k=0.5, weights="keep", seed=1)
    number = len(model.trainable_weights)
    tuned = keras_popup.finetune(model)
    assert len(tuned.trainable_weights) == number
    kernels = {id(kernel.kernel) for _, kernel in conversion.masked_kernels(tuned)}
    assert kernels <= {id(weight) for weight in tuned.trainable_weights}
    tuned.trainable = False
    tuned.trainable = True  # scores that are fixed stay fixed
    scores = {id(kernel.scores) for _, kernel in conversion.masked_kernels(tuned)}
    assert not scores & {id(weight) for weight in tuned.trainable_weights}
    again = keras_popup.finetune(keras_popup.finetune(tuned, train_masks=True))
    for one, other in zip(tuned.weights, again.weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


@pytest.mark.integration
def test_finetune_of_a_lottery_ticket():
    initial = plain()
    final = keras.models.clone_model(initial)
    final.set_weights(initial.get_weights())
    final.compile("adam", "mse")
    final.fit(X, Y, epochs=3, verbose=0)
    ticket = keras_popup.finetune(criteria.mask_trained(initial, final, 0.3, "large_final", "rewound", masked=True))
    kernel = initial.layers[0].kernel.numpy()
    np.testing.assert_array_equal(ticket.layers[0].frozen_kernel.numpy(), kernel)
    chosen = criteria.choose(criteria.large_final(kernel, final.layers[0].kernel.numpy()), 0.3)
    np.testing.assert_array_equal(ticket.layers[0].mask().numpy(), chosen)
    masks = masks_of(ticket)
    fit(ticket)
    assert all(map(np.array_equal, masks_of(ticket), masks))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_save_ticket_of_finetuned_values_in_a_type_of_choice(dtype, tmp_path):
    tuned = keras_popup.finetune(masked("keep"))
    whole = keras_popup.save_ticket(tuned, tmp_path / "whole.ticket")
    small = keras_popup.save_ticket(tuned, tmp_path / "small.ticket", values_dtype=dtype)
    assert small.bytes < whole.bytes
    keras_popup.verify_ticket(tmp_path / "small.ticket")
    plain_model, rounded = keras_popup.strip_masks(tuned), keras_popup.load_ticket(tmp_path / "small.ticket")
    for one, other in zip(plain_model.weights, rounded.weights, strict=True):
        expected = keras.ops.cast(keras.ops.cast(one, dtype), "float32") if one.name == "kernel" else one
        np.testing.assert_array_equal(other.numpy(), keras.ops.convert_to_numpy(expected))


def test_save_ticket_refuses_values_that_do_not_fit(tmp_path):
    tuned = keras_popup.finetune(masked("keep"))
    tuned.layers[0].frozen_kernel.assign(np.full((8, 16), 1e6))
    with pytest.raises(ValueError, match="A weight of layer 'dense.*' is too large for float16"):
        keras_popup.save_ticket(tuned, tmp_path / "no.ticket", values_dtype="float16")
    assert not list(tmp_path.iterdir())


def test_finetune_refuses_what_has_no_masks():
    with pytest.raises(ValueError, match="has no masked layer"):
        keras_popup.finetune(plain())
    with pytest.raises(TypeError, match="keras.Model"):
        keras_popup.finetune("model")
    with pytest.raises(ValueError, match="`values_dtype` must be None or one of float16.*Received: 'int8'"):
        keras_popup.save_ticket(masked("keep"), "x.ticket", values_dtype="int8")


@pytest.mark.parametrize("train_masks", [False, True])
@pytest.mark.parametrize("kind", ["constructed", "random", "keep"])
def test_finetuned_weights_fit_into_the_masked_model_and_back(kind, train_masks, tmp_path):
    """Scores and kernel have one shape: they must not be exchanged in silence."""
    model = masked(kind)
    tuned = keras_popup.finetune(model, train_masks=train_masks)
    fit(tuned, epochs=2)
    expected = tuned(X).numpy()
    tuned.save_weights(tmp_path / "tuned.weights.h5")
    model.load_weights(tmp_path / "tuned.weights.h5")
    np.testing.assert_allclose(model(X), expected, rtol=1e-6)
    model.set_weights([weight * 0.5 for weight in tuned.get_weights()[:1]] + tuned.get_weights()[1:])
    tuned.set_weights(model.get_weights())
    np.testing.assert_allclose(tuned(X), model(X), rtol=1e-6)
    assert [weight.path for weight in tuned.weights] == [weight.path for weight in tuned.variables]
    names = [[weight.name for weight in each.weights] for each in (model, tuned)]
    assert names[0] == names[1]


def test_masked_layer_whose_kernel_and_scores_are_fixed():
    model = keras.Sequential([keras.Input((8,)), layers.MaskedDense(3, seed=1, train_scores=False)])
    assert not model.trainable_weights
    np.testing.assert_array_equal(keras_popup.strip_masks(model)(X), model(X))
    tuned = keras_popup.finetune(model)
    fit(tuned)
    assert [name for _, name in trained_names(tuned)] == ["kernel"]


@pytest.mark.integration
def test_finetune_constrains_the_weights_that_are_kept():
    hidden = keras.layers.Dense(4, kernel_constraint="unit_norm", name="hidden")
    model = keras.Sequential([keras.Input((8,)), hidden, keras.layers.Dense(3)])
    tuned = keras_popup.finetune(keras_popup.mask_model(model, k=0.6, weights="keep", seed=5))
    layer = tuned.get_layer("hidden")
    dropped = layer.mask().numpy() == 0
    before = layer.frozen_kernel.numpy()[dropped]
    fit(tuned)
    np.testing.assert_allclose(np.linalg.norm(layer.baked_kernel(), axis=0), 1, rtol=1e-5)
    tuned.compile("sgd", "mse")
    tuned.fit(X, Y, verbose=0)
    np.testing.assert_allclose(layer.frozen_kernel.numpy()[dropped], before, rtol=0.1)  # weight decay alone moves them
    assert type(keras_popup.strip_masks(tuned).get_layer("hidden").kernel.constraint).__name__ == "UnitNorm"


@pytest.mark.parametrize("copy", [True, False])
def test_stripped_model_trains_its_biases(copy):
    model = keras_popup.mask_model(plain(), k=0.9, weights="keep", seed=2)
    stripped = keras_popup.strip_masks(model, copy=copy)
    before = [layer.bias.numpy() for layer in stripped.layers]
    stripped.compile("sgd", "mse")
    stripped.fit(X, Y, verbose=0)
    assert all((layer.bias.numpy() != bias).any() for layer, bias in zip(stripped.layers, before, strict=True))
