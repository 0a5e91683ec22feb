"""mask_model and strip_masks: the library's models, and the table of others."""

import logging
import subprocess
import sys
import textwrap

import blocks
import keras
import numpy as np
import pytest
from converted import fit_once, masked_layers, moved, outputs_of
from hypothesis import given, settings
from hypothesis import strategies as st
from tables import INITIALIZERS, MODELS, plain_model

from keras_popup import initializers, layers, mask_model, mask_summary, models, strip_masks
from keras_popup.conversion import masked_kernels
from keras_popup.layers import tree
from keras_popup.layers.maskable import kernels_of


@pytest.mark.parametrize("name", models._MODELS)
def test_every_model(name):
    plain = models.get(name)((32, 32, 3), 10, width=0.06)
    model = mask_model(plain, k=0.3, seed=1)
    assert [layer.name for layer in model.layers] == [layer.name for layer in plain.layers]
    kernels = [v for v in plain.trainable_variables if v.name == "kernel"]
    assert [layer.scores.shape for layer in masked_layers(model)] == [v.shape for v in kernels]
    assert {v.name for v in model.trainable_variables} == {"scores"}
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert all(not layer.center and not layer.scale and layer.moving_mean is not None for layer in norms)


@pytest.mark.parametrize("name", ["fc", pytest.param("resnet18", marks=pytest.mark.slow)])
def test_save_and_load(name, tmp_path):
    model = mask_model(models.get(name)((32, 32, 3), 10, width=0.06), k=0.3, seed=1)
    x = np.random.default_rng(0).standard_normal((2, 32, 32, 3)).astype(np.float32)
    expected = model.predict(x, verbose=0)
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "model.keras").predict(x, verbose=0), expected)


def test_seeds():
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


