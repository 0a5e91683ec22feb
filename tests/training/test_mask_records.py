"""What a run folder keeps of the masks."""

import json

import keras
import numpy as np
import pytest
from record_folders import make_run, small_model

import keras_popup
from keras_popup import records
from keras_popup.training.mask_records import describe_masks


@pytest.mark.parametrize("selector", ["top_k", "signed", "bernoulli", "global_top_k"])
def test_describe_masks_says_what_the_masks_keep(selector):
    k = {} if selector == "bernoulli" else {"k": 0.3}
    network = keras_popup.models.FullyConnected((8, 8, 1))
    model = keras_popup.mask_model(network, selector=selector, seed=1, **k)
    found = describe_masks(model)
    kernels = keras_popup.conversion.masked_kernels(model)
    assert found.total == len(found.kernels) == len(kernels)
    for (path, kernel), record in zip(kernels, found.kernels, strict=True):
        kept = np.count_nonzero(kernel.read_mask())
        assert (record.path, record.weights, record.kept) == (path, kernel.size, kept)
        assert sum(record.scores_kept) == kept
        assert sum(record.scores_left_out) == kernel.size - kept
        cells = np.frombuffer(record.cells(), np.uint8) / 255
        assert cells.shape == (record.rows * record.columns,)
        assert cells.mean() == pytest.approx(kept / kernel.size, abs=0.02)


def test_describe_masks_has_the_first_kernels_of_many():
    stack = [keras.Input((4,)), *(keras.layers.Dense(4) for _ in range(30))]
    found = describe_masks(keras_popup.mask_model(keras.Sequential(stack), k=0.5, seed=1))
    assert (len(found.kernels), found.total) == (24, 30)


def test_masks_come_back_and_damage_is_named(tmp_path):
    model = small_model()
    run = make_run(tmp_path / "run", model, 1)
    assert run.masks() is None
    run.write_masks(describe_masks(model))
    assert run.masks() == describe_masks(model)
    path = run.path / "masks.json"
    content = json.loads(path.read_text())
    content["kernels"][0]["rows"] += 1
    path.write_text(json.dumps(content))
    with pytest.raises(records.DamagedError, match="masks.json' is damaged: its checksum differs.*for pictures only"):
        run.masks()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("rows", 7, "the map of 'dense1' has not 7 x 4 cells"),
        ("columns", -4, "the map of 'dense1' has not 6 x -4 cells"),
        ("kept", 99, "'dense1' keeps 99 of 24 weights"),
        ("scores_kept", [], "the scores of 'dense1' are not in equal parts"),
        ("low", float("nan"), "the scores of 'dense1' are not in equal parts"),
        ("map", "?", "dense1|base64|padding|cells"),
    ],
)
def test_masks_that_cannot_be_are_errors(name, value, message, tmp_path):
    model = small_model()
    run = make_run(tmp_path / "run", model, 1)
    run.write_masks(describe_masks(model))
    content = json.loads((run.path / "masks.json").read_text())
    content["kernels"][0][name] = value
    run.write("masks.json", {key: each for key, each in content.items() if key != "checksum"})
    with pytest.raises(records.DamagedError, match=message):
        run.masks()
