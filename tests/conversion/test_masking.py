"""mask_model: what is masked, what stays as it was, what is refused."""

import blocks
import keras
import numpy as np
import pytest
from converted import masked_layers, moved, outputs_of, random
from tables import INITIALIZERS, every_model, plain_model

from keras_popup import initializers, layers, mask_model, mask_summary, models, strip_masks
from keras_popup.conversion import masked_kernels


def test_mask_model_keeps_a_kernel_under_spectral_normalization():
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


def test_mask_model_in_place_asks_for_another_compile():
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


def test_mask_model_leaves_a_variable_of_two_layers_alone():
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


@pytest.mark.parametrize("name", models._MODELS)
def test_mask_model_of_every_network(name):
    plain = models.get(name)((32, 32, 3), 10, width=0.06)
    model = mask_model(plain, k=0.3, seed=1)
    assert [layer.name for layer in model.layers] == [layer.name for layer in plain.layers]
    kernels = [v for v in plain.trainable_variables if v.name == "kernel"]
    assert [layer.scores.shape for layer in masked_layers(model)] == [v.shape for v in kernels]
    assert {v.name for v in model.trainable_variables} == {"scores"}
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert all(not layer.center and not layer.scale and layer.moving_mean is not None for layer in norms)


@pytest.mark.parametrize("name", ["fc", pytest.param("resnet18", marks=pytest.mark.slow)])
def test_mask_model_of_a_network_is_saved_and_loaded(name, tmp_path):
    model = mask_model(models.get(name)((32, 32, 3), 10, width=0.06), k=0.3, seed=1)
    x = np.random.default_rng(0).standard_normal((2, 32, 32, 3)).astype(np.float32)
    expected = model.predict(x, verbose=0)
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "model.keras").predict(x, verbose=0), expected)


def test_mask_model_follows_its_seed():
    def kernels(seed):
        return [
            layer.frozen_kernel.numpy()
            for layer in masked_layers(mask_model(models.Conv4(width=0.1), k=0.5, seed=seed))
        ]

    first, again, other = kernels(1), kernels(1), kernels(2)
    for a, b, c in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(a, b)
        assert (a != c).any()
    seeds = [layer.seed for layer in masked_layers(mask_model(models.ResNet18(width=0.1), k=0.5, seed=1))]
    assert len(set(seeds)) == len(seeds)


