"""Layers with several masked kernels, tables of embeddings, cells of recurrent layers, and kernels of one's own."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from tables import INDICES, SEVERAL_KERNELS, small_model

import keras_popup
from keras_popup import layers, load_ticket, mask_model, mask_summary, save_ticket, strip_masks
from keras_popup.conversion import masked_kernels


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def inputs_of(case):
    if case in [row.values[0] for row in INDICES]:
        return np.random.default_rng(0).integers(0, 9, case.input_shape)
    return random(*case.input_shape)


def spread(model):
    """The model, every float variable but k a little away from where it began."""
    kept = {id(kernel.k_variable) for _, kernel in masked_kernels(model)}
    rng = np.random.default_rng(3)
    for variable in model.variables:
        if "float" in variable.dtype and id(variable) not in kept:
            variable.assign_add(0.1 * rng.standard_normal(variable.shape))
    return model


@pytest.fixture(params=[*SEVERAL_KERNELS, *INDICES], ids=lambda case: case.masked.__name__)
def case(request):
    return request.param


def test_equals_the_stock_layer(case):
    x = inputs_of(case)
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


def test_files_clones_and_tickets(case, tmp_path):
    x = inputs_of(case)
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


def test_the_kernels_of_a_layer_are_others():
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


def test_an_untied_embedding_has_two_tables(tmp_path):
    inputs = keras.Input((5,), dtype="int32")
    embedding = keras.layers.ReversibleEmbedding(9, 6, tie_weights=False, name="tokens")
    plain = spread(keras.Model(inputs, embedding(keras.layers.Dense(6)(embedding(inputs)), reverse=True)))
    x = np.random.default_rng(0).integers(0, 9, (2, 5))
    model = spread(mask_model(plain, k={"tokens/reverse_embeddings": 0.25, "*": 0.5}, weights="keep", seed=1))
    assert model.get_layer("tokens").k == {"embeddings": 0.5, "reverse_embeddings": 0.25}
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.get_layer("tokens").k == {"embeddings": 0.5, "reverse_embeddings": 0.25}
    for other in (loaded, strip_masks(loaded)):
        np.testing.assert_array_equal(other(x), model(x))


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
def test_recurrent_layers(name, selector, tmp_path):
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


def test_a_recurrent_layer_chooses_once_a_call(monkeypatch):
    model = mask_model(recurrent("lstm"), k=0.5, seed=1)
    chosen = []
    selector = next(kernel.selector for _, kernel in masked_kernels(model))
    choose = type(selector).masked_kernel
    monkeypatch.setattr(type(selector), "masked_kernel", lambda *args, **kw: chosen.append(1) or choose(*args, **kw))
    model(random(3, 5, 4))
    assert len(chosen) == 3  # two of the cell, one of the Dense; five time steps


def test_paths_of_kernels():
    plain = recurrent("lstm")
    model = mask_model(plain, k={"layer/lstm_cell/recurrent_kernel": 0.25, "layer/cell": 0.75, "*": 0.5}, seed=1)
    rows = {row.path: row.k for row in mask_summary(model, print_fn=len).layers}
    assert rows == {"layer/lstm_cell/kernel": 0.75, "layer/lstm_cell/recurrent_kernel": 0.25, "dense": 0.5}
    kept = mask_model(plain, k=0.5, weights="keep", exclude="layer/lstm_cell/recurrent_kernel", seed=1)
    assert [path for path, _ in masked_kernels(kept)] == ["layer/lstm_cell", "dense"]
    assert sorted(v.name for v in kept.trainable_variables) == ["recurrent_kernel", "scores", "scores"]
    x = random(3, 5, 4)
    np.testing.assert_array_equal(strip_masks(kept)(x), kept(x))


@keras.saving.register_keras_serializable("tests")
class Experts(keras.layers.Layer):
    """Kernels without names, for each of two experts, and a bias and a scale that are none."""

    def build(self, shape):
        self.w = self.add_weight(shape=(2, shape[-1], 3))
        self.v = self.add_weight(shape=(shape[-1], 3))
        self.scale = self.add_weight(shape=(3,), initializer="ones")

    def call(self, x):
        return self.scale * (keras.ops.max(keras.ops.einsum("bi,eio->beo", x, self.w), axis=1) + x @ self.v)


@pytest.fixture
def _experts():
    from keras_popup.layers import maskable

    keras_popup.register_maskable(Experts, kernels=("w", "v"), fans=lambda name, shape: (shape[-2], shape[-1]))
    yield
    maskable._MASKABLE.pop(Experts)


@pytest.mark.usefixtures("_experts")
@pytest.mark.parametrize("weights", ["random", "keep"])
def test_kernels_of_ones_own(weights, tmp_path):
    inputs = keras.Input((4,))
    plain = spread(keras.Model(inputs, keras.layers.Dense(2)(Experts(name="experts")(inputs))))
    x = random(3, 4)
    model = spread(mask_model(plain, k=0.5, weights=weights, seed=1))
    assert {path for path, _ in masked_kernels(model)} == {"experts/w", "experts/v", "dense"}
    names = sorted(v.path.split("/")[-1] for v in model.trainable_variables)
    assert names.count("scores") == 3
    assert len(names) == (3 if weights == "keep" else 4)  # `scale` is trained unless all is kept
    model.save(tmp_path / "model.keras")
    save_ticket(model, tmp_path / "model.ticket")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    again = load_ticket(tmp_path / "model.ticket", masked=True)
    for other in (loaded, strip_masks(model), load_ticket(tmp_path / "model.ticket"), again):
        np.testing.assert_array_equal(other(x), model(x))
    for other in (loaded, again):
        assert len(other.trainable_variables) == len(model.trainable_variables)


@pytest.mark.parametrize(
    ("arguments", "kind", "what"),
    [
        ((Experts(), ("w",)), TypeError, "must be a subclass"),
        ((dict, ("w",)), TypeError, "must be a subclass"),
        ((Experts, ()), ValueError, "names of attributes"),
        ((Experts, (1,)), ValueError, "names of attributes"),
    ],
)
def test_register_maskable_refuses(arguments, kind, what):
    with pytest.raises(kind, match=what):
        keras_popup.register_maskable(*arguments)


@keras.saving.register_keras_serializable("tests")
class Renamed(keras.layers.Dense):
    """Overrides nothing."""


@keras.saving.register_keras_serializable("tests")
class Doubled(keras.layers.Dense):
    """Has a `call` of its own."""

    def call(self, inputs, training=None):
        return 2 * super().call(inputs)


def test_subclasses_of_maskable_layers(tmp_path):
    inputs = keras.Input((4,))
    plain = spread(keras.Model(inputs, Doubled(3, name="doubled")(Renamed(5, name="renamed")(inputs))))
    model = spread(mask_model(plain, k=0.5, weights="keep", seed=1))
    rows = {row.path: row.not_masked for row in mask_summary(model, print_fn=len).layers}
    assert rows == {"renamed": "", "doubled": "a subclass of Dense with its own code"}
    x = random(3, 4)
    model.save(tmp_path / "model.keras")
    stripped = strip_masks(model)
    assert [type(layer) for layer in stripped.layers[1:]] == [Renamed, Doubled]
    for other in (keras.models.load_model(tmp_path / "model.keras"), stripped):
        np.testing.assert_array_equal(other(x), model(x))


def test_under_a_remat_scope():
    inputs = keras.Input((4,))
    with keras.RematScope("full"):
        stack = [keras.layers.Conv1D(3, 1), keras.layers.Flatten(), keras.layers.Dense(3), keras.layers.Dense(2)]
    x = keras.layers.Reshape((2, 2))(inputs)
    for layer in stack:
        x = layer(x)
    plain = keras.Model(inputs, x)
    model, other = (mask_model(plain, k=0.5, seed=1) for _ in range(2))
    assert all(layer._remat_mode for layer in model.layers[2:])
    for layer in other.layers:
        layer._remat_mode = None
    for each in (model, other):
        each.compile(keras.optimizers.SGD(0.1), "mse")
        each.fit(random(4, 4), np.ones((4, 2)), verbose=0)
    for a, b in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_a_kernel_under_spectral_normalization_that_is_kept_stays():
    inputs = keras.Input((4,))
    wrapped = keras.layers.SpectralNormalization(keras.layers.Dense(4, name="inner"))
    plain = keras.Model(inputs, keras.layers.Dense(2)(wrapped(inputs)))
    model = mask_model(plain, k=0.5, weights="keep", seed=1)
    before = [v.numpy() for v in model.layers[1].weights]
    model(random(3, 4), training=True)
    model.compile("sgd", "mse")
    model.fit(random(4, 4), np.ones((4, 2)), verbose=0)
    for weight, value in zip(model.layers[1].weights, before, strict=True):
        np.testing.assert_array_equal(weight, value)


def test_masking_in_place_or_not_at_all():
    inputs = keras.Input((4,))
    plain = keras.Model(inputs, keras.layers.Dense(2, name="small")(keras.layers.Dense(3, name="large")(inputs)))
    before = plain.get_config(), plain.get_weights(), [v.trainable for v in plain.variables]

    class Broken(keras_popup.selectors.TopK):
        def __init__(self):
            self.made = 0

        @property
        def scores_initializer(self):
            return lambda shape, dtype=None: tf.zeros(shape) if shape == (4, 3) else 1 / 0

    with pytest.raises(ZeroDivisionError):
        mask_model(plain, k=0.5, selector=Broken(), seed=1, copy=False)
    assert [type(layer).__name__ for layer in plain.layers] == ["InputLayer", "Dense", "Dense"]
    assert plain.get_config() == before[0]
    assert [v.trainable for v in plain.variables] == before[2]
    for a, b in zip(plain.get_weights(), before[1], strict=True):
        np.testing.assert_array_equal(a, b)
    plain.compile("sgd", "mse")
    plain.fit(random(4, 4), np.ones((4, 2)), verbose=0)


def test_a_compiled_model_masked_in_place_must_be_compiled_again():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(2)])
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    x, y = random(8, 4), np.ones((8, 2))
    model.fit(x, y, verbose=0)
    mask_model(model, k=0.5, seed=1, copy=False)
    with pytest.raises(ValueError, match="must call `compile\\(\\)`"):
        model.fit(x, y, verbose=0)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    kernels = [kernel.kernel.numpy() for _, kernel in masked_kernels(model)]
    model.fit(x, y, verbose=0)
    model.trainable = False
    model.trainable = True
    model.compile("sgd", "mse")
    model.fit(x, y, verbose=0)
    for (_, kernel), before in zip(masked_kernels(model), kernels, strict=True):
        np.testing.assert_array_equal(kernel.kernel, before)
    np.testing.assert_allclose(model.predict(x, verbose=0), model(x), atol=1e-6)
    masked = model(x)
    strip_masks(model, copy=False)
    np.testing.assert_allclose(model(x), masked, atol=1e-6)
    np.testing.assert_allclose(model.predict(x, verbose=0), masked, atol=1e-6)
    model.compile("sgd", "mse")
    model.fit(x, y, verbose=0)


def test_a_variable_that_two_layers_own_is_left_alone():
    class Borrows(keras.layers.Layer):
        def __init__(self, dense, **kwargs):
            super().__init__(**kwargs)
            self.kernel = dense.kernel

        def call(self, x):
            return x @ self.kernel

    dense = keras.layers.Dense(4, name="lent")
    dense.build((None, 4))
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(2)(Borrows(dense)(dense(inputs))))
    x = random(3, 4)
    before = model(x)
    mask_model(model, k=1.0, weights="keep", seed=1, copy=False)
    assert [path for path, _ in masked_kernels(model)] == ["dense"]
    np.testing.assert_array_equal(model(x), before)


@pytest.mark.parametrize(
    ("model", "what"),
    [
        (keras.layers.Dense(3), "a layer, Dense.*Put it into a model"),
        (np.ones(3), "ndarray"),
        (tf.ones(3), "a tensor.*keras.Model\\(inputs, tensor\\)"),
        (keras.Input((3,)), "a tensor"),
        ([keras.layers.Dense(3)], "a list.*keras.Sequential\\(layers\\)"),
        ("model.keras", "load_model\\('model.keras'\\)"),
        (keras.Model, "the class Model.*Pass an object"),
        (type("Model", (), {"__module__": "tf_keras.src.engine.training"})(), "of the package tf_keras.*Keras 3"),
    ],
    ids=["layer", "array", "tensor", "symbol", "list", "text", "class", "tf_keras"],
)
def test_what_is_no_model(model, what):
    with pytest.raises(TypeError, match=what):
        mask_model(model, seed=1)


@keras.saving.register_keras_serializable("tests")
class WithoutConfig(keras.layers.Layer):
    """Keras makes its config of the arguments, as it has no `get_config`."""

    def __init__(self, units, depth, **kwargs):
        super().__init__(**kwargs)
        self.parts = [keras.layers.Dense(units) for _ in range(depth)]

    def call(self, x):
        for part in self.parts:
            x = keras.ops.tanh(part(x))
        return x


@pytest.mark.filterwarnings("ignore:.*`build\\(\\)` was called on layer:UserWarning")
def test_configs_that_keras_makes(tmp_path):
    inputs = keras.Input((4,))
    plain = spread(keras.Model(inputs, WithoutConfig(4, 3)(WithoutConfig(4, depth=2)(inputs))))
    model = spread(mask_model(plain, k=0.5, seed=1))
    assert len(masked_kernels(model)) == 5
    x = random(3, 4)
    model.save(tmp_path / "model.keras")
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    for other in (keras.models.load_model(tmp_path / "model.keras"), clone, strip_masks(model)):
        np.testing.assert_array_equal(other(x), model(x))
