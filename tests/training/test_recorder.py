"""Runs that diverge."""

import dataclasses
import json

import keras
import pytest
from small_runs import SMALL, history

from keras_popup import training
from keras_popup.training import experiment


@pytest.mark.integration
def test_divergence_error_names_its_cause(tmp_path, monkeypatch):
    real = experiment.compile_model

    def compile_with_a_trap(model, run, steps):
        real(model, run, steps)

        class Trap(keras.losses.CategoricalCrossentropy):
            def call(self, y_true, y_pred):
                broken = keras.ops.where(model.optimizer.iterations >= steps, float("nan"), 0.0)
                return super().call(y_true, y_pred) + broken

        model.loss = None
        model.compile(model.optimizer, Trap(from_logits=True), metrics=["accuracy"])

    monkeypatch.setattr(experiment, "compile_model", compile_with_a_trap)
    folder = tmp_path / "run"
    with pytest.raises(
        training.DivergenceError, match=r"became nan at step 1 of epoch 2.*checkpoint of epoch 1 is kept"
    ):
        training.train(SMALL, folder)
    assert json.loads((folder / "checkpoint.json").read_text())["epoch"] == 1
    assert (folder / "checkpoint-0001.weights.h5").exists()
    assert len(history(folder)) == 1


@pytest.mark.integration
def test_divergence_error_of_a_dense_network(tmp_path):
    wild = dataclasses.replace(SMALL, method="dense", learning_rate=1e6)
    with pytest.raises(training.DivergenceError, match=r"at a learning rate of .*e\+.*; not finite: .*kernel"):
        training.train(wild, tmp_path / "run")