def test_mask_model_leaves_the_given_model_alone():
    plain = models.FullyConnected(width=0.1)
    before = plain.get_config(), plain.get_weights()
    mask_model(plain, k=0.5, seed=1)
    assert plain.get_config() == before[0]
    for a, b in zip(plain.get_weights(), before[1], strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", INITIALIZERS)
def test_mask_model_gives_its_arguments_to_the_layers(name):
    model = mask_model(
        models.FullyConnected(width=0.1),
        k=0.25,
        kernel_initializer=initializers.INITIALIZERS[name](scaled=True),
        scores_regularizer=keras.regularizers.L2(0.1),
        seed=3,
    )
    for layer in masked_layers(model):
        assert layer.k == 0.25
        assert layer.scores_regularizer.l2 == pytest.approx(0.1)
        assert type(layer.kernel_initializer) is initializers.INITIALIZERS[name]
        assert layer.kernel_initializer.scaled
    assert len(model.losses) == 3


@pytest.mark.filterwarnings("ignore:.*`build\\(\\)` was called on layer:UserWarning")
@every_model
def test_mask_model_that_keeps_all_keeps_the_outputs(case):
    plain = moved(case.make())
    inputs = case.inputs(plain)
    model = mask_model(plain, k=1.0, weights="keep", seed=1)
    for a, b in zip(outputs_of(model, inputs), outputs_of(plain, inputs), strict=True):
        np.testing.assert_array_equal(a, b)


def test_mask_model_leaves_shared_layers_shared():
    plain = plain_model("shared_two_in_two_out")
    model = mask_model(plain, k=0.5, seed=1)
    assert len(masked_layers(model)) == 5
    assert len(model.trainable_variables) == 5


def test_mask_model_thaws_a_frozen_model_where_it_masks():
    plain = plain_model("nested_sequential")
    plain.trainable = False
    model = mask_model(plain, k=0.5, weights="keep", seed=1)
    assert [v.name for v in model.trainable_variables] == ["scores", "scores"]


@pytest.mark.parametrize("weights", ["random", "keep"])
def test_mask_model_trains_biases_and_norms_on_request(weights):
    plain = moved(plain_model("nested_sequential"))
    model = mask_model(plain, k=0.5, weights=weights, train_biases=True, train_norms=True, seed=1)
    names = sorted(v.name for v in model.trainable_variables)
    assert names == ["beta", "beta", "bias", "bias", "gamma", "gamma", "scores", "scores"]
    same = [
        (a == b).all()
        for a, b in zip(plain.get_layer("norm").get_weights(), model.get_layer("norm").get_weights(), strict=True)
    ]
    assert all(same) == (weights == "keep")


def test_mask_model_of_kept_weights_starts_as_magnitude_pruning():
    stack = [keras.Input((30,)), keras.layers.Dense(20, name="learned"), keras.layers.Dense(9, name="constant")]
    plain = keras.Sequential(stack)
    plain.get_layer("constant").kernel.assign(np.where(np.arange(9) % 2, 0.1, -0.1) * np.ones((20, 1)))
    model = mask_model(plain, k=0.3, weights="keep", seed=1)
    sizes = np.abs(plain.get_layer("learned").kernel.numpy())
    expected = sizes >= np.sort(sizes, None)[-180]
    np.testing.assert_array_equal(model.get_layer("learned").mask().numpy() != 0, expected)
    # Weights of one size have no order: their first mask is drawn, and not that of the first ones.
    assert type(model.get_layer("constant").scores_initializer).__name__ == "ScoreUniform"
    for arguments, name in [
        ({"weights": "keep", "scores_initializer": "score_uniform"}, "ScoreUniform"),
        ({"weights": "keep", "selector": "bernoulli"}, "Zeros"),
        ({}, "ScoreUniform"),
    ]:
        layer = mask_model(plain, k=0.3, seed=1, **arguments).get_layer("learned")
        assert type(layer.scores_initializer).__name__ == name


def test_mask_model_leaves_operations_between_layers():
    inputs = keras.Input((4,))
    outputs = keras.ops.relu(keras.layers.Dense(3)(inputs)) * 2.0 + 1.0
    model = mask_model(keras.Model(inputs, outputs), k=0.5, seed=1)
    x = np.ones((2, 4), np.float32)
    (layer,) = masked_layers(model)
    np.testing.assert_allclose(model.predict(x, verbose=0), 1 + 2 * np.maximum(layer(x), 0), rtol=1e-6)


@keras.saving.register_keras_serializable("tests")
class Doubling(keras.Sequential):
    def call(self, inputs, training=None, mask=None):
        return 2 * super().call(inputs, training=training, mask=mask)


def test_mask_model_of_a_sequential_with_a_call_of_its_own():
    doubling = Doubling([keras.Input((3,)), keras.layers.Dense(3, name="dense")], name="doubling")
    plain = keras.Sequential([keras.Input((3,)), doubling, keras.layers.Dense(3, name="head")])
    for each, paths in ((doubling, ["dense"]), (plain, ["doubling/dense", "head"])):
        model = mask_model(each, k=1.0, weights="keep", seed=1)
        assert [row.path for row in mask_summary(model, print_fn=len).layers] == paths
        x = np.ones((2, 3), np.float32)
        np.testing.assert_array_equal(model(x), each(x))
        np.testing.assert_array_equal(strip_masks(model)(x), each(x))


def test_mask_model_refuses_what_cannot_be():
    plain = models.FullyConnected(width=0.1)
    with pytest.raises(ValueError, match=r"must be a number in \(0, 1\]"):
        mask_model(plain, k=0.0, seed=1)
    with pytest.raises(ValueError, match="keeps none of the 300 weights of layer 'dense2'"):
        mask_model(plain, k=0.001, seed=1)
    with pytest.raises(ValueError, match="`seed` must be an integer"):
        mask_model(plain, k=0.5, seed=-1)
    with pytest.raises(ValueError, match="Unknown selector"):
        mask_model(plain, k=0.5, selector="best", seed=1)
    with pytest.raises(ValueError, match="Unknown initializer"):
        mask_model(plain, k=0.5, kernel_initializer="best", seed=1)
    with pytest.raises(ValueError, match="must have no seed of its own"):
        mask_model(plain, k=0.5, kernel_initializer=initializers.SignedConstant(seed=4), seed=1)
    with pytest.raises(ValueError, match="is masked already: layer 'dense1'"):
        mask_model(mask_model(plain, k=0.5, seed=1), k=0.5, seed=1)
    with pytest.raises(ValueError, match="has no layer that can be masked"):
        mask_model(keras.Sequential([keras.Input((3,)), keras.layers.ReLU()]), k=0.5, seed=1)
    with pytest.raises(ValueError, match="`exclude` has a pattern that matches no layer. Received: 'haed'"):
        mask_model(plain, k=0.5, exclude="haed", seed=1)
    with pytest.raises(ValueError, match="`k` has a pattern that matches no layer. Received: 'haed'"):
        mask_model(plain, k={"haed": 0.1, "*": 0.5}, seed=1)
    with pytest.raises(ValueError, match=r"entries without effect: \['dense1'\]"):
        mask_model(plain, k={"*": 0.5, "dense1": 0.1}, seed=1)
    with pytest.raises(ValueError, match="`k` has no entry for layer 'dense2'"):
        mask_model(plain, k={"dense1": 0.1}, seed=1)
    with pytest.raises(ValueError, match="`weights` must be 'random' or 'keep'"):
        mask_model(plain, k=0.5, weights="trained", seed=1)
    with pytest.raises(ValueError, match="is not built"):
        mask_model(keras.Sequential([keras.layers.Dense(3)]), k=0.5, weights="keep", seed=1)
    with pytest.raises(ValueError, match="has no masked layer"):
        strip_masks(plain)
    with pytest.raises(ValueError, match="has no masked layer"):
        mask_summary(plain)


@pytest.mark.parametrize("exclude", [(), "first"])
def test_mask_model_begins_normalizations_in_code_anew(exclude):
    plain = moved(keras.Sequential([keras.Input((4,)), blocks.NormalizedTwice(name="block")]))
    masked = mask_model(plain, k=0.5, exclude=exclude, seed=1)
    given, norm = plain.layers[0].first, masked.layers[0].first
    assert masked.layers[0].again[0] is norm
    assert type(masked.layers[0].dense) is layers.MaskedDense
    if exclude:
        for a, b in zip(norm.get_weights(), given.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
    else:  # anew, and frozen
        values = {v.name: v.numpy().tolist() for v in norm.weights}
        assert values == {"gamma": [1] * 4, "beta": [0] * 4, "moving_mean": [0] * 4, "moving_variance": [1] * 4}
        masked.trainable = False
        masked.trainable = True
        assert [v.name for v in masked.trainable_variables] == ["scores"]


def test_mask_model_in_place_of_what_cannot_be_copied():
    class Closed(keras.layers.Layer):
        def __init__(self, function):
            super().__init__()
            self.function = function
            self.dense = keras.layers.Dense(4)

        def call(self, x):
            return self.function(self.dense(x))

    inputs = keras.Input((4,))
    plain = moved(keras.Model(inputs, keras.layers.Dense(2)(Closed(lambda x: 2 * x)(inputs))))
    x = random(3, 4)
    before = plain(x)
    with pytest.raises(TypeError, match="(?s)Closed 'closed' cannot be copied from its config.*`copy=False`"):
        mask_model(plain, k=0.5, seed=1)
    assert mask_model(plain, k=1.0, weights="keep", seed=1, copy=False) is plain
    assert len(masked_layers(plain)) == 2
    np.testing.assert_array_equal(plain(x), before)
    assert strip_masks(plain, copy=False) is plain
    assert not masked_layers(plain)
    np.testing.assert_array_equal(plain(x), before)


def test_mask_model_refuses_a_model_that_is_not_built():
    for weights in ("random", "keep"):
        with pytest.raises(ValueError, match="is not built.*Call it on data first, or give it an Input"):
            mask_model(keras.Sequential([blocks.Encoder(2)]), k=0.5, weights=weights, seed=1)


def test_signed_masks_of_a_kept_model_begin_with_its_own_signs():
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(7), keras.layers.Dense(3)])
    masked = mask_model(model, k=1.0, selector="signed", weights="keep", seed=1)
    inputs = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    np.testing.assert_array_equal(masked(inputs), model(inputs))
