"""The network and the optimizer of a run."""

import dataclasses

import keras
import numpy as np
import pytest
from small_runs import SMALL

from keras_popup.training import experiment


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
