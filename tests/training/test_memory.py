"""The memory of a run, before any of it is taken."""

import dataclasses

import keras
import numpy as np
import pytest
from peak_memory import measure_peak_memory
from small_runs import SMALL

from keras_popup import models, training
from keras_popup.training import memory


def test_estimate_bytes_counts_what_a_run_has():
    run = dataclasses.replace(SMALL, model="fc", width=1.0)
    model = models.FullyConnected((8, 8, 1))
    weights, outputs = model.count_params(), 64 + 64 + 300 + 100 + 10 + 10
    for change, arrays in [({}, 5), ({"method": "dense"}, 3), ({"optimizer": "adam"}, 6)]:
        config = dataclasses.replace(run, **change).with_protocol()
        expected = 4 * (arrays * weights + 32 * outputs // 2)
        assert memory.estimate_bytes(config, (8, 8, 1), 10, 32) == expected


def test_estimate_bytes_draws_nothing():
    config = dataclasses.replace(SMALL, method="dense").with_protocol()
    weights = []
    for estimates in (False, True):
        keras.utils.set_random_seed(3)
        if estimates:
            memory.estimate_bytes(config, (8, 8, 1), 10, 32)
        weights.append(models.Conv2((8, 8, 1), width=0.1).get_weights())
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_estimate_bytes_takes_no_memory_and_makes_no_weights():
    before = measure_peak_memory()
    config = dataclasses.replace(SMALL, model="conv6", width=900.0).with_protocol()
    assert memory.estimate_bytes(config, (32, 32, 3), 10, 128) > 1e13
    assert measure_peak_memory() - before < 100_000 * 1024
    layer = keras.layers.Dense(2)
    layer.build((None, 3))
    assert layer.kernel.numpy().shape == (3, 2)  # what is made afterwards has values


@pytest.mark.parametrize("change", [{"width": 900.0}, {"width": 900.0, "method": "dense"}])
def test_train_refuses_what_the_machine_cannot_hold(change, tmp_path):
    with pytest.raises(ValueError, match=r"would take at least [0-9,.]+ GB of memory, and the machine has [0-9,.]+ GB"):
        training.train(dataclasses.replace(SMALL, **change), tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_check_memory_counts_no_more_images_than_there_are(monkeypatch):
    config = dataclasses.replace(SMALL, batch_size=1_000_000).with_protocol()
    monkeypatch.setattr(memory, "find_memory", lambda: 10**9)
    memory.check_memory(config, (8, 8, 1), 10, 1000, on_gpu=False)
    memory.check_memory(config, (8, 8, 1), 10, 10**6, on_gpu=True)
    with pytest.raises(ValueError, match="the machine has 1.0 GB"):
        memory.check_memory(config, (8, 8, 1), 10, 10**6, on_gpu=False)
    monkeypatch.setattr(memory, "find_memory", lambda: None)  # a system that does not tell
    memory.check_memory(config, (8, 8, 1), 10, 10**6, on_gpu=False)


def test_find_memory_is_that_of_the_machine():
    assert 10**8 < memory.find_memory() < 10**14