def test_the_given_model_is_left_alone():
    plain = models.FullyConnected(width=0.1)
    before = plain.get_config(), plain.get_weights()
    mask_model(plain, k=0.5, seed=1)
    assert plain.get_config() == before[0]
    for a, b in zip(plain.get_weights(), before[1], strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", INITIALIZERS)
def test_arguments_reach_the_layers(name):
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


@pytest.fixture(params=MODELS, ids=lambda case: case.name)
def case(request):
    return request.param


@pytest.mark.filterwarnings("ignore:.*`build\\(\\)` was called on layer:UserWarning")
@pytest.mark.parametrize("weights", ["random", pytest.param("keep", marks=pytest.mark.slow)])
def test_convert_train_save_load_strip(case, weights, tmp_path, caplog):
    plain = moved(case.make())
    inputs = case.inputs(plain)
    with caplog.at_level(logging.WARNING, "keras_popup"):
        model = mask_model(plain, k=0.5, weights=weights, seed=1)

    left = [layer for path, layer in tree.walk(plain) if path in case.not_masked]
    maskable = [layer for _, layer in tree.walk(plain) if kernels_of(layer) and layer not in left]
    assert len(masked_layers(model)) == len(maskable)
    assert caplog.text.count("Without a mask") == bool(case.not_masked)
    rows = {row.path: row.not_masked for row in mask_summary(model, print_fn=len).layers}
    for path, reason in case.not_masked.items():
        assert f"{path} (" in caplog.text
        assert reason in caplog.text
        assert reason in rows[path]
    if not case.not_masked:
        assert {v.name for v in model.trainable_variables} == {"scores"}

    fixed = [kernel.kernel.numpy() for _, kernel in masked_kernels(model)]
    fit_once(model, inputs)
    for (_, kernel), before in zip(masked_kernels(model), fixed, strict=True):
        np.testing.assert_array_equal(kernel.kernel, before)

    expected = outputs_of(model, inputs)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    stripped = strip_masks(loaded)
    if tree.is_graph(plain):
        assert [layer.name for layer in stripped.layers] == [layer.name for layer in plain.layers]
    assert [type(a) for _, a in tree.walk(stripped)] == [type(b) for _, b in tree.walk(plain)]
    stripped.save(tmp_path / "stripped.keras")
    for other in (loaded, stripped, keras.models.load_model(tmp_path / "stripped.keras")):
        for a, b in zip(outputs_of(other, inputs), expected, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.filterwarnings("ignore:.*`build\\(\\)` was called on layer:UserWarning")
def test_keeping_all_weights_keeps_the_outputs(case):
    plain = moved(case.make())
    inputs = case.inputs(plain)
    model = mask_model(plain, k=1.0, weights="keep", seed=1)
    for a, b in zip(outputs_of(model, inputs), outputs_of(plain, inputs), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_given_model_is_left_alone_by_strip():
    model = mask_model(models.FullyConnected(width=0.1), k=0.5, seed=1)
    before = model.get_config(), model.get_weights()
    strip_masks(model)
    assert model.get_config() == before[0]
    for a, b in zip(model.get_weights(), before[1], strict=True):
        np.testing.assert_array_equal(a, b)


def test_stripped_models_load_without_keras_popup(tmp_path):
    plain = strip_masks(mask_model(models.FullyConnected((4, 4, 1), width=0.1), k=0.5, seed=1))
    plain.save(tmp_path / "plain.keras")
    x = np.random.default_rng(0).random((2, 4, 4, 1))
    np.save(tmp_path / "x.npy", x)
    code = """
        import sys, keras, numpy
        model = keras.models.load_model("plain.keras")
        assert "keras_popup" not in sys.modules
        numpy.save("y.npy", model.predict(numpy.load("x.npy"), verbose=0))
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=tmp_path, check=True, capture_output=True)
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), plain.predict(x, verbose=0))


def test_shared_layers_stay_shared():
    plain = plain_model("shared_two_in_two_out")
    model = mask_model(plain, k=0.5, seed=1)
    assert len(masked_layers(model)) == 5
    assert len(model.trainable_variables) == 5


def test_names_of_inputs_stay():
    plain = plain_model("shared_two_in_two_out")
    model = strip_masks(mask_model(plain, k=0.5, seed=1))
    assert [x.name for x in model.inputs] == ["left", "right"]
    assert model.output_names == plain.output_names


def test_k_by_pattern_and_by_function():
    plain = plain_model("block_of_blocks")
    model = mask_model(plain, k={"query": 0.25, "encoder/feed_forward": 0.75, "*": 0.5}, seed=1)
    ks = {path: layer.k for path, layer in tree.walk(model) if isinstance(layer, layers.MaskedLayer)}
    assert ks == {
        "encoder/attention/query": 0.25,
        "encoder/attention/key": 0.5,
        "encoder/attention/value": 0.5,
        "encoder/attention/attention_output": 0.5,
        "encoder/feed_forward/blocks/0": 0.75,
        "encoder/feed_forward/blocks/1": 0.75,
    }
    model = mask_model(plain, k=lambda layer: 0.25 if isinstance(layer, keras.layers.Dense) else 1.0, seed=1)
    assert sorted(layer.k for layer in masked_layers(model)) == [0.25] * 2 + [1.0] * 4


@pytest.mark.parametrize(
    "exclude", ["classes", ["class*"], lambda layer: layer.name == "classes"], ids=["name", "pattern", "function"]
)
@pytest.mark.parametrize("weights", ["random", "keep"])
def test_exclude(exclude, weights):
    plain = models.FullyConnected((4, 4, 1), width=0.1)
    model = mask_model(plain, k=0.5, weights=weights, exclude=exclude, seed=1)
    head = model.get_layer("classes")
    assert type(head) is keras.layers.Dense
    np.testing.assert_array_equal(head.kernel, plain.get_layer("classes").kernel)
    assert [v.path for v in head.trainable_variables] == [head.kernel.path]
    # The others have the seeds that they have without it.
    whole = mask_model(plain, k=0.5, weights=weights, seed=1)
    assert [layer.seed for layer in masked_layers(model)] == [layer.seed for layer in masked_layers(whole)][:2]


def test_exclude_covers_what_a_layer_holds():
    plain = plain_model("transformer")
    model = mask_model(plain, k=0.5, exclude="attention1", seed=1)
    assert type(model.get_layer("attention1")) is keras.layers.MultiHeadAttention
    assert len(masked_layers(model)) == 1 + 4 + 5


def test_a_frozen_model_is_thawed_where_it_is_masked():
    plain = plain_model("nested_sequential")
    plain.trainable = False
    model = mask_model(plain, k=0.5, weights="keep", seed=1)
    assert [v.name for v in model.trainable_variables] == ["scores", "scores"]


@pytest.mark.parametrize("weights", ["random", "keep"])
def test_biases_and_norms_are_trained_on_request(weights):
    plain = moved(plain_model("nested_sequential"))
    model = mask_model(plain, k=0.5, weights=weights, train_biases=True, train_norms=True, seed=1)
    names = sorted(v.name for v in model.trainable_variables)
    assert names == ["beta", "beta", "bias", "bias", "gamma", "gamma", "scores", "scores"]
    same = [
        (a == b).all()
        for a, b in zip(plain.get_layer("norm").get_weights(), model.get_layer("norm").get_weights(), strict=True)
    ]
    assert all(same) == (weights == "keep")


def test_a_layer_that_cannot_be_copied_is_shared(caplog):
    function = blocks.WithoutConfig(keras.ops.relu)
    inputs = keras.Input((4,))
    plain = keras.Model(inputs, keras.layers.Dense(3)(function(inputs)))
    model = mask_model(plain, k=0.5, seed=1)
    assert function in model.layers
    assert len(masked_layers(model)) == 1


@given(
    stack=st.lists(st.sampled_from(["conv", "depthwise", "norm", "branch", "shared", "transpose", "pool"]), max_size=5)
)
@settings(max_examples=8, deadline=None, derandomize=True)
def test_random_graphs(stack):
    shared = keras.layers.Conv2D(4, 3, padding="same", activation="relu")
    makers = {
        "conv": lambda x: keras.layers.Conv2D(4, 3, padding="same")(x),
        "depthwise": lambda x: keras.layers.DepthwiseConv2D(3, padding="same", activation="relu")(x),
        "norm": lambda x: keras.layers.BatchNormalization()(x),
        "branch": lambda x: keras.layers.Add()([keras.layers.Conv2D(4, 1)(x), keras.layers.ReLU()(x)]),
        "shared": shared,
        "transpose": lambda x: keras.layers.Conv2DTranspose(4, 3, padding="same")(x),
        "pool": lambda x: keras.layers.Concatenate()([x[..., :2], keras.layers.MaxPooling2D(1)(x)[..., 2:]]),
    }
    inputs = keras.Input((4, 4, 4))
    x = inputs
    for kind in stack:
        x = makers[kind](x)
    plain = keras.Model(inputs, keras.layers.Dense(4)(keras.layers.GlobalAveragePooling2D()(x)))
    model = mask_model(plain, k=0.5, seed=1)
    images = [np.random.default_rng(0).random((4, 4, 4, 4)).astype(np.float32)]
    fit_once(model, images)
    stripped = strip_masks(model)
    assert [layer.name for layer in stripped.layers] == [layer.name for layer in plain.layers]
    assert not masked_layers(stripped)
    np.testing.assert_array_equal(outputs_of(stripped, images)[0], outputs_of(model, images)[0])


def test_operations_between_layers():
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


@pytest.mark.parametrize(
    "convert", [lambda m: mask_model(m, seed=1), strip_masks, mask_summary], ids=["mask", "strip", "summary"]
)
@pytest.mark.parametrize("model", [None, "conv4", keras.layers.Dense(3)], ids=["none", "name", "layer"])
def test_not_a_model(model, convert):
    with pytest.raises(TypeError, match="takes a keras.Model"):
        convert(model)


def test_a_sequential_model_with_a_forward_pass_of_its_own():
    doubling = Doubling([keras.Input((3,)), keras.layers.Dense(3, name="dense")], name="doubling")
    plain = keras.Sequential([keras.Input((3,)), doubling, keras.layers.Dense(3, name="head")])
    for each, paths in ((doubling, ["dense"]), (plain, ["doubling/dense", "head"])):
        model = mask_model(each, k=1.0, weights="keep", seed=1)
        assert [row.path for row in mask_summary(model, print_fn=len).layers] == paths
        x = np.ones((2, 3), np.float32)
        np.testing.assert_array_equal(model(x), each(x))
        np.testing.assert_array_equal(strip_masks(model)(x), each(x))


def test_errors():
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


def test_masks_made_by_other_code_are_not_stripped():
    @keras.saving.register_keras_serializable("tests")
    class Own(keras.layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.dense = layers.MaskedDense(3, seed=1)

        def call(self, x):
            return self.dense(x)

    inputs = keras.Input((4,))
    with pytest.raises(ValueError, match="cannot be stripped"):
        strip_masks(keras.Model(inputs, Own()(inputs)))
