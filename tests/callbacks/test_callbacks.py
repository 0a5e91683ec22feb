"""Schedules of k and statistics of masks, inside `model.fit`."""

import logging

import keras
import numpy as np
import pytest
import tensorflow as tf
from tables import CHOOSING, LAYERS, small_model

import keras_popup
from keras_popup import callbacks, layers, selectors
from keras_popup.callbacks import statistics

STEPS = 6


def network(k=0.5, **arguments):
    model = keras.Sequential(
        [
            keras.Input((9,)),
            layers.MaskedDense(12, k=k, seed=1, **arguments),
            layers.MaskedDense(9, k=k, seed=2, **arguments),
        ]
    )
    model.compile(keras.optimizers.SGD(0.5), "mse")
    return model


def fit(model, *chosen, epochs=2, **arguments):
    inputs = np.random.default_rng(1).standard_normal((3 * 4, 9)).astype(np.float32)
    return model.fit(inputs, inputs, batch_size=4, epochs=epochs, callbacks=list(chosen), verbose=0, **arguments)


class Kept(keras.callbacks.Callback):
    """What every step was trained with."""

    def __init__(self):
        super().__init__()
        self.kept = []

    def on_train_batch_begin(self, batch, logs=None):
        self.kept.append(self.model.layers[0].kept)


@pytest.mark.parametrize("name", sorted(callbacks.SCHEDULES))
def test_schedules_follow_their_formulas(name):
    schedule = callbacks.SCHEDULES[name](0.3, 10)
    values = [schedule(step) for step in range(13)]
    assert values[0] == 1.0
    assert values[10:] == [0.3] * 3
    assert values[:11] == sorted(values[:11], reverse=True)
    formula = {"linear": 1 - 0.7 * 0.4, "cubic": 0.3 + 0.7 * 0.6**3, "geometric": 0.3**0.4}[name]
    assert values[4] == pytest.approx(formula, rel=1e-12)
    with pytest.raises(ValueError, match="`steps` must be"):
        callbacks.SCHEDULES[name](0.3, 0)
    with pytest.raises(ValueError, match="`k`"):
        callbacks.SCHEDULES[name](0.0, 3)


@pytest.mark.parametrize(
    "schedule",
    [
        callbacks.Linear(0.5, STEPS),
        lambda step: 0.9 if step < 2 else 0.7,
        keras.optimizers.schedules.PiecewiseConstantDecay([1, 3], [0.9, 0.7, 0.3]),
        keras.optimizers.schedules.PolynomialDecay(1.0, STEPS, 0.7),
    ],
    ids=["linear", "function", "piecewise", "polynomial"],
)
def test_k_schedule_gives_every_step_its_k(schedule):
    model, kept = network(), Kept()
    fit(model, callbacks.KSchedule(schedule), kept)
    expected = [round(float(f"{float(schedule(step)):.7g}"), 7) for step in range(STEPS + 1)]
    counts = [int(np.floor(k * 108 + 0.5)) for k in expected]
    assert kept.kept == counts[:-1]
    assert [layer.kept for layer in model.layers] == counts[-1:] * 2
    assert int(model.layers[0].mask().numpy().sum()) == counts[-1]


def test_check_k_reads_float32_by_its_decimals():
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([1], [0.7, 0.7])
    assert selectors.check_k(schedule(0)) == 0.7
    assert selectors.check_k(np.float32(0.7)) == 0.7


def test_k_schedule_with_steps_at_once_and_a_second_fit():
    model = network()
    model.compile(keras.optimizers.SGD(0.5), "mse", steps_per_execution=3)
    schedule = callbacks.Linear(0.5, 9)
    fit(model, callbacks.KSchedule(schedule), epochs=2)
    assert model.layers[0].k == schedule(6)
    fit(model, callbacks.KSchedule(schedule), initial_epoch=2, epochs=3)
    assert model.layers[0].k == 0.5


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: keras.optimizers.SGD(0.5, gradient_accumulation_steps=2),
        lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.5), initial_scale=2.0**120),
    ],
    ids=["accumulation", "skipped steps"],
)
def test_k_schedule_counts_batches(optimizer):
    """Whether or not the optimizer takes a step with each."""
    model, kept = network(), Kept()
    model.compile(optimizer(), "mse")
    schedule = callbacks.Linear(0.5, STEPS)
    fit(model, callbacks.KSchedule(schedule), kept)
    assert kept.kept == [int(np.floor(schedule(step) * 108 + 0.5)) for step in range(STEPS)]


