"""IterativeRandomization and Recycle: which weights get other values, when, and from what."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_popup
from keras_popup import initializers
from keras_popup.callbacks import IterativeRandomization, Recycle

CALLBACKS = pytest.mark.parametrize("callback", [IterativeRandomization, Recycle])


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


def _recycle(model, rate):
    """Recycles once, without training, and returns the kernel."""
    recycle = Recycle(every=1, rate=rate)
    recycle.set_model(model)
    recycle.on_train_begin()
    model.optimizer.iterations.assign(1)
    recycle.on_train_batch_end(0)
    return _kernel(model).kernel.numpy()


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


@pytest.mark.parametrize("selector", ["top_k", "signed", "global_top_k", "multicoat:coats=2"])
def test_the_worst_weights_get_the_values_of_the_best(selector):
    model = _model(kernel_initializer="kaiming_normal", selector=selector)
    kernel = _kernel(model)
    before, mask, scores = kernel.kernel.numpy(), kernel.read_mask(), kernel.scores.numpy()
    values = _recycle(model, rate=0.2)
    order = sorted(np.ndindex(*scores.shape), key=lambda place: (abs(scores[place]), place))
    count = int(0.2 * scores.size)
    for place, source in zip(order[:count], order[-count:], strict=True):
        assert mask[place] == 0
        assert mask[source] != 0
        assert values[place] == before[source]
    rest = tuple(np.transpose(order[count:]))
    np.testing.assert_array_equal(values[rest], before[rest])


@pytest.mark.parametrize(("k", "count"), [(0.9, 200), (0.5, 1000), (0.1, 200)])
def test_kept_weights_stay_though_more_are_to_be_recycled(k, count):
    model = _model(kernel_initializer="kaiming_normal", k=k)
    kernel = _kernel(model)
    before, kept = kernel.kernel.numpy(), kernel.read_mask() != 0
    values = _recycle(model, rate=1.0)
    np.testing.assert_array_equal(values[kept], before[kept])
    assert (values != before).sum() == count
    assert set(values[values != before]) <= set(before[kept])


@CALLBACKS
def test_a_run_that_goes_on_draws_the_same(tmp_path, callback):
    def redraws():
        return {"callbacks": [callback(every=3, rate=0.5)], "verbose": 0}

    whole = _model()
    whole.fit(_batches(), **redraws())
    parts = _model()
    parts.fit(_batches(0, 4), **redraws())
    parts.save(tmp_path / "a.keras")
    parts = keras.models.load_model(tmp_path / "a.keras")
    parts.fit(_batches(4), **redraws())
    for first, second in zip(whole.weights, parts.weights, strict=True):
        np.testing.assert_array_equal(first, second)


@CALLBACKS
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
def test_wrong_arguments_are_errors(callback, arguments, message):
    with pytest.raises(ValueError, match=message):
        callback(**arguments)


@CALLBACKS
def test_kernels_without_a_seed_are_refused(callback):
    model = _model(weights="keep")
    with pytest.raises(ValueError, match="not drawn from a seed of this library"):
        model.fit(_batches(), verbose=0, callbacks=[callback()])


def test_recycle_refuses_drawn_masks():
    model = _model(selector="bernoulli")
    with pytest.raises(ValueError, match="layer 'hidden', Bernoulli, draws its masks: use 'top_k'"):
        model.fit(_batches(), verbose=0, callbacks=[Recycle()])


def test_initializers_have_redraws():
    first = initializers.SignedConstant(seed=3)
    assert first.of_redraw(0) is first
    assert first.of_redraw(1).seed != first.of_redraw(2).seed != first.seed
    with pytest.raises(ValueError, match="has no seed"):
        initializers.SignedConstant().of_redraw(1)
