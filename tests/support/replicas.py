"""What distribution/test_replicated.py runs, each in a process of its own, as a failed collective spoils the process.

python tests/support/replicas.py CASE DEVICES, such as python tests/support/replicas.py fit CPU:0,CPU:1
"""

import contextlib
import dataclasses
import os
import sys
import tempfile
import warnings
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pytest
import tables
import tensorflow as tf

import keras_popup
from keras_popup import distribution, layers, selectors, training
from keras_popup.distribution import replicated
from keras_popup.training import RunConfig

# By so much of their largest, sums differ that are taken in another order.
ROUNDING = 1e-5

# Over the plain background of the digits, signed constants sum to zero but for rounding, and so a ReLU's derivative
# would depend on it: hence normal kernels.
RUN = RunConfig(
    model="conv2",
    width=0.1,
    kernel_initializer="kaiming_normal",
    epochs=2,
    batch_size=64,
    learning_rate=0.5,
    l2=0.01,
    strategy="none",
)
DENSE = {"method": "dense", "kernel_initializer": RunConfig.kernel_initializer}


def network(selector="top_k", channels=3):
    return keras.Sequential(
        [
            keras.Input((6, 6, channels)),
            layers.MaskedConv2D(8, 3, k=0.3, seed=1, selector=selector, scores_regularizer=keras.regularizers.L2(0.01)),
            keras.layers.BatchNormalization(synchronized=True),
            keras.layers.ReLU(),
            keras.layers.Flatten(),
            layers.MaskedDense(3, k=0.5, seed=2, selector=selector, use_bias=True),
        ]
    )


def examples(shape, count=24, classes=3):
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((count, *shape)).astype(np.float32)
    return inputs, rng.integers(0, classes, count)


def compiled(make, strategy=None, **arguments):
    """The model of `make`, in the strategy's scope, with a schedule, momentum and a metric."""
    with strategy.scope() if strategy else contextlib.nullcontext():
        model = make()
        schedule = keras.optimizers.schedules.CosineDecay(0.5, 10)
        arguments = {"optimizer": {}, **arguments}
        optimizer = keras.optimizers.SGD(schedule, momentum=0.9, **arguments.pop("optimizer"))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer, loss, metrics=["accuracy"], **arguments)
    return model


class Steps(keras.callbacks.Callback):
    """Keeps all variables and logs after every step."""

    def __init__(self):
        super().__init__()
        self.variables, self.logs = [], []

    def on_train_batch_end(self, batch, logs=None):
        self.variables.append([variable.numpy() for variable in self.model.variables])
        self.logs.append({name: float(value) for name, value in logs.items()})


def stepped(make, data, strategy=None, **arguments):
    """Returns a model trained by `model.fit` and its steps."""
    model, steps = compiled(make, strategy, **arguments), Steps()
    batches = tf.data.Dataset.from_tensor_slices(data).batch(8)
    model.fit(batches, epochs=2, callbacks=[steps], shuffle=False, verbose=0)
    return model, steps


def assert_replicas_agree(model, strategy):
    """Every variable, and every mask that a replica chooses, is the same bit for bit on all of them."""
    for variable in model.variables:
        first, *others = [replica.numpy() for replica in strategy.experimental_local_results(variable.value)]
        assert len(others) == strategy.num_replicas_in_sync - 1
        assert all(first.tobytes() == other.tobytes() for other in others), variable.path
    for layer in masked(model):
        first, *others = strategy.experimental_local_results(
            strategy.run(tf.function(lambda layer=layer: layer.mask()))
        )
        assert np.count_nonzero(first) == layer.kept
        assert len(others) == strategy.num_replicas_in_sync - 1
        assert all(np.array_equal(first, other) for other in others), layer.name


def masked(model):
    return [layer for layer in model.layers if isinstance(layer, layers.MaskedLayer)]


def assert_close(values, expected, what, rounding=ROUNDING):
    scale = max(np.abs(expected).max(), 1e-3) if expected.size else 1.0
    np.testing.assert_allclose(values, expected, rtol=0, atol=rounding * scale, err_msg=what)


def assert_same_network(model, expected, rounding=ROUNDING):
    """Kernels are untouched, scores within rounding, masks equal but for scores that close to the threshold."""
    for variable, other in zip(model.variables, expected.variables, strict=True):
        assert_close(variable.numpy(), other.numpy(), variable.path, rounding)
    for layer, other in zip(masked(model), masked(expected), strict=True):
        assert layer.frozen_kernel.numpy().tobytes() == other.frozen_kernel.numpy().tobytes()
        magnitudes = np.abs(other.scores.numpy())
        threshold = 0.0 if layer.selector.draws else np.sort(magnitudes, axis=None)[-other.kept]
        differing = magnitudes[layer.mask().numpy() != other.mask().numpy()]
        assert np.all(np.abs(differing - threshold) <= rounding * magnitudes.max()), f"{layer.name}: masks"


