"""What every masked layer does, against the stock layer that holds `kernel * mask`."""

import inspect
import logging
import os
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
from exported import PATHS, conv_net, images
from keras.src import testing
from tables import LAYERS, POLICIES, every_layer, operations_of, small_model

import keras_popup
from keras_popup import layers, selectors


def inputs_of(case):
    return np.random.default_rng(0).standard_normal(case.input_shape).astype(np.float32)


def stock_twin(case, masked, dtype=None):
    """A stock layer with the masked layer's kernel times mask, made here with NumPy."""
    defaults = {"use_bias": False} if "use_bias" in inspect.signature(case.stock).parameters else {}
    twin = case.stock(**{**defaults, **case.arguments}, dtype=dtype)
    twin.build(case.input_shape)
    twin.set_weights([masked.frozen_kernel.numpy() * masked.mask().numpy(), *(v.numpy() for v in biases(masked))])
    return twin


def biases(layer):
    return [v for v in layer.trainable_variables if v is not layer.scores]


@every_layer
@pytest.mark.parametrize("policy", POLICIES)
def test_masked_layer_equals_the_stock_layer(case, policy):
    x = inputs_of(case)
    masked = case.make(dtype=policy)
    outputs = masked(x)
    expected = stock_twin(case, masked, policy)(x)
    assert outputs.dtype == expected.dtype == masked.compute_dtype
    np.testing.assert_array_equal(tf.cast(outputs, tf.float32), tf.cast(expected, tf.float32))
    assert masked.compute_output_shape(case.input_shape) == outputs.shape


@every_layer
def test_masked_layer_has_public_attributes(case):
    layer = case.make()
    layer.build(case.input_shape)
    n = int(np.prod(layer.scores.shape))
    mask = layer.mask().numpy()
    assert layer.k == 0.4
    assert layer.kept == int(0.4 * n + 0.5) == mask.sum()
    assert mask.shape == layer.scores.shape == layer.kernel.shape
    np.testing.assert_array_equal(layer.kernel, layer.frozen_kernel.numpy() * mask)
    best = np.sort(np.abs(layer.scores.numpy()).ravel())[-layer.kept]
    np.testing.assert_array_equal(mask, np.abs(layer.scores.numpy()) >= best)


@every_layer
def test_masked_layer_gives_scores_the_gradient_of_the_formula(case):
    x = inputs_of(case)
    masked = case.make()
    upstream = np.random.default_rng(1).standard_normal(masked(x).shape).astype(np.float32)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(masked(x) * upstream)
    gradient = tape.gradient(loss, masked.scores.value).numpy()
    twin = stock_twin(case, masked)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(twin(x) * upstream)
    of_kernel = tape.gradient(loss, twin.trainable_variables[0].value).numpy()
    expected = of_kernel * masked.frozen_kernel.numpy() * np.sign(masked.scores.numpy())
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-6)
    assert np.count_nonzero(gradient[masked.mask().numpy() == 0]), "weights that are not kept learn too"


@every_layer
@pytest.mark.parametrize(
    ("policy", "mode"),
    [
        ("float32", {}),
        ("float32", {"jit_compile": True}),
        ("float32", {"run_eagerly": True}),
        ("mixed_bfloat16", {}),
        ("mixed_float16", {}),
    ],
    ids=str,
)
def test_masked_layer_trains_its_scores_only(case, policy, mode):
    model = small_model(case, dtype=policy)
    layer = model.layers[-1]
    kernel, scores = layer.frozen_kernel.numpy(), layer.scores.numpy()
    assert len(layer.trainable_weights) == 1 + len(biases(layer))
    assert {v.name: v.dtype for v in layer.weights} == {
        "kernel": "float32",
        "scores": "float32",
        "k": "float32",
        **{v.name: "float32" for v in biases(layer)},
    }
    x = inputs_of(case)
    y = np.zeros(model.compute_output_shape(case.input_shape), np.float32)
    model.compile(
        keras.optimizers.SGD(0.5), "mse", jit_compile=mode.get("jit_compile", False), run_eagerly="run_eagerly" in mode
    )
    model.fit(x, y, epochs=2, batch_size=2, verbose=0)
    np.testing.assert_array_equal(layer.frozen_kernel.numpy(), kernel)
    assert (layer.scores.numpy() != scores).any()
    assert layer.mask().numpy().sum() == layer.kept
    # What predict computes, on every path, is what the stock layer with this kernel computes.
    expected = tf.cast(stock_twin(case, layer, policy)(x), tf.float32).numpy()
    predicted = model.predict(x, verbose=0).astype(np.float32)
    np.testing.assert_allclose(predicted, expected, atol=1e-5 if policy == "float32" else 3e-2)


