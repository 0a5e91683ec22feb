"""The network and the optimizer of a run."""

import dataclasses

import keras
import numpy as np
import pytest
from small_runs import SMALL

import keras_popup
from keras_popup import conversion
from keras_popup.training import RunConfig, experiment


def test_build_model_in_the_precision_of_the_run_only(tmp_path):
    model = experiment.build_model(dataclasses.replace(SMALL, precision="mixed_bfloat16"), (8, 8, 1), 10)
    assert model.layers[1].compute_dtype == "bfloat16"
    assert keras.config.dtype_policy().name == "float32"


@pytest.mark.parametrize(("method", "l2"), [("edge-popup", 1e-2), ("dense", 1e-2), ("edge-popup", 0.0)])
def test_compile_model_with_coupled_weight_decay(method, l2):
    run = dataclasses.replace(SMALL, method=method, l2=l2).with_protocol()
    model = experiment.build_model(run, (8, 8, 1), 10)
    experiment.compile_model(model, run, steps=10)
    expected = sum(l2 / 2 * np.sum(np.square(v.numpy())) for v in model.trainable_variables)
    assert float(sum(model.losses)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("k", "expected"),
    [
        (0.6, [0.6, 0.6, 0.6, 0.6, 0.6]),
        ({"conv*": 0.3, "*": 0.6}, [0.3, 0.3, 0.6, 0.6, 0.6]),
        ({"conv1a": 0.2, "conv*": 0.3, "*": 0.5}, [0.2, 0.3, 0.5, 0.5, 0.5]),
        ({"conv*": 0.3, "dense*": 0.4, "classes": 1}, [0.3, 0.3, 0.4, 0.4, 1.0]),
        ({"conv*": 0.3, "dense*": 0.4, "classes": 1, "*": 0.6}, [0.3, 0.3, 0.4, 0.4, 1.0]),
    ],
)
def test_build_model_with_fractions_of_layers(k, expected):
    run = dataclasses.replace(SMALL, k=k).with_protocol()
    model = experiment.build_model(run, (8, 8, 1), 10)
    assert [layer.k for layer in model.layers if hasattr(layer, "kept")] == expected


def test_build_model_refuses_fractions_of_no_layer():
    run = dataclasses.replace(SMALL, k={"conv9": 0.3, "*": 0.5}).with_protocol()
    with pytest.raises(ValueError, match="matches no layer"):
        experiment.build_model(run, (8, 8, 1), 10)


@pytest.fixture
def nested_base(tmp_path):
    """The file of a base with a nested network, all of it frozen."""
    inside = keras.Sequential(
        [keras.Input((8, 8, 1)), keras.layers.Conv2D(4, 3), keras.layers.Flatten()], name="inside"
    )
    base = keras.Sequential([keras.Input((8, 8, 1)), inside, keras.layers.Dense(10, name="classes")], name="base")
    base.trainable = False
    base.save(tmp_path / "base.keras")
    return tmp_path / "base.keras"


def build_on(path, **arguments):
    run = RunConfig(model="base", base=str(path), **{"pixels": "standardized", **arguments})
    return experiment.build_model(run.with_protocol(), (8, 8, 1), 10, [keras.layers.Rescaling(1 / 9, -2)])


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [("0_to_255", [0, 255]), ("0_to_1", [0, 1]), ("-1_to_1", [-1, 1]), ("standardized", [-2, 255 / 9 - 2])],
)
def test_build_model_on_a_base_gives_it_the_pixels_that_it_takes(nested_base, pixels, expected):
    (layer, *_) = conversion.find_preprocessing(build_on(nested_base, pixels=pixels))
    np.testing.assert_allclose(layer(np.array([0.0, 255.0])), expected, atol=1e-5)


@pytest.mark.parametrize("pixels", ["0_to_1", None])
def test_build_model_gives_a_network_its_pixels(pixels):
    run = RunConfig(model="fc", width=0.1, pixels=pixels).with_protocol()
    model = experiment.build_model(run, (8, 8, 1), 10, [keras.layers.Rescaling(1 / 9, -2)])
    (layer, *_) = conversion.find_preprocessing(model)
    np.testing.assert_allclose(layer(np.array([0.0, 255.0])), [0, 1] if pixels else [-2, 255 / 9 - 2], atol=1e-5)


@pytest.mark.parametrize("l2", [0.0, 0.1])
def test_build_model_on_a_base_trains_all_of_it(nested_base, l2):
    base = keras.models.load_model(nested_base)
    model = build_on(nested_base, method="dense", l2=l2)
    assert len(model.trainable_variables) == len(base.variables) == 4
    for one, other in zip(base.variables, model.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    kernels = [variable for variable in model.variables if variable.name == "kernel"]
    expected = sum(l2 / 2 * np.sum(np.square(kernel.numpy())) for kernel in kernels)
    assert float(sum(model.losses)) == pytest.approx(expected, rel=1e-5)


def test_build_model_on_a_base_at_random_is_at_random(nested_base):
    def overlap(**arguments):
        (layer, *_) = keras_popup.masked_layers(build_on(nested_base, k=0.5, seed=3, **arguments))
        sizes = np.abs(layer.frozen_kernel.numpy())
        return np.mean((sizes > np.median(sizes)) == (layer.mask().numpy() != 0))

    assert overlap() == 1.0
    assert overlap(method="random") < 0.9
    assert overlap(scores_initializer="score_uniform") < 0.9


def test_build_model_on_a_base_that_takes_no_image_is_an_error(tmp_path):
    inputs = [keras.Input((4,)), keras.Input((4,))]
    model = keras.Model(inputs, keras.layers.Dense(10)(keras.layers.Add()(inputs)))
    model.save(tmp_path / "two.keras")
    with pytest.raises(ValueError, match="must be a Sequential or Functional model that takes one image"):
        build_on(tmp_path / "two.keras")
    (tmp_path / "none.keras").write_text("none")
    with pytest.raises(ValueError, match=r"must be a \.keras file. '.*none\.keras' is none, or is damaged"):
        build_on(tmp_path / "none.keras")


def test_the_scale_of_the_scores_is_the_learning_rate():
    """docs/recipes.md: without weight decay, SGD with scores and a rate 8 times as large finds the same masks."""
    x = np.random.default_rng(1).normal(size=(64, 12)).astype(np.float32)
    y = np.arange(64) % 4

    def find_masks(factor):
        plain = keras.Sequential([keras.Input((12,)), keras.layers.Dense(30, "relu"), keras.layers.Dense(4)])
        masked = keras_popup.mask_model(plain, k=0.5, seed=1)
        for layer in keras_popup.masked_layers(masked):
            layer.scores.assign(factor * layer.scores)
        begun = [layer.mask().numpy() for layer in keras_popup.masked_layers(masked)]
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        masked.compile(keras.optimizers.SGD(factor * 0.5, momentum=0.9), loss)
        masked.fit(x, y, batch_size=16, epochs=2, shuffle=False, verbose=0)
        return begun, [layer.mask().numpy() for layer in keras_popup.masked_layers(masked)]

    (begun, one), (_, other) = find_masks(1.0), find_masks(8.0)
    np.testing.assert_array_equal(np.concatenate(one, None), np.concatenate(other, None))
    assert not np.array_equal(np.concatenate(begun, None), np.concatenate(one, None))