def assert_same_steps(make, data, strategy):
    model, steps = stepped(make, data, strategy)
    expected, expected_steps = stepped(make, data)
    assert len(steps.variables) == len(expected_steps.variables) == 6
    for number, (now, then) in enumerate(zip(steps.variables, expected_steps.variables, strict=True)):
        for variable, value, other in zip(model.variables, now, then, strict=True):
            assert_close(value, other, f"step {number} {variable.path}")
    for logs, other in zip(steps.logs, expected_steps.logs, strict=True):
        assert_close(np.array(list(logs.values())), np.array(list(other.values())), "logs")
    moved = max(np.abs(last - first).max() for first, last in zip(steps.variables[0], steps.variables[-1], strict=True))
    assert moved > 1e3 * ROUNDING  # else the comparison says nothing
    assert_same_network(model, expected)
    assert_replicas_agree(model, strategy)


def fit(strategy):
    """`model.fit` in a scope goes the steps of one device."""
    assert_same_steps(network, examples((6, 6, 3)), strategy)


def drawn(strategy):
    """All replicas draw the same masks, those of one device."""
    assert_same_steps(lambda: network(selectors.Bernoulli(rescale=True)), examples((6, 6, 3)), strategy)


def kinds(strategy):
    """Masks of every kind."""
    for selector in ("signed", "multicoat", "block", "top_k:pruned=0.3:locked=0.2"):
        assert_same_steps(lambda selector=selector: network(selector, 4), examples((6, 6, 4)), strategy)


def redrawn(strategy):
    """Kernels that are drawn anew are the same on all devices, and those of one."""
    run(strategy, redraw_every=2, redraw_rate=0.5, epochs=1)
    run(strategy, redraw_every=2, redraw_rate=0.5, redraw_from="best", epochs=1)


def supermask(strategy):
    run(strategy, method="supermask", learning_rate=10.0, l2=0.0)


def all_layers(strategy):
    for parameter in tables.LAYERS:
        case = parameter.values[0]

        def make(case=case):
            inputs = keras.Input(case.input_shape[1:])
            outputs = keras.layers.Dense(3)(keras.layers.Flatten()(case.make()(inputs)))
            return keras.Model(inputs, outputs)

        keras.utils.set_random_seed(1)
        first, second = make(), make()
        second.set_weights(first.get_weights())

        def same_weights(make=make, first=first):
            model = make()
            model.set_weights(first.get_weights())
            return model

        assert_same_steps(same_weights, examples(case.input_shape[1:]), strategy)


def converted(strategy):
    """`mask_model` in a scope, of a model made there, does what it does outside; files go in and out of scopes."""

    def make():
        keras.utils.set_random_seed(1)
        inputs = keras.Input((6, 6, 3))
        x = keras.layers.Conv2D(8, 3, activation="relu")(inputs)
        x = keras.layers.Flatten()(keras.Sequential([keras.layers.Conv2D(4, 3)])(x))
        model = keras.Model(inputs, keras.layers.Dense(3, bias_initializer="zeros")(x))
        return keras_popup.mask_model(model, k=0.4, seed=3)

    data = examples((6, 6, 3))
    model, _ = stepped(make, data, strategy)
    expected, _ = stepped(make, data)
    assert_close(model.predict(data[0], verbose=0), expected.predict(data[0], verbose=0), "outputs")
    outputs = expected.predict(data[0], verbose=0)
    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "model.keras")
        for first, second in ((strategy, None), (None, strategy), (strategy, strategy)):
            with first.scope() if first else contextlib.nullcontext():
                trained = model if first else expected
                trained.save(file)
            with second.scope() if second else contextlib.nullcontext():
                loaded = keras.models.load_model(file)
            assert_close(loaded.predict(data[0], verbose=0), outputs, "outputs of a file")
            history = loaded.fit(*data, batch_size=8, shuffle=False, verbose=0)  # with its optimizer
            assert np.isfinite(history.history["loss"]).all()
        trained = model.predict(data[0], verbose=0)
        keras_popup.save_ticket(model, os.path.join(folder, "model.ticket"))
        plain = keras_popup.load_ticket(os.path.join(folder, "model.ticket"))
        assert_close(plain.predict(data[0], verbose=0), trained, "ticket")
        assert_close(keras_popup.strip_masks(model).predict(data[0], verbose=0), trained, "stripped")


def policies(strategy):
    data = examples((6, 6, 3))
    for policy in tables.POLICIES[1:]:
        keras.config.set_dtype_policy(policy)
        # Keras's own, dynamic scale is refused.
        scale = (
            {"optimizer": {"loss_scale_factor": 1024}, "auto_scale_loss": False} if policy == "mixed_float16" else {}
        )
        model, steps = stepped(network, data, strategy, **scale)
        _, expected = stepped(network, data, **scale)
        assert_replicas_agree(model, strategy)
        losses, others = ([step["loss"] for step in of.logs] for of in (steps, expected))
        np.testing.assert_allclose(losses, others, rtol=0.05)
        np.testing.assert_allclose(losses[0], others[0], rtol=0.01)