@pytest.mark.filterwarnings("ignore:Your input ran out of data")  # Keras, of the first epoch
def test_k_schedule_of_batches_of_unknown_number():
    model, kept = network(), Kept()
    inputs = np.random.default_rng(1).standard_normal((12, 9)).astype(np.float32)
    batches = tf.data.Dataset.from_tensor_slices((inputs, inputs)).batch(4).filter(lambda *_: True)
    schedule = callbacks.Linear(0.5, STEPS)
    model.fit(batches, epochs=2, callbacks=[callbacks.KSchedule(schedule), kept], verbose=0)
    # Keras begins a batch, too, to find out that there is none.
    assert list(dict.fromkeys(kept.kept))[:STEPS] == [
        int(np.floor(schedule(step) * 108 + 0.5)) for step in range(STEPS)
    ]


def test_mask_statistics_compare_with_the_masks_of_the_start():
    model = network(k=0.3)
    model.compile(keras.optimizers.SGD(0.0), "mse")
    history = fit(model, callbacks.KSchedule(lambda step: 1.0), callbacks.MaskStatistics()).history
    assert history[f"{model.layers[0].name}/changed"] == [0.0, 0.0]


def test_mask_statistics_of_layers_of_one_name():
    class Pair(keras.Model):
        def __init__(self):
            super().__init__()
            self.first = layers.MaskedDense(4, seed=1, name="same")
            self.second = layers.MaskedDense(9, seed=2, name="same")

        def call(self, inputs):
            return self.second(self.first(inputs))

    model = Pair()
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="is not built"):
        fit(model, callbacks.MaskStatistics())
    model(np.ones((1, 9), np.float32))
    history = fit(model, callbacks.MaskStatistics()).history
    assert {"same/changed", "same_2/changed"} <= history.keys()


@pytest.mark.parametrize("selector", CHOOSING)
def test_k_schedule_leaves_files_of_every_step_that_load(selector, tmp_path):
    model = keras.Sequential([keras.Input((12,)), keras.layers.Dense(12), keras.layers.Dense(12)])
    model = keras_popup.mask_model(model, k=0.5, selector=selector, seed=1)
    model.compile(keras.optimizers.SGD(0.5), "mse")
    inputs = np.random.default_rng(1).standard_normal((12, 12)).astype(np.float32)
    saved = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras")
    schedule = callbacks.KSchedule(callbacks.Linear(0.5, 20))
    model.fit(inputs, inputs, batch_size=4, epochs=3, callbacks=[schedule, saved], verbose=0)
    for path in sorted(tmp_path.iterdir()):
        loaded = keras.models.load_model(path)
        for layer in loaded.layers:
            assert np.count_nonzero(layer.mask()) == layer.kept
        np.testing.assert_array_equal(keras_popup.strip_masks(loaded)(inputs), loaded(inputs))
    assert [layer.k for layer in loaded.layers] == [layer.k for layer in model.layers]


@pytest.mark.parametrize(
    ("selector", "k"),
    [("n_m", 0.6), ("top_k:pruned=0.3", 0.8), ("top_k:locked=0.3", 0.1), ("multicoat:coats=3", 0.005), ("block", 0.05)],
)
def test_layers_refuse_a_k_that_their_selector_cannot_have(selector, k):
    layer = layers.MaskedDense(12, k=0.5, selector=selector, seed=1)
    layer.build((None, 8))
    with pytest.raises(ValueError, match="k="):
        layer.k = k
    assert layer.k == 0.5


def test_k_schedule_refuses_what_cannot_be():
    with pytest.raises(TypeError, match="must be a function"):
        callbacks.KSchedule(0.5)
    with pytest.raises(ValueError, match=r"in \(0, 1\]"):
        fit(network(), callbacks.KSchedule(lambda step: 1.5))
    with pytest.raises(ValueError, match="keeps none"):
        fit(network(), callbacks.KSchedule(lambda step: 1e-6))
    with pytest.raises(ValueError, match="draw their masks"):
        fit(network(selector="bernoulli"), callbacks.KSchedule(callbacks.Linear(0.5, 3)))
    plain = keras.Sequential([keras.Input((9,)), keras.layers.Dense(9)])
    plain.compile("sgd", "mse")
    for callback, message in (
        (callbacks.KSchedule(callbacks.Linear(0.5, 3)), "no layer is masked"),
        (callbacks.MaskStatistics(), "no masked layer"),
    ):
        with pytest.raises(ValueError, match=message):
            fit(plain, callback)


