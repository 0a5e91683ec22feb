"""Models that an earlier version has written are read as they were: see golden/make_models.py."""

import json
import math
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from golden import golden_blocks

import keras_popup
import keras_popup.layers

FOLDER = Path(__file__).parents[1] / "golden" / "models-v1"
NOTES = json.loads((FOLDER / "models.json").read_text())

pytestmark = pytest.mark.filterwarnings("ignore:.*`build\\(\\)` was called on layer:UserWarning")


@pytest.fixture(scope="module")
def values():
    with np.load(FOLDER / "values.npz") as file:
        return dict(file)


def load(name):
    file = FOLDER / NOTES[name]["file"]
    if file.suffix == ".keras":
        return keras.models.load_model(file)
    model = golden_blocks.WEIGHTS[name]()
    model.load_weights(file)
    return model


def numbered(values, prefix):
    return [values[f"{prefix}/{number}"] for number in range(sum(key.startswith(f"{prefix}/") for key in values))]


def inputs_of(values, name):
    inputs = numbered(values, f"{name}/inputs")
    return inputs if len(inputs) > 1 else inputs[0]


def check_outputs(model, values, name, expected=None):
    # In a half type another processor may round another way.
    tolerance = 2**-7 if name == "mixed_bfloat16" else 1e-6
    outputs = keras.tree.flatten(model(inputs_of(values, name), training=False))
    expected = numbered(values, f"{name}/outputs") if expected is None else expected
    for output, value in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(tf.cast(output, tf.float32), value, rtol=tolerance, atol=tolerance)


def trainable_of(model):
    return [[weight.name, list(weight.shape)] for weight in model.trainable_variables]


@pytest.mark.integration
def test_golden_files_are_all_known():
    files = {path.name for path in FOLDER.iterdir()} - {".gitignore", "models.json", "values.npz"}
    assert files == {note["file"] for note in NOTES.values()}


@pytest.mark.parametrize("name", NOTES)
def test_golden_model_is_read_as_it_was(name, values):
    note = NOTES[name]
    model = load(name)
    check_outputs(model, values, name)
    summary = keras_popup.mask_summary(model, print_fn=len)
    assert {row.path: row.kept for row in summary.layers if row.kept is not None} == note["kept"]
    assert math.fsum(map(float, model.losses)) == pytest.approx(note["losses"], rel=1e-5)
    if "trainable_when_loaded" not in note:  # else the version which wrote the file trained more when it read it
        assert trainable_of(model) == note["trainable"]
        sums = [np.sum(weight.numpy(), dtype=np.float64) for weight in model.trainable_variables]
        np.testing.assert_allclose(sums, values[f"{name}/sums"], rtol=1e-9)


@pytest.mark.integration
@pytest.mark.parametrize("name", [name for name, note in NOTES.items() if note["strip"]])
def test_golden_model_can_be_stripped(name, values, tmp_path):
    plain = keras_popup.strip_masks(load(name))
    check_outputs(plain, values, name)
    plain.save(tmp_path / "plain.keras")
    check_outputs(keras.models.load_model(tmp_path / "plain.keras"), values, name)
    with pytest.raises(ValueError, match="no masked layer"):
        keras_popup.strip_masks(plain)


@pytest.mark.integration
@pytest.mark.parametrize("name", NOTES)
def test_golden_model_can_be_saved_again(name, values, tmp_path):
    model = load(name)
    model.save(tmp_path / "again.keras")
    again = keras.models.load_model(tmp_path / "again.keras")
    check_outputs(again, values, name)
    assert [v.shape for v in again.trainable_variables] == [v.shape for v in model.trainable_variables]


@pytest.mark.integration
@pytest.mark.parametrize("name", [name for name, note in NOTES.items() if note["drawn"]])
def test_golden_seeds_give_the_weights_that_they_gave(name, values):
    check_outputs(keras.models.clone_model(load(name)), values, name)


@pytest.mark.integration
@pytest.mark.parametrize("name", [name for name in NOTES if name.startswith("trained_")])
def test_golden_model_goes_on_as_if_it_had_not_been_saved(name, values):
    model = load(name)
    for x, y in zip(values[f"{name}/x"], values[f"{name}/y"], strict=True):
        model.train_on_batch(x, y)
    weights = np.concatenate([weight.numpy().ravel() for weight in model.trainable_variables])
    np.testing.assert_allclose(weights, values[f"{name}/weights_later"], rtol=1e-6, atol=1e-6)
    check_outputs(model, values, name, [values[f"{name}/outputs_later"]])