def overflow(strategy):
    """Where only the last replica's gradients overflow, all of them skip the step and lower the scale."""
    keras.config.set_dtype_policy("mixed_float16")
    inputs, targets = examples((6, 6, 3))
    inputs[7::8] *= 30  # the last of each batch
    batches = tf.data.Dataset.from_tensor_slices((inputs, targets)).batch(8)
    with strategy.scope():
        model = network()
        optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.01), initial_scale=2.0**24)
        model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        replicated.prepare(model, batches)
        optimizer.build(model.trainable_variables)
    before = model.get_weights()
    step = replicated.trainer(model, strategy, batches)
    scales = []
    for _ in range(24):
        step()
        scales.append(float(optimizer.dynamic_scale.numpy()))
    assert scales[0] == 2.0**23
    assert scales[-1] == scales[-6] > 1.0, scales  # it has found one that holds, instead of falling for ever
    assert all(np.isfinite(variable.numpy()).all() for variable in model.variables)
    assert not all(map(np.array_equal, before, model.get_weights()))
    assert_replicas_agree(model, strategy)


def placed(config, strategy):
    """The run, on the strategy's devices."""
    devices = ",".join(device.split("device:")[-1] for device in strategy.extended.worker_devices)
    return dataclasses.replace(config, strategy="mirrored", devices=devices)


def run(strategy, rounding=ROUNDING, **changes):
    """A run of the library on these devices has the history of one on one device, uneven batches included."""
    config = dataclasses.replace(RUN, **changes)
    with tempfile.TemporaryDirectory() as folder:
        expected = training.train(config, os.path.join(folder, "a"))
        summary = training.train(placed(config, strategy), os.path.join(folder, "b"))
        assert summary["devices"]["replicas"] == strategy.num_replicas_in_sync
        models = [keras.models.load_model(os.path.join(folder, name, "model.keras")) for name in "ba"]
        assert_same_network(*models, rounding)
        assert summary.keys() == expected.keys()
        for split in {"train", "validation", "test", "test_draws"} & expected.keys():
            for name, value in expected[split].items():
                assert abs(summary[split][name] - value) <= 10 * rounding * max(1.0, abs(value)), (split, name)


def lonely_image(strategy):
    """The last batch of an epoch is one image: other replicas have none."""
    run(strategy, batch_size=323)


def resnet(strategy):
    # Of so many layers each passes on the rounding of those before.
    run(strategy, 10 * ROUNDING, model="resnet18", width=0.1, epochs=1, batch_size=400, learning_rate=0.001, l2=5e-4)


def adam(strategy):
    run(strategy, optimizer="adam", learning_rate=0.01, **DENSE)


def repeated(strategy):
    """The same seed, the same history, bit for bit."""
    with tempfile.TemporaryDirectory() as folder:
        histories = []
        for name in "ab":
            training.train(placed(RUN, strategy), os.path.join(folder, name))
            histories.append(Path(folder, name, "history.csv").read_text())
    assert histories[0] == histories[1]


def diverging(strategy):
    config = placed(dataclasses.replace(RUN, learning_rate=1e6, **DENSE), strategy)
    with tempfile.TemporaryDirectory() as folder, pytest.raises(training.DivergenceError, match="not finite: "):
        training.train(config, os.path.join(folder, "run"))


def refused(strategy):
    """What Keras cannot do is refused before the first step, or done another way."""
    data = examples((6, 6, 3))
    for arguments, message in (
        ({"jit_compile": True}, "jit_compile=False"),
        ({"optimizer": {"gradient_accumulation_steps": 2}}, "Use larger batches"),
        ({"steps_per_execution": 2}, "ReductionToOneDevice"),
        ({"policy": "mixed_float16"}, "Use mixed_bfloat16, or a fixed scale"),
    ):
        keras.config.set_dtype_policy(arguments.pop("policy", "float32"))
        model = compiled(network, strategy, **arguments)
        keras.config.set_dtype_policy("float32")
        before = model.get_weights()
        with pytest.raises(ValueError, match=message):
            model.fit(*data, batch_size=8, shuffle=False, verbose=0)
        assert all(map(np.array_equal, before, model.get_weights()))
    working = tf.distribute.MirroredStrategy(
        strategy.extended.worker_devices, cross_device_ops=tf.distribute.ReductionToOneDevice()
    )
    model = compiled(network, working, steps_per_execution=3)
    model.fit(*data, batch_size=8, epochs=2, shuffle=False, verbose=0)
    expected, _ = stepped(network, data)
    assert_same_network(model, expected)


CASES = (
    fit,
    drawn,
    kinds,
    redrawn,
    all_layers,
    converted,
    policies,
    overflow,
    run,
    supermask,
    lonely_image,
    resnet,
    adam,
    repeated,
    diverging,
    refused,
)


def main():
    name, devices = sys.argv[1:]
    warnings.simplefilter("error")
    # Of Keras, about its own and TensorFlow's ways:
    warnings.filterwarnings("ignore", message="__array__ implementation doesn't accept a copy keyword")
    case = next(case for case in CASES if case.__name__ == name)
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(2)
    case(distribution.place("mirrored", devices).strategy)


if __name__ == "__main__":
    main()