@every_layer
def test_masked_layer_comes_back_from_files(case, tmp_path):
    x = inputs_of(case)
    model = small_model(case)
    layer = model.layers[-1]
    layer.scores.assign(np.random.default_rng(5).standard_normal(layer.scores.shape))
    layer.k = 0.7
    model.trainable = False
    model.trainable = True  # thaws every weight that was frozen by its own `trainable = False`
    assert len(model.trainable_variables) == 1 + len(biases(layer))
    expected = model(x).numpy()

    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(x), expected)
    np.testing.assert_array_equal(loaded.layers[-1].mask(), layer.mask())
    assert loaded.layers[-1].get_config() == layer.get_config()

    model.save_weights(tmp_path / "model.weights.h5")
    fresh = small_model(case, seed=99)
    fresh.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(fresh(x), expected)
    assert fresh.layers[-1].k == 0.7

    tf.train.Checkpoint(model=model).write(str(tmp_path / "checkpoint"))
    fresh = small_model(case, seed=99)
    tf.train.Checkpoint(model=fresh).read(str(tmp_path / "checkpoint")).assert_consumed()
    np.testing.assert_array_equal(fresh(x), expected)
    assert fresh.layers[-1].k == 0.7

    clone = keras.models.clone_model(model)
    np.testing.assert_array_equal(clone.layers[-1].frozen_kernel.numpy(), layer.frozen_kernel.numpy())
    clone.set_weights(model.get_weights())
    np.testing.assert_array_equal(clone(x), expected)


@every_layer
def test_masked_layer_chooses_in_a_saved_model(case, tmp_path):
    x, model = inputs_of(case), small_model(case)
    model.export(tmp_path / "saved_model", verbose=False)
    artifact = tf.saved_model.load(tmp_path / "saved_model")
    np.testing.assert_allclose(artifact.serve(x), model(x), rtol=1e-6, atol=1e-6)


@every_layer
def test_masked_layer_passes_the_layer_test_of_keras(case):
    stock_arguments = {"k": 0.4, "seed": 7, **case.arguments}
    biased = case.arguments.get("use_bias", False) or "bias_axes" in case.arguments
    testing.TestCase().run_layer_test(
        case.masked,
        init_kwargs=stock_arguments,
        input_shape=case.input_shape,
        expected_output_shape=tuple(case.make().compute_output_shape(case.input_shape)),
        expected_num_trainable_weights=1 + biased,
        expected_num_non_trainable_weights=2,
        expected_num_losses=0,
        supports_masking=case.make().supports_masking,
    )


@every_layer
def test_masked_layer_is_made_by_its_seed(case):
    built = []
    for seed in (7, 7, 8):
        layer = case.make(seed=seed)
        layer.build(case.input_shape)
        built.append(layer)
    np.testing.assert_array_equal(built[0].frozen_kernel.numpy(), built[1].frozen_kernel.numpy())
    np.testing.assert_array_equal(built[0].scores.numpy(), built[1].scores.numpy())
    assert (built[0].frozen_kernel.numpy() != built[2].frozen_kernel.numpy()).any()
    assert (built[0].scores.numpy() != built[2].scores.numpy()).any()


@every_layer
def test_masked_layer_without_a_seed_records_its_own(case):
    first = case.make(seed=None)
    second = type(first).from_config(first.get_config())
    for layer in (first, second):
        layer.build(case.input_shape)
    np.testing.assert_array_equal(first.frozen_kernel.numpy(), second.frozen_kernel.numpy())
    np.testing.assert_array_equal(first.scores.numpy(), second.scores.numpy())


@every_layer
def test_masked_layer_has_regularizers(case):
    l2 = keras.regularizers.L2(0.5)
    layer = case.make(scores_regularizer=l2, **{f"{case.kernel_argument}_regularizer": l2})
    layer(inputs_of(case))
    layer(inputs_of(case))  # a second call of a shared layer adds nothing
    expected = sum(0.5 * np.sum(np.square(v)) for v in (layer.scores.numpy(), layer.kernel.numpy()))
    assert [float(loss) for loss in layer.losses] == pytest.approx([expected], rel=1e-5)
    with tf.GradientTape() as tape:
        loss = layer.losses[0]
    masked = layer.kernel.numpy() * layer.frozen_kernel.numpy() * np.sign(layer.scores.numpy())
    gradient = tape.gradient(loss, layer.scores.value)
    np.testing.assert_allclose(gradient, layer.scores.numpy() + masked, rtol=1e-4, atol=1e-6)
    again = type(layer).from_config(layer.get_config())
    assert again.scores_regularizer.l2 == 0.5