@pytest.mark.parametrize("selector", ["top_k", "bernoulli"])
def test_mask_statistics_are_those_of_the_masks(selector):
    model, statistics = network(selector=selector), callbacks.MaskStatistics()
    masks = [[layer.mask().numpy() for layer in model.layers]]

    class Masks(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            masks.append([layer.mask().numpy() for layer in self.model.layers])

    history = fit(model, statistics, Masks()).history
    assert set(history) > set(statistics.latest)
    for number, layer in enumerate(model.layers):
        for epoch in range(2):
            before, mask = masks[epoch][number], masks[epoch + 1][number]
            found = {name: history[f"{layer.name}/{name}"][epoch] for name in ("changed", "kept", "dead_outputs")}
            assert found == {
                "changed": np.mean(before != mask),
                "kept": pytest.approx(mask.mean()),
                "dead_outputs": (mask.sum(axis=0) == 0).sum(),
            }
            for axis, name in ((1, "rows"), (0, "columns")):
                shares = mask.mean(axis=axis)
                assert history[f"{layer.name}/kept_{name}_min"][epoch] == pytest.approx(shares.min())
                assert history[f"{layer.name}/kept_{name}_max"][epoch] == pytest.approx(shares.max())
        scores = np.abs(layer.scores.numpy())
        assert history[f"{layer.name}/threshold"][-1] == scores[layer.mask().numpy() > 0].min()
        randomness = history.get(f"{layer.name}/randomness")
        assert (randomness is not None) == (selector == "bernoulli")
        if randomness:
            p = 1 / (1 + np.exp(-layer.scores.numpy().astype(np.float64)))
            assert randomness[-1] == pytest.approx(np.mean(4 * p * (1 - p)))
    assert any(history[f"{layer.name}/changed"][0] > 0 for layer in model.layers)


@pytest.mark.parametrize("case", LAYERS)
def test_compute_shares_of_channels(case):
    """The shares average to the share kept, and there is one for each channel."""
    layer = small_model(case).layers[-1]
    kernel = layer.masked_kernels["kernel"]
    mask = kernel.read_mask()
    shares = statistics._compute_shares(kernel, mask)
    for axes, values in zip(kernel.channel_axes(), shares.values(), strict=True):
        assert values.size == np.prod([mask.shape[axis] for axis in axes])
        assert values.mean() == pytest.approx(layer.kept / mask.size)


def test_mask_statistics_name_a_collapsed_layer_once(caplog):
    model = network(selector="bernoulli")
    for layer in model.layers:
        layer.scores.assign(np.full(layer.scores.shape, 5.0))
    model.layers[1].scores.assign(np.where(np.arange(9) < 5, -50.0, 50.0) * np.ones((12, 1)))
    with caplog.at_level(logging.WARNING, "keras_popup"):
        fit(model, callbacks.MaskStatistics(), epochs=3)
    named = [record.getMessage() for record in caplog.records if "collapsed" in record.getMessage()]
    assert len(named) == 1
    assert f"'{model.layers[1].name}' has collapsed: 5 of its 9 output channels" in named[0]


def test_mask_statistics_in_tensorboard(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    model = network()
    history = fit(model, callbacks.MaskStatistics(tmp_path / "logs")).history
    events = EventAccumulator(str(tmp_path / "logs"))
    events.Reload()
    name = f"{model.layers[0].name}/changed"
    values = [float(tf.make_ndarray(event.tensor_proto)) for event in events.Tensors(name)]
    assert values == pytest.approx(history[name])
    assert f"{model.layers[0].name}/kept_rows" in events.Tags()["tensors"]


class _SeesK(keras.callbacks.Callback):
    """Puts k into the logs, so that an early epoch is the best."""

    def on_epoch_end(self, epoch, logs=None):
        logs["k_seen"] = keras_popup.masked_layers(self.model)[0].k


@pytest.mark.parametrize("first", [True, False], ids=["schedule_first", "schedule_last"])
@pytest.mark.parametrize("starts_right", [False, True])
def test_k_schedule_says_when_a_callback_restores_another_k(first, starts_right, caplog):
    x, y = np.ones((8, 4), "float32"), np.ones((8, 2), "float32")
    model = keras_popup.mask_model(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]), seed=1)
    model.compile("sgd", "mse")
    schedule = callbacks.KSchedule(callbacks.Linear(0.25, steps=7))
    assert (schedule.end_epoch(2), schedule.end_epoch(7), schedule.end_epoch(100)) == (3, 0, 0)
    start = schedule.end_epoch(2) if starts_right else 0
    others = [
        _SeesK(),
        keras.callbacks.EarlyStopping(
            monitor="k_seen", mode="max", restore_best_weights=True, patience=9, start_from_epoch=start
        ),
    ]
    chosen = [schedule, *others] if first else [*others, schedule]
    model.fit(x, y, batch_size=4, epochs=5, verbose=0, callbacks=chosen)
    k = keras_popup.masked_layers(model)[0].k
    if starts_right:
        assert k == 0.25
        assert "k = " not in caplog.text
    else:
        assert k > 0.25
        assert f"The model has k = {k:g} at the end, and not 0.25" in caplog.text
        assert "start_from_epoch=KSchedule.end_epoch(steps_per_epoch)" in caplog.text
    assert caplog.text.count("\n") <= 1


