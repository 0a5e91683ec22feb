"""IterativeRandomization: which weights are drawn anew, when, and from what."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_popup
from keras_popup import initializers
from keras_popup.callbacks import IterativeRandomization


def _model(**arguments):
    stack = [keras.Input((40,)), keras.layers.Dense(50, name="hidden"), keras.layers.Dense(5, name="classes")]
    model = keras_popup.mask_model(keras.Sequential(stack), **{"k": 0.5, "seed": 1, **arguments})
    model.compile(keras.optimizers.SGD(0.5, momentum=0.9), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def _batches(first=0, last=8):
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(8, 16, 40)).astype(np.float32), rng.integers(0, 5, (8, 16))
    return tf.data.Dataset.from_tensor_slices((x[first:last], y[first:last]))


def _kernel(model):
    return keras_popup.masked_layers(model)[0].masked_kernels["kernel"]


def test_weights_outside_the_mask_get_the_values_of_the_redraw():
    model = _model(kernel_initializer="kaiming_normal")
    kernel = _kernel(model)
    before = kernel.kernel.numpy()
    states = []

    class Look(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            states.append((kernel.mask().numpy(), kernel.kernel.numpy()))

    model.fit(_batches(), verbose=0, callbacks=[IterativeRandomization(every=4, rate=0.25), Look()])
    for number, (_, values) in enumerate(states[:3], 1):
        np.testing.assert_array_equal(values, before, err_msg=f"step {number}")
    mask, values = states[3]
    changed = values != before
    assert not (changed & (mask == 1)).any()
    assert changed.sum() == pytest.approx(0.25 * (mask == 0).sum(), rel=0.2)
    redrawn = initializers.KaimingNormal(seed=kernel.seed).of_redraw(1)
    expected = redrawn.values(before.shape, kernel.fans())
    np.testing.assert_array_equal(values[changed], expected[changed])


def test_a_run_that_goes_on_draws_the_same(tmp_path):
    callback = {"callbacks": [IterativeRandomization(every=3, rate=0.5)], "verbose": 0}
    whole = _model()
    whole.fit(_batches(), **callback)
    parts = _model()
    parts.fit(_batches(0, 4), **callback)
    parts.save(tmp_path / "a.keras")
    parts = keras.models.load_model(tmp_path / "a.keras")
    parts.fit(_batches(4), callbacks=[IterativeRandomization(every=3, rate=0.5)], verbose=0)
    for first, second in zip(whole.weights, parts.weights, strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"every": 0}, "`every` must be a positive integer"),
        ({"every": 1.5}, "`every`"),
        ({"rate": 0}, "`rate` must be a number in"),
        ({"rate": 1.1}, "`rate`"),
        ({"rate": True}, "`rate`"),
    ],
)
def test_wrong_arguments_are_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        IterativeRandomization(**arguments)


def test_kernels_without_a_seed_are_refused():
    model = _model(weights="keep")
    with pytest.raises(ValueError, match="not drawn from a seed of this library"):
        model.fit(_batches(), verbose=0, callbacks=[IterativeRandomization()])


def test_initializers_have_redraws():
    first = initializers.SignedConstant(seed=3)
    assert first.of_redraw(0) is first
    assert first.of_redraw(1).seed != first.of_redraw(2).seed != first.seed
    with pytest.raises(ValueError, match="has no seed"):
        initializers.SignedConstant().of_redraw(1)