@every_layer
@pytest.mark.filterwarnings("ignore:Layer InputLayer does not have a `quantize`:UserWarning")
def test_masked_layer_lets_nothing_go_round_the_mask(case):
    model = small_model(case)
    layer = model.layers[-1]
    for bypass in (lambda: layer.quantize("int8"), lambda: layer.enable_lora(2), lambda: model.quantize("int8")):
        with pytest.raises(ValueError, match="Strip the masks first"):
            bypass()
    if "lora_rank" in inspect.signature(case.stock).parameters:
        with pytest.raises(ValueError, match="LoRA and quantized dtypes would bypass the mask"):
            case.make(lora_rank=2)


@every_layer
def test_masked_layer_has_constraints_leave_its_kernel_alone(case):
    layer = case.make(**{f"{case.kernel_argument}_constraint": "non_neg"})
    layer.build(case.input_shape)
    assert (layer.frozen_kernel.numpy() < 0).any()


@every_layer
def test_masked_layer_refuses_a_k_that_keeps_nothing(case):
    layer = case.make(k=1e-6, name="tiny")
    with pytest.raises(ValueError, match="keeps none of the .* weights of layer 'tiny'"):
        layer.build(case.input_shape)
    layer = case.make(k=0.5, name="tiny")
    layer.build(case.input_shape)
    with pytest.raises(ValueError, match="keeps none of the .* weights of layer 'tiny'"):
        layer.k = 1e-6
    assert layer.k == 0.5


@every_layer
def test_masked_layer_says_that_it_is_not_built(case):
    layer = case.make(name="early")
    assert layer.k == 0.4
    for read in (lambda: layer.kept, lambda: layer.kernel, lambda: layer.mask()):
        with pytest.raises(AttributeError, match="Layer 'early' has no .* before it is built"):
            read()


@pytest.mark.parametrize("case", [c for c in LAYERS if c.values[0].masked is not layers.MaskedEinsumDense])
def test_masked_layer_refuses_inputs_of_another_rank(case):
    layer = case.make()
    with pytest.raises(ValueError, match="expected min_ndim"):
        layer(np.zeros((2,), np.float32))


@pytest.mark.parametrize("k", [0, 1.5, float("nan"), "0.5x"])
def test_masked_layer_refuses_a_k_out_of_range(k):
    with pytest.raises(ValueError, match=r"must be a number in \(0, 1\]"):
        layers.MaskedDense(3, k=k)


