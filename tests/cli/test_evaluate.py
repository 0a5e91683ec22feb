"""The command `evaluate`."""

import json
import shutil

import keras
import pytest
from command_line import run
from small_datasets import write_images

import keras_popup
from keras_popup import records


@pytest.mark.parametrize("name", ["", "model.keras", "model.ticket"])
def test_evaluate_gives_the_accuracy_of_the_run(capsys, trained_run, tmp_path, name):
    """A folder, and files that were moved away from it: they say how to be fed."""
    model = shutil.copy(trained_run / name, tmp_path) if name else trained_run
    expected = records.RunFolder(trained_run).summary()["test"]["accuracy"]
    status, out, err = run(capsys, "evaluate", str(model), "--json")
    record = json.loads(out)
    assert status == 0
    assert record["accuracy"] == pytest.approx(expected)
    assert (record["dataset"], record["images"], list(record["classes"])) == ("digits", 359, list("0123456789"))
    assert "unknown" not in err
    status, out, _ = run(capsys, "evaluate", str(model))
    assert status == 0
    assert out.splitlines()[0] == f"accuracy       {expected:.2%} of 359 test images of digits"
    assert len(out.splitlines()) == 11


@pytest.mark.integration
def test_evaluate_says_when_the_input_is_unknown(capsys, tmp_path):
    model = keras_popup.mask_model(keras_popup.models.FullyConnected((8, 8, 1), width=0.1), seed=1)
    model.save(tmp_path / "own.keras")
    keras_popup.save_ticket(model, tmp_path / "own.ticket")
    for name in ("own.keras", "own.ticket"):
        status, _, err = run(capsys, "evaluate", str(tmp_path / name))
        assert status == 2
        assert "does not say which data it was trained on. Name them with --dataset" in err
    assert run(capsys, "evaluate", str(tmp_path / "own.keras"), "--dataset", "digits")[0] == 0
    assert (
        "how its inputs were prepared is unknown"
        in run(capsys, "evaluate", str(tmp_path / "own.keras"), "--dataset", "digits")[2]
    )


def test_evaluate_refuses_data_that_do_not_fit(capsys, trained_run, tmp_path):
    photos = str(write_images(tmp_path / "photos"))
    for flags, status, message in [
        (
            ("--dataset", "pets", "--data_dir", photos),
            1,
            "must have one output for each of the 2 classes of the data",
        ),
        (("--dataset", "pets", "--data_dir", str(tmp_path / "no")), 2, "--data_dir must be a directory that exists"),
        (("--dataset", "digitz"), 1, "Unknown dataset 'digitz'"),
    ]:
        found, out, err = run(capsys, "evaluate", str(trained_run), *flags)
        assert (found, out) == (status, "")
        assert message in err
    model = keras_popup.mask_model(keras_popup.models.FullyConnected((8, 8, 3), 2, 0.1), seed=1)
    scale = keras.layers.Rescaling(1 / 255)
    for name, classes in (("right", ["cat", "dog"]), ("wrong", ["dog", "cat"]), ("unnamed", None)):
        keras_popup.save_ticket(model, tmp_path / f"{name}.ticket", preprocess=[scale], classes=classes)
        status, _, err = run(
            capsys, "evaluate", str(tmp_path / f"{name}.ticket"), "--dataset", "pets", "--data_dir", photos
        )
        assert status == (1 if name == "wrong" else 0), err
    flags = ("--dataset", "pets", "--data_dir", photos)
    err = run(capsys, "evaluate", str(tmp_path / "wrong.ticket"), *flags)[2]
    assert "in another order. Class 0 is 'dog' to the model and 'cat' in the data" in err
    small = keras_popup.mask_model(keras_popup.models.FullyConnected((6, 6, 3), 2, 0.1), seed=1)
    keras_popup.save_ticket(small, tmp_path / "small.ticket", preprocess=[])
    status, _, err = run(capsys, "evaluate", str(tmp_path / "small.ticket"), *flags)
    assert status == 1
    assert "takes images of shape (6, 6, 3); those of the data have (8, 8, 3). Resize them with --image_size 6." in err
    assert run(capsys, "evaluate", str(tmp_path / "small.ticket"), *flags, "--image_size", "6")[0] == 0