def test_k_schedule_says_when_the_training_is_too_short(caplog):
    x, y = np.ones((8, 4), "float32"), np.ones((8, 2), "float32")
    model = keras_popup.mask_model(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]), seed=1)
    model.compile("sgd", "mse")
    schedule = callbacks.KSchedule(callbacks.Linear(0.25, steps=10))
    model.fit(x, y, batch_size=4, epochs=2, verbose=0, callbacks=[schedule])
    assert "has ended at k = 0.7, before the schedule has reached its last k, 0.25" in caplog.text
    caplog.clear()
    model.fit(x, y, batch_size=4, initial_epoch=2, epochs=5, verbose=0, callbacks=[schedule])
    assert not caplog.text
    with pytest.raises(ValueError, match="Only a schedule with the attribute `steps`"):
        callbacks.KSchedule(lambda step: 0.5).end_epoch(3)


class _SeesMasks(keras.callbacks.Callback):
    """The masks before and after each step, and those that the scores gave right after it."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def read(self):
        return [layer.mask().numpy().astype(bool) for layer in keras_popup.masked_layers(self.model)]

    def on_train_batch_begin(self, batch, logs=None):
        self.seen.append([self.read()])

    def on_train_batch_end(self, batch, logs=None):
        scores = [layer.scores.numpy() for layer in keras_popup.masked_layers(self.model)]
        self.seen[-1] += [self.read(), scores]


@pytest.mark.parametrize("rate", [0.01, 0.3, 1.0])
@pytest.mark.parametrize("start", ["score_uniform", "magnitude"])
def test_restrict_swaps_lets_a_part_of_them_happen(rate, start):
    stack = [keras.Input((12,)), keras.layers.Dense(20, activation="relu"), keras.layers.Dense(3)]
    model = keras_popup.mask_model(keras.Sequential(stack), k=0.4, weights="keep", scores_initializer=start, seed=1)
    model.compile(keras.optimizers.SGD(3.0, momentum=0.9), "mse")
    first, last = _SeesMasks(), _SeesMasks()
    random = np.random.default_rng(0)
    x, y = random.normal(size=(64, 12)).astype("float32"), random.normal(size=(64, 3)).astype("float32")
    restrict = callbacks.RestrictSwaps(rate)
    model.fit(x, y, batch_size=8, epochs=3, verbose=0, callbacks=[first, restrict, last])
    swaps = 0
    for (before, asked, scores), (_, made, _) in zip(first.seen, last.seen, strict=True):
        for old, wanted, size, new in zip(before, asked, map(np.abs, scores), made, strict=True):
            entered, left = wanted & ~old, old & ~wanted
            count = int(entered.sum())
            allowed = int(np.ceil(rate * count))
            assert new.sum() == old.sum()
            assert (new & ~old).sum() == (old & ~new).sum() == allowed
            assert not (new & ~wanted & ~old).any()  # nothing else moves
            if 0 < allowed < count:  # those that were the surest
                assert size[new & ~old].min() >= size[entered & ~new].max()
                assert size[old & ~new].max() <= size[left & new].min()
            swaps += count
    assert swaps > 20


def test_restrict_swaps_lets_another_k_through():
    model = keras_popup.mask_model(keras.Sequential([keras.Input((12,)), keras.layers.Dense(20)]), k=1.0, seed=1)
    model.compile(keras.optimizers.SGD(1.0), "mse")
    schedule = callbacks.KSchedule(callbacks.Linear(0.2, steps=6))
    x, y = np.ones((48, 12), "float32"), np.ones((48, 20), "float32")
    model.fit(x, y, batch_size=8, epochs=2, verbose=0, callbacks=[schedule, callbacks.RestrictSwaps(0.1)])
    assert model.layers[0].kept == 48


def test_restrict_swaps_refuses_what_has_no_swaps():
    for rate in (0, 1.5, True, "half", float("nan")):
        with pytest.raises(ValueError, match=r"`rate` must be a number in \(0, 1\]"):
            callbacks.RestrictSwaps(rate)
    plain = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    for model, message in [
        (plain, "has no masked layer"),
        (keras_popup.mask_model(plain, selector="bernoulli", seed=1), "is for the selector 'top_k'"),
    ]:
        model.compile("sgd", "mse")
        with pytest.raises(ValueError, match=message):
            model.fit(np.ones((4, 4)), np.ones((4, 2)), verbose=0, callbacks=[callbacks.RestrictSwaps(0.5)])
