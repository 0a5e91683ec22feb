"""At inference the mask is chosen once, and again after every kind of change."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from tables import SELECTORS

import keras_popup
from keras_popup.layers import exact_k, remembered

RNG = np.random.default_rng(1)
X, Y = RNG.random((16, 20), np.float32), RNG.random((16, 7), np.float32)


@pytest.fixture
def counted(monkeypatch):
    """Counts how often a masked kernel is made for more than one call."""
    made = []
    make = remembered.RememberedKernel.__init__

    def init(self, function, variables):
        make(self, lambda dtype: made.append(dtype) or function(dtype), variables)

    monkeypatch.setattr(remembered.RememberedKernel, "__init__", init)
    return made


def masked_model(jit_compile=False, **arguments):
    plain = keras.Sequential([keras.Input((20,)), keras.layers.Dense(32, activation="relu"), keras.layers.Dense(7)])
    model = keras_popup.mask_model(plain, **{"k": 0.4, "seed": 1, **arguments})
    model.compile(keras.optimizers.SGD(0.5, momentum=0.9), "mse", jit_compile=jit_compile)
    return model


def random_like(variable):
    return RNG.standard_normal(variable.shape).astype(variable.dtype)


def checkpoint(model, folder):
    saved = tf.train.Checkpoint(model=model).save(str(folder / "checkpoint"))
    before = model.predict(X, verbose=0)
    model.layers[0].scores.assign(random_like(model.layers[0].scores))
    assert np.any(model.predict(X, verbose=0) != before)
    tf.train.Checkpoint(model=model).restore(saved)


def load(model, folder):
    model.save_weights(folder / "x.weights.h5")
    before = model.predict(X, verbose=0)
    model.layers[0].scores.assign(random_like(model.layers[0].scores))
    assert np.any(model.predict(X, verbose=0) != before)
    model.load_weights(folder / "x.weights.h5")


def use_handle(operation):
    def change(model, folder):
        scores = model.layers[0].scores
        operation(resource=scores.value.handle, value=tf.constant(random_like(scores)))

    return change


CHANGES = {
    "fit": lambda model, folder: model.fit(X, Y, verbose=0),
    "train_on_batch": lambda model, folder: model.train_on_batch(X, Y),
    "set_weights": lambda model, folder: model.set_weights(
        [weight if weight.shape == (exact_k.PARTS,) else random_like(weight) for weight in model.get_weights()]
    ),
    "k": lambda model, folder: setattr(model.layers[0], "k", 0.6 - model.layers[0].k),
    "scores": lambda model, folder: model.layers[0].scores.assign(random_like(model.layers[0].scores)),
    "kernel": lambda model, folder: (
        model.layers[0].masked_kernels["kernel"].kernel.assign(random_like(model.layers[0].scores))
    ),
    "assign_operation": use_handle(tf.raw_ops.AssignVariableOp),
    "subtract_operation": use_handle(tf.raw_ops.AssignSubVariableOp),
    "load_weights": load,
    "checkpoint": checkpoint,
}


@pytest.fixture(scope="module", params=[False, True], ids=["graph", "xla"])
def used_model(request):
    model = masked_model(jit_compile=request.param)
    model.predict(X, verbose=0), model(X)
    return model


@pytest.mark.parametrize("change", CHANGES)
def test_remembered_kernel_is_right_after_a_change(change, used_model, tmp_path):
    for _ in range(2):  # the second time, memory that the first change gave back may be used again
        CHANGES[change](used_model, tmp_path)
        expected = keras_popup.strip_masks(used_model)(X)
        np.testing.assert_allclose(used_model.predict(X, verbose=0), expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(used_model(X), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("selector", SELECTORS)
def test_remembered_kernel_is_made_once(selector, counted):
    model = masked_model(selector=selector, k=0.5)
    for _ in range(3):
        model.predict(X, batch_size=4, verbose=0)
        model(X)
    assert len(counted) == 2  # once for each of the two kernels
    model.fit(X, Y, verbose=0)
    model.predict(X, batch_size=4, verbose=0)
    assert len(counted) == 4


def test_remembered_kernel_is_made_once_for_each_type(counted):
    layer = keras_popup.layers.MaskedDense(3, k=0.5, seed=1)
    layer(X), layer(X)
    half = keras_popup.layers.MaskedDense(3, k=0.5, seed=1, dtype="mixed_bfloat16")
    half(X), half(X)
    assert counted == ["float32", "bfloat16"]


def test_remembered_kernel_leaves_gradients_alone(counted):
    model = masked_model()
    model(X)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(X, training=False))
    gradients = tape.gradient(loss, [weight.value for weight in model.trainable_variables])
    assert all(np.any(gradient) for gradient in gradients)
    assert len(counted) == 2


@pytest.mark.integration
def test_remembered_kernel_is_not_used_where_python_is_not_called(counted):
    """Functions of the user's own may be stored, or run in a dataset: they choose in the function."""
    model = masked_model()
    function = tf.function(lambda x: model(x))
    images = tf.data.Dataset.from_tensors(tf.constant(X)).map(lambda x: model(x))
    function(X), next(iter(images))
    assert not counted
    model.layers[0].scores.assign(random_like(model.layers[0].scores))
    expected = keras_popup.strip_masks(model)(X)
    np.testing.assert_allclose(function(X), expected, rtol=1e-5)
    np.testing.assert_allclose(next(iter(images)), expected, rtol=1e-5)


def test_remembered_kernel_is_not_used_in_a_stateless_scope(counted):
    model = masked_model()
    model(X)
    changed = [random_like(weight) for weight in model.trainable_variables]
    outputs, _ = model.stateless_call(changed, [weight.value for weight in model.non_trainable_variables], X)
    for weight, value in zip(model.trainable_variables, changed, strict=True):
        weight.assign(value)
    np.testing.assert_allclose(outputs, model(X), rtol=1e-5)
