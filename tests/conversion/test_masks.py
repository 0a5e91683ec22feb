"""set_k and compare_masks, on whole models."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tables import MODELS

import keras_popup
from keras_popup.conversion import masked_kernels


def small(k=0.3, seed=1, units=20):
    layers = [keras.layers.Dense(units, name="first"), keras.layers.Dense(5, name="second")]
    return keras_popup.mask_model(keras.Sequential([keras.Input((10,)), *layers]), k=k, seed=seed)


def fractions(model):
    return [kernel.k for _, kernel in masked_kernels(model)]


@pytest.mark.parametrize(
    ("k", "expected"),
    [
        (0.7, [0.7, 0.7]),
        ({"second": 0.9}, [0.3, 0.9]),
        ({"first": 0.2, "*": 0.4}, [0.2, 0.4]),
        (lambda layer: layer.units / 100, [0.2, 0.05]),
    ],
)
def test_set_k_takes_what_mask_model_takes(k, expected):
    model = small()
    scores = [layer.scores.numpy() for layer in keras_popup.masked_layers(model)]
    keras_popup.set_k(model, k)
    assert fractions(model) == expected
    for layer, before in zip(keras_popup.masked_layers(model), scores, strict=True):
        np.testing.assert_array_equal(layer.scores, before)
        assert layer.kept == round(layer.k * before.size)


@pytest.mark.parametrize(
    ("k", "message"),
    [
        (0.0, "must be a number in"),
        ("much", "must be a number in"),
        ({"first": 0.5, "third": 0.5}, "matches no layer"),
        ({"first": 0.5, "second": 1e-9}, "keeps none"),
        ({"*": 0.5, "second": 0.1}, "without effect"),
    ],
)
def test_set_k_that_is_refused_changes_nothing(k, message):
    model = small()
    with pytest.raises(ValueError, match=message):
        keras_popup.set_k(model, k)
    assert fractions(model) == [0.3, 0.3]


@pytest.mark.parametrize("call", [lambda model: keras_popup.set_k(model, 0.5), lambda model: compare(model, small())])
def test_set_k_and_compare_masks_take_masked_models_only(call):
    with pytest.raises(ValueError, match="no masked layer"):
        call(keras_popup.strip_masks(small()))
    with pytest.raises(TypeError, match="takes a keras.Model"):
        call("model")


def compare(*models):
    return keras_popup.compare_masks(*models)


@settings(max_examples=10, deadline=None)
@given(st.floats(0.05, 1.0), st.floats(0.05, 1.0))
def test_compare_masks_counts_as_sets_do(k, other_k):
    first, second = small(k, seed=3), small(other_k, seed=4)
    comparison = compare(first, second)
    sets = [
        {(path, index) for path, kernel in masked_kernels(model) for index in np.flatnonzero(kernel.mask())}
        for model in (first, second)
    ]
    assert comparison.both == len(sets[0] & sets[1])
    assert comparison.iou == pytest.approx(len(sets[0] & sets[1]) / len(sets[0] | sets[1]))
    assert [each.path for each in comparison.kernels] == ["first", "second"]
    assert compare(second, first).iou == comparison.iou
    assert compare(first, first).iou == 1
    assert comparison.chance <= compare(first, first).iou


@pytest.mark.integration
def test_compare_masks_by_chance_is_the_mean_of_random_masks():
    found = [compare(small(0.3, seed), small(0.6, seed + 100)) for seed in range(1, 30)]
    assert np.mean([each.iou for each in found]) == pytest.approx(found[0].chance, abs=0.02)


@pytest.mark.parametrize(
    "case", [each for each in MODELS if each.name in ("transformer", "recurrent", "nested_sequential")]
)
def test_compare_masks_of_nested_models_and_layers_of_several_kernels(case):
    first, second = (keras_popup.mask_model(case.make(), k=0.5, seed=seed) for seed in (1, 2))
    comparison = compare(first, second)
    assert [each.path for each in comparison.kernels] == [path for path, _ in masked_kernels(first)]
    assert len(str(comparison).splitlines()) == len(comparison.kernels) + 3
    keras_popup.set_k(first, 0.2)
    assert set(fractions(first)) == {0.2}


def test_compare_masks_of_other_shapes():
    with pytest.raises(ValueError, match="as kernel 1, 'first' of shape .10, 20. in the first and 'first' of shape"):
        compare(small(), small(units=21))
    shorter = keras_popup.mask_model(
        keras.Sequential([keras.Input((10,)), keras.layers.Dense(20, name="first")]), seed=1
    )
    with pytest.raises(ValueError, match="kernel 2, 'second' of shape .20, 5. in the first and nothing in the second"):
        compare(small(), shorter)
