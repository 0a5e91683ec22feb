"""Kernels that choose together: one choice for a network, wherever its layers are."""

import copy
import gc

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_popup
from keras_popup import callbacks
from keras_popup.layers import kernel_groups

RNG = np.random.default_rng(1)
X, Y = RNG.random((32, 20), np.float32), RNG.random((32, 7), np.float32)


def masked_model(k=0.1, **arguments):
    stack = [keras.layers.Dense(30, activation="relu"), keras.layers.Dense(40, activation="relu")]
    plain = keras.Sequential([keras.Input((20,)), keras.Sequential(stack), keras.layers.Dense(7, name="classes")])
    return keras_popup.mask_model(plain, k=k, selector="global_top_k", seed=1, **arguments)


def kernels_of(model):
    return [kernel for _, kernel in keras_popup.conversion.masked_kernels(model)]


def kept(model):
    return [kernel.kept for kernel in kernels_of(model)]


def outputs(model):
    return model.predict(X, verbose=0)


def test_network_keeps_one_share_of_all_weights():
    model = masked_model()
    assert sum(kept(model)) == 208
    assert len(set(map(id, (kernel.group for kernel in kernels_of(model))))) == 1
    assert [int(np.count_nonzero(kernel.mask())) for kernel in kernels_of(model)] == kept(model)
    assert keras_popup.mask_summary(model, print_fn=lambda _: None).kept == 208


@pytest.mark.parametrize(
    "compile_arguments", [{}, {"jit_compile": True}, {"steps_per_execution": 2}, {"run_eagerly": True}], ids=str
)
def test_training_chooses_the_same_masks_in_all_ways(compile_arguments):
    models = [masked_model(), masked_model()]
    for model, more in zip(models, ({}, compile_arguments), strict=True):
        optimizer = keras.optimizers.SGD(0.5, momentum=0.9)
        model.compile(optimizer, "mse", **{"jit_compile": False, **more})
        model.fit(X, Y, batch_size=8, epochs=2, shuffle=False, verbose=0)
    assert sum(kept(models[0])) == 208
    assert keras_popup.compare_masks(*models).iou > 0.98  # XLA rounds in another order
    np.testing.assert_allclose(outputs(models[0]), outputs(models[1]), atol=1e-3)


def test_step_chooses_once_for_all_layers(monkeypatch):
    model, found = masked_model(), []
    find = kernel_groups.KernelGroup._find_anew
    monkeypatch.setattr(kernel_groups.KernelGroup, "_find_anew", lambda self: found.append(1) or find(self))
    model(X, training=True)
    assert len(found) == 1
    model(X, training=True)
    assert len(found) == 2
    traced = tf.function(lambda x: (model(x, training=True), model(x, training=True)))
    traced(X)
    assert len(found) == 4  # of two calls in one function, each its own


def test_inference_notices_new_scores_of_another_layer():
    model = masked_model()
    before, first = outputs(model), kernels_of(model)[0].kept
    scores = kernels_of(model)[2].scores
    scores.assign(scores * 100)
    assert kernels_of(model)[0].kept < first
    assert not np.array_equal(outputs(model), before)
    np.testing.assert_array_equal(outputs(model), model(X).numpy())
    np.testing.assert_array_equal(outputs(model), outputs(keras_popup.strip_masks(model)))


def reload(model, folder):
    model.save(folder / "model.keras")
    return keras.models.load_model(folder / "model.keras")


def clone(model, folder):
    cloned = keras.models.clone_model(model)
    cloned.set_weights(model.get_weights())
    return cloned


def load_ticket(model, folder):
    keras_popup.save_ticket(model, folder / "model.ticket")
    return keras_popup.load_ticket(folder / "model.ticket", masked=True)


WAYS = {
    "keras": reload,
    "clone": clone,
    "deepcopy": lambda model, folder: copy.deepcopy(model),
    "finetune": lambda model, folder: keras_popup.finetune(model),
    "ticket": load_ticket,
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_group_stays_a_group(way, tmp_path):
    model = masked_model()
    keras_popup.set_k(model, 0.2)
    model.layers[-1].scores.assign(model.layers[-1].scores * 3)
    twin = way(model, tmp_path)
    groups = [{id(kernel.group) for kernel in kernels_of(each)} for each in (model, twin)]
    assert [len(group) for group in groups] == [1, 1]
    assert groups[0] != groups[1]
    assert kept(twin) == kept(model)
    np.testing.assert_array_equal(outputs(twin), outputs(model))
    twin.layers[-1].k = 0.5
    assert {kernel.k for kernel in kernels_of(twin)} == {0.5}
    assert {kernel.k for kernel in kernels_of(model)} == {0.2}


def test_part_of_a_network_has_the_masks_of_the_whole():
    model = masked_model()
    part = keras.Model(model.inputs, model.layers[0].output)
    expected = outputs(keras.Model(*((m := keras_popup.strip_masks(model)).inputs, m.layers[0].output)))
    np.testing.assert_array_equal(outputs(part), expected)
    del model
    gc.collect()
    np.testing.assert_array_equal(outputs(part), expected)


def test_part_from_a_config_says_what_is_missing():
    layer = masked_model().layers[-1]
    alone = type(layer).from_config(layer.get_config())
    with pytest.raises(ValueError, match=r"choose together .* one k: 3 kernels\. Received: the layers \['classes'\]"):
        alone(np.zeros((2, 40), np.float32))


def test_layer_that_was_never_built_gives_its_place_away():
    configs = [kernel.layer.get_config() for kernel in kernels_of(masked_model())]
    kind = keras_popup.layers.MaskedDense
    made = [kind.from_config(configs[number]) for number in (0, 1, 1, 2)]
    model = keras.Sequential([keras.Input((20,)), made[0], made[2], made[3]])
    assert sum(kept(model)) == 208


def test_separable_kernels_have_places_of_their_own(tmp_path):
    plain = keras.Sequential([keras.Input((6, 6, 3)), keras.layers.SeparableConv2D(8, 3), keras.layers.Conv2D(4, 3)])
    model = keras_popup.mask_model(plain, k=0.3, selector="global_top_k", seed=1)
    assert [kernel.selector.place for kernel in kernels_of(model)] == [0, 1, 2]
    assert kept(reload(model, tmp_path)) == kept(model)


def test_several_k_are_refused():
    with pytest.raises(ValueError, match="one k for the whole network"):
        masked_model(k={"classes": 0.3, "*": 0.1})
    model = masked_model()
    with pytest.raises(ValueError, match="one k for the whole network"):
        keras_popup.set_k(model, {"classes": 0.3})
    with pytest.raises(ValueError, match="keeps 2 of the 2080 weights"):
        model.layers[-1].k = 0.001
    assert {kernel.k for kernel in kernels_of(model)} == {0.1}


def test_schedule_falls_for_all_layers():
    model = masked_model(k=0.1)
    model.compile(keras.optimizers.SGD(0.5), "mse", jit_compile=False)
    statistics = callbacks.MaskStatistics()
    schedule = callbacks.KSchedule(callbacks.Linear(k=0.1, steps=4))
    model.fit(X, Y, batch_size=8, epochs=2, verbose=0, callbacks=[schedule, statistics])
    assert {kernel.k for kernel in kernels_of(model)} == {0.1}
    assert sum(kept(model)) == 208
    shares = [statistics.latest[f"{path}/kept"] for path, _ in keras_popup.conversion.masked_kernels(model)]
    assert len(set(shares)) == 3