def test_masked_layer_takes_another_k_without_a_new_trace():
    layer = layers.MaskedDense(10, k=1.0, seed=1)
    traces, kept = [], []

    class Watched(keras.Sequential):
        def call(self, inputs, training=None, mask=None):
            if training:
                traces.append(1)
            return super().call(inputs, training=training, mask=mask)

    class Shrink(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            layer.k = (0.8, 0.5, 0.2)[epoch]

        def on_epoch_end(self, epoch, logs=None):
            kept.append(int(layer.mask().numpy().sum()))

    model = Watched([keras.Input((8,)), layer])
    model.compile("sgd", "mse")
    x = np.ones((4, 8), np.float32)
    model.evaluate(x, np.ones((4, 10)), verbose=0)
    traces.clear()
    model.fit(x, np.ones((4, 10)), epochs=3, batch_size=4, verbose=0, callbacks=[Shrink()])
    assert kept == [64, 40, 16]
    assert len(traces) <= 2  # Keras traces a step symbolically before it does so for good
    assert layer.get_config()["k"] == 0.2


@every_layer
def test_masked_layer_sorts_nothing_in_a_step_by_xla(case):
    model = small_model(case)
    model.compile("sgd", "mse")
    x = inputs_of(case)
    data = x, np.ones(model.compute_output_shape(x.shape), np.float32)
    operations = operations_of(tf.function(model.train_step, jit_compile=True).get_concrete_function(data))
    assert "While" in operations or "StatelessWhile" in operations  # the search is among what is looked at
    assert not {op for op in operations if "Sort" in op or "TopK" in op}


@every_layer
def test_masked_layer_remembers_what_changes_nothing(case):
    x = inputs_of(case)
    layer, fresh = case.make(), case.make()
    outputs = layer(x).numpy()
    for hint in (0, 1 << 62, -5):
        layer.masked_kernels["kernel"]._hint.assign(hint)
        np.testing.assert_array_equal(layer(x), outputs)
    scores = np.random.default_rng(1).standard_normal(layer.scores.shape)
    fresh.build(case.input_shape)
    for either in (layer, fresh):
        either.scores.assign(scores)
    np.testing.assert_array_equal(layer(x), fresh(x))
    assert layer.masked_kernels["kernel"]._hint is not fresh.masked_kernels["kernel"]._hint
    assert len(layer.weights) == len(fresh.weights) == 3 + len(biases(layer))


@every_layer
def test_masked_layer_is_called_in_several_threads(case, monkeypatch):
    """Each has its own kernel, also where another begins and ends while it goes on."""
    layer, x = case.make(), inputs_of(case)
    expected = layer(x)
    began, ended, results, made = threading.Event(), threading.Event(), [], []
    kernel = layer.masked_kernels["kernel"]
    monkeypatch.setattr(kernel, "_remembered", None)  # each call makes its own, as in training
    stock_call, make = case.stock.call, kernel.masked

    def call(self, inputs):
        if threading.current_thread() is thread:
            began.set()
            assert ended.wait(60)
        return stock_call(self, inputs)

    monkeypatch.setattr(case.stock, "call", call)
    monkeypatch.setattr(kernel, "masked", lambda *a, **b: made.append(make(*a, **b)) or made[-1])
    thread = threading.Thread(target=lambda: results.append(layer(x)))
    thread.start()
    assert began.wait(60)
    results.append(layer(x))
    ended.set()
    thread.join()
    assert len(made) == 2
    for result in results:
        np.testing.assert_array_equal(result, expected)


def test_masked_layer_called_eagerly_warns_of_no_retracing():
    messages = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = logging.getLogger("tensorflow")
    logger.addHandler(handler)
    for units in range(20, 26):  # TensorFlow warns of the fifth
        layer = layers.MaskedDense(units, seed=1)
        layer(np.ones((1, 3), np.float32))
        layer.mask()
    logger.removeHandler(handler)
    assert not messages


def test_masked_layer_in_a_subclassed_model(tmp_path):
    @keras.saving.register_keras_serializable("test")
    class Net(keras.Model):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.conv = layers.MaskedConv2D(4, 3, seed=1)
            self.dense = layers.MaskedDense(3, seed=2)

        def call(self, inputs):
            return self.dense(keras.ops.mean(self.conv(inputs), axis=(1, 2)))

    x = np.random.default_rng(0).standard_normal((4, 6, 6, 2)).astype(np.float32)
    model = Net()
    model.compile("adam", "mse")
    model.fit(x, np.zeros((4, 3)), verbose=0)
    assert [v.name for v in model.trainable_variables] == ["scores", "scores"]
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))


def test_masked_layer_may_share_its_selector(tmp_path):
    selector = keras_popup.selectors.TopK()
    model = keras.Sequential(
        [keras.Input((5,)), layers.MaskedDense(4, selector=selector), layers.MaskedDense(3, selector=selector)]
    )
    x = np.ones((2, 5), np.float32)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))


@every_layer
def test_masked_layer_draws_masks_anew_in_training(case, tmp_path):
    """Training draws anew, evaluation does not; a saved layer goes on with the draws that it would have had."""
    selector = selectors.Bernoulli(rescale=True)
    model = small_model(case, selector=selector, scores_initializer=keras.initializers.RandomNormal(seed=3))
    layer = model.layers[-1]
    inputs = np.random.default_rng(1).standard_normal((3, *case.input_shape[1:])).astype(np.float32)
    assert layer.kept == int(layer.mask().numpy().sum()) == int((layer.scores.numpy() >= 0).sum())
    evaluated = model(inputs).numpy()
    mask = layer.mask(training=True).numpy()
    first, second = model(inputs, training=True).numpy(), model(inputs, training=True).numpy()
    assert not np.array_equal(first, second)
    assert not np.array_equal(layer.mask(training=True), mask)
    assert np.array_equal(model(inputs), evaluated)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.layers[-1].selector.rescale
    assert np.array_equal(loaded(inputs), evaluated)
    assert np.array_equal(loaded(inputs, training=True), model(inputs, training=True))
    twin = small_model(case, selector=selector, scores_initializer=keras.initializers.RandomNormal(seed=3))
    assert np.array_equal(twin(inputs, training=True), first)
    assert np.array_equal(keras_popup.strip_masks(model)(inputs), evaluated)


@pytest.mark.integration
@pytest.mark.parametrize("name", ["litert", "onnx"])
def test_masked_layer_refuses_exports_by_keras_itself(name, tmp_path):
    model = conv_net()
    model.predict(images(), verbose=0)
    with pytest.raises(ValueError, match="cannot be exported to this format with its mask"):
        model.export(tmp_path / PATHS[name], format=name, verbose=False)
    assert not os.listdir(tmp_path)
