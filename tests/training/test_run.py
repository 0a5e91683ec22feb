"""Training runs: the folder they leave, determinism, resuming, refusals."""

import csv
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
from record_folders import make_older
from small_datasets import write_images
from small_runs import SMALL, history

import keras_popup
from keras_popup import datasets, records, training
from keras_popup.training import RunConfig, experiment


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "a"
    return folder, training.train(SMALL, folder)


def test_train_leaves_a_run_folder(finished):
    folder, summary = finished
    assert sorted(path.name for path in folder.iterdir()) == [
        ".lock",
        "config.json",
        "curves.png",
        "history.csv",
        "masks.json",
        "model.keras",
        "summary.json",
    ]
    assert records.RunFolder(folder).summary() == json.loads(json.dumps(summary))
    recorded = json.loads((folder / "config.json").read_text())
    assert RunConfig.from_json(recorded["config"]).with_protocol() == SMALL.with_protocol()
    assert {"tensorflow", "keras", "numpy", "keras_popup", "python"} <= recorded["versions"].keys()
    rows = history(folder)
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert summary["train"]["loss"] == float(rows[-1]["loss"])
    assert summary["validation"]["accuracy"] == float(rows[-1]["val_accuracy"])
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_train_records_where_the_model_comes_from(finished, tmp_path):
    """The file that is moved away from its folder takes pixels, and says what it was trained on."""
    folder, _ = finished
    data = datasets.load("digits", seed=SMALL.seed)
    origin = records.read_origin(folder / "model.keras")
    assert origin["classes"] == list("0123456789")
    assert origin["dataset"] == "digits"
    assert origin["arguments"]["learning_rate"] == 0.5
    assert origin["arguments"]["seed"] == SMALL.seed
    assert "devices" not in origin["arguments"]
    model = keras.models.load_model(folder / "model.keras")
    assert [layer.name for layer in model.layers][:2] == ["images", "preprocessing"]
    keras_popup.save_ticket(model, tmp_path / "a.ticket", **origin)
    plain = keras_popup.load_ticket(tmp_path / "a.ticket")
    images, _ = next(iter(data.evaluation_batches("test", 9)))
    for pixels in (images, images.numpy().astype("float32")):
        expected = model.predict(pixels, verbose=0)
        np.testing.assert_array_equal(keras_popup.strip_masks(model).predict(pixels, verbose=0), expected)
        np.testing.assert_array_equal(plain.predict(pixels, verbose=0), expected)


@pytest.mark.integration
def test_train_finetunes_under_the_masks_of_a_run(finished, tmp_path):
    source, expected = finished
    config = dataclasses.replace(SMALL, method="finetune", from_run=str(source), learning_rate=0.01, epochs=2)
    summary = training.train(config, tmp_path / "tuned", ticket=True)
    before, after = (keras.models.load_model(folder / "model.keras") for folder in (source, tmp_path / "tuned"))
    changed = 0
    for one, other in zip(keras_popup.masked_layers(before), keras_popup.masked_layers(after), strict=True):
        np.testing.assert_array_equal(other.mask(), one.mask())
        changed += int(np.sum(one.frozen_kernel.numpy() != other.frozen_kernel.numpy()))
    assert changed
    assert summary["kept"] == expected["kept"]
    stripped = keras_popup.strip_masks(after)
    assert sum(int(np.count_nonzero(weight.numpy())) for weight in stripped.weights) == summary["kept"]
    ticket = keras_popup.load_ticket(tmp_path / "tuned" / "model.ticket")
    images, _ = next(iter(datasets.load("digits").evaluation_batches("test", 9)))
    np.testing.assert_array_equal(ticket.predict(images, verbose=0), stripped.predict(images, verbose=0))
    for change, message in [
        ({"width": 0.2}, r"has width=0.1. Received: width=0.2"),
        ({"from_run": str(tmp_path)}, "must be the folder of a finished run"),
        ({"dataset": "pets", "data_dir": str(write_images(tmp_path / "photos"))}, "The data have images of"),
    ]:
        with pytest.raises(ValueError, match=message):
            training.train(dataclasses.replace(config, **change), tmp_path / "no")
    assert not (tmp_path / "no").exists()


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The folder of a run with learned weights."""
    folder = tmp_path_factory.mktemp("base") / "b"
    training.train(RunConfig(model="conv2", width=0.1, epochs=1, method="dense"), folder)
    return folder


@pytest.mark.integration
@pytest.mark.parametrize("new_head", [True, False])
def test_train_learns_masks_over_a_base(base, new_head, tmp_path):
    config = RunConfig(model="base", base=str(base), new_head=new_head, k=0.3, epochs=1, learning_rate=0.01)
    summary = training.train(config, tmp_path / "task", ticket=True)
    learned = keras.models.load_model(base / "model.keras")
    masked = keras.models.load_model(tmp_path / "task" / "model.keras")
    names = ["conv1a", "conv1b", "dense1", "dense2", *([] if new_head else ["classes"])]
    assert [layer.name for layer in keras_popup.masked_layers(masked)] == names
    for layer in keras_popup.masked_layers(masked):
        np.testing.assert_array_equal(layer.frozen_kernel.numpy(), learned.get_layer(layer.name).kernel.numpy())
        assert isinstance(layer.scores_initializer, keras_popup.initializers.Magnitude)
    assert summary["ticket_bytes"] < 12_000  # the kept weights would take 60 kB
    tasks = keras_popup.TaskMasks(learned)
    tasks.add("task", tmp_path / "task" / "model.ticket")
    images, _ = next(iter(datasets.load("digits").evaluation_batches("test", 9)))
    expected = keras_popup.strip_masks(masked).predict(images, verbose=0)
    np.testing.assert_array_equal(tasks["task"].predict(images, verbose=0), expected)
    again = training.train(dataclasses.replace(config), tmp_path / "again")
    assert again["test"] == summary["test"]


@pytest.mark.integration
def test_train_trains_all_weights_of_a_base(base, tmp_path):
    config = RunConfig(model="base", base=str(base / "model.keras"), method="dense", epochs=1, learning_rate=0.0)
    training.train(config, tmp_path / "same")
    before, after = (keras.models.load_model(folder / "model.keras") for folder in (base, tmp_path / "same"))
    for one, other in zip(before.weights, after.weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())  # at a rate of 0
    training.train(dataclasses.replace(config, learning_rate=0.01, l2=1e-4), tmp_path / "trained")
    after = keras.models.load_model(tmp_path / "trained" / "model.keras")
    assert all(np.any(a.numpy() != b.numpy()) for a, b in zip(before.weights, after.weights, strict=True))
    assert not keras_popup.masked_layers(after)


@pytest.mark.integration
def test_train_refuses_a_base_that_does_not_fit(base, finished, tmp_path):
    hidden = keras.layers.Dense(20)
    softmax = keras.Sequential(
        [keras.Input((8, 8, 1)), keras.layers.Flatten(), hidden, keras.layers.Dense(10, "softmax")]
    )
    softmax.save(tmp_path / "softmax.keras")
    other = keras.Sequential([keras.Input((5, 5, 3)), keras.layers.Flatten(), keras.layers.Dense(10)])
    other.save(tmp_path / "other.keras")
    photos = write_images(tmp_path / "photos")
    for change, message in [
        ({"base": str(tmp_path / "nowhere")}, "`base` must be a .keras file, or the folder of a finished run"),
        ({"base": str(finished[0])}, "has masks. A base is a plain network"),
        (
            {"base": str(tmp_path / "softmax.keras"), "pixels": "0_to_1"},
            "must give a logit for each of the 10 classes.*are probabilities",
        ),
        ({"base": str(tmp_path / "softmax.keras")}, "Say what pixels it takes: `pixels`, one of 0_to_255"),
        ({"pixels": "0_to_1"}, "begins with layers that prepare images. Leave `pixels` out"),
        ({"base": str(tmp_path / "other.keras")}, r"takes inputs of shape \(5, 5, 3\). The data have images of \(8, 8"),
        ({"dataset": "pets", "data_dir": str(photos), "image_size": 8}, "takes inputs of shape"),
    ]:
        config = RunConfig(**{"model": "base", "base": str(base), "epochs": 1, **change})
        with pytest.raises(ValueError, match=message):
            training.train(config, tmp_path / "no")
    assert not (tmp_path / "no").exists()
    config = RunConfig(model="base", base=str(tmp_path / "softmax.keras"), new_head=True, epochs=1, seed=3)
    config = dataclasses.replace(config, pixels="standardized")
    training.train(config, tmp_path / "yes")  # pixels are scaled before a base that does not do it
    model = keras.models.load_model(tmp_path / "yes" / "model.keras")
    assert [layer.name for layer in model.layers][:2] == [model.layers[0].name, "preprocessing"]


@pytest.mark.integration
def test_train_gives_the_summary_of_the_saved_model(finished):
    folder, summary = finished
    model = keras.models.load_model(folder / "model.keras")
    masked = [layer for layer in model.layers if hasattr(layer, "kept")]
    assert summary["layers"] == [
        {
            "name": layer.name,
            "weights": int(np.prod(layer.scores.shape)),
            "kept": layer.kept,
            "k": 0.5,
            "seed": layer.seed,
        }
        for layer in masked
    ]
    assert summary["kept"] == sum(int(layer.mask().numpy().sum()) for layer in masked)
    assert summary["weights"] == sum(layer["weights"] for layer in summary["layers"])
    data = datasets.load("digits", seed=SMALL.seed)
    test = model.evaluate(data.evaluation_batches("test", 64), return_dict=True, verbose=0)
    assert test["accuracy"] == summary["test"]["accuracy"] > 0.5
    assert test["loss"] == pytest.approx(summary["test"]["loss"])


@pytest.mark.integration
def test_train_with_the_same_seed_has_the_same_history(finished, tmp_path):
    folder, _ = finished
    training.train(SMALL, tmp_path / "b")
    assert (folder / "history.csv").read_text() == (tmp_path / "b" / "history.csv").read_text()
    training.train(dataclasses.replace(SMALL, seed=2), tmp_path / "c")
    assert (folder / "history.csv").read_text() != (tmp_path / "c" / "history.csv").read_text()


def command(folder, *more):
    flags = {f"--{k}={v}" for k, v in dataclasses.asdict(SMALL).items() if v is not None and not isinstance(v, bool)}
    return [sys.executable, "-m", "keras_popup", "train", *flags, f"--out={folder}", *more]


@pytest.mark.integration
@pytest.mark.parametrize(
    "how", [pytest.param(getattr(signal, "SIGKILL", None), marks=pytest.mark.rare), signal.SIGTERM]
)
def test_train_killed_and_resumed(finished, how, tmp_path):
    whole, expected = finished
    folder = tmp_path / "killed"
    run = subprocess.Popen(command(folder), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (folder / "checkpoint.json").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(run.pid, how)
    _, said = run.communicate(timeout=120)
    if how == signal.SIGTERM:
        assert run.returncode == 143
        assert said.endswith("terminated. The same command with --resume goes on after the last epoch.\n")
    else:
        assert run.returncode == -signal.SIGKILL
    assert len(history(folder)) < 3
    assert not (folder / "summary.json").exists()
    resumed = subprocess.run(command(folder, "--resume"), capture_output=True, text=True, timeout=120)
    assert resumed.returncode == 0, resumed.stderr
    assert "Going on after epoch" in resumed.stderr
    assert (folder / "history.csv").read_text() == (whole / "history.csv").read_text()
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["test"] == expected["test"]
    assert summary["layers"] == expected["layers"]


@pytest.mark.integration
def test_train_without_space_ends_in_a_line_and_goes_on(finished, tmp_path):
    whole, _ = finished
    folder = tmp_path / "full"
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY));"
    code = f"{limit} from keras_popup import cli; raise SystemExit(cli.main())"
    run = subprocess.run(
        [sys.executable, "-c", code, *command(folder)[3:]], capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 1
    said = run.stderr.splitlines()[-1]
    assert "not enough space to write" in said
    assert "bytes are needed, and 400,000 can be written there" in said
    assert said.endswith("the same command with --resume goes on after the last epoch.")
    assert "Traceback" not in run.stderr
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "config.json"]
    training.train(SMALL, folder, resume=True)
    assert (folder / "history.csv").read_text() == (whole / "history.csv").read_text()


@pytest.mark.integration
@pytest.mark.rare
def test_train_killed_after_any_epoch(finished, tmp_path, monkeypatch):
    """A stop right after a checkpoint, by an exception, and one between the last epoch and the summary."""
    whole, _ = finished
    for epoch in (1, 3):
        folder = tmp_path / str(epoch)
        save = records.RunFolder.save_checkpoint

        def stop(self, model, history, seconds, save=save, epoch=epoch):
            save(self, model, history, seconds)
            if len(history) == epoch:
                raise KeyboardInterrupt

        monkeypatch.setattr(records.RunFolder, "save_checkpoint", stop)
        with pytest.raises(KeyboardInterrupt):
            training.train(SMALL, folder)
        monkeypatch.setattr(records.RunFolder, "save_checkpoint", save)
        training.train(SMALL, folder, resume=True)
        assert (folder / "history.csv").read_text() == (whole / "history.csv").read_text()


@pytest.mark.integration
def test_train_resumed_when_finished_does_nothing(finished):
    folder, summary = finished
    before = (folder / "model.keras").stat().st_mtime_ns
    assert training.train(SMALL, folder, resume=True) == json.loads(json.dumps(summary))
    assert (folder / "model.keras").stat().st_mtime_ns == before


@pytest.mark.integration
def test_train_refuses_an_existing_folder(finished, tmp_path):
    folder, _ = finished
    files = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(FileExistsError, match="Use --resume to go on with it, --overwrite"):
        training.train(SMALL, folder)
    with pytest.raises(ValueError, match=r"Differing: k=0.25, recorded 0.5; seed=9, recorded 1"):
        training.train(dataclasses.replace(SMALL, k=0.25, seed=9), folder, resume=True)
    with pytest.raises(ValueError, match="not both"):
        training.train(SMALL, folder, resume=True, overwrite=True)
    assert files == {path: path.read_bytes() for path in folder.iterdir()}
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match="is not the folder of a run"):
        training.train(SMALL, tmp_path, overwrite=True)
    assert (tmp_path / "thesis.tex").exists()


@pytest.mark.integration
def test_train_removes_what_a_kill_left_half_written(tmp_path):
    training.train(SMALL, tmp_path / "run", until=1)
    (tmp_path / "run" / ".unfinished-7-checkpoint-0002.weights.h5").write_bytes(b"half")
    training.train(SMALL, tmp_path / "run", resume=True)
    assert not list((tmp_path / "run").glob(".unfinished*"))


@pytest.mark.integration
def test_train_refuses_a_folder_of_another_process(finished):
    folder, _ = finished
    files = {path: path.read_bytes() for path in folder.iterdir()}
    with records.RunFolder(folder).locked(), pytest.raises(ValueError, match="Another process is at work on the run"):
        training.train(SMALL, folder, overwrite=True)
    assert files == {path: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.integration
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dataset": "no_such_data"}, "Unknown dataset"),
        ({"kernel_initializer": "best"}, "Unknown initializer"),
        ({"kernel_initializer": "glorot_normal", "scaled": True}, "`scaled` needs one of this library's"),
        ({"k": 1e-6}, "keeps none of the .* weights of layer 'conv1a'"),
        ({"model": "conv8"}, "needs at least 16x16 pixels"),
        ({"width": 0.001}, "leaves no channel"),
        ({"augment": "resized_crop"}, "crops images while they are decoded"),
        ({"image_size": 16}, "leave out `data_dir` and `image_size`"),
        ({"validation": 1e-9}, "leaves a part empty"),
    ],
)
@pytest.mark.parametrize("exists", [False, True])
def test_train_refuses_before_it_writes_or_removes_anything(tmp_path, change, message, exists):
    folder = tmp_path / "run"
    if exists:
        folder.mkdir()
        (folder / "config.json").write_text('{"config": {}, "versions": {}}')
    with pytest.raises(ValueError, match=message):
        training.train(dataclasses.replace(SMALL, **change), folder, overwrite=True)
    assert folder.exists() == exists
    assert not exists or [path.name for path in folder.iterdir()] == ["config.json"]


@pytest.mark.integration
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kernel_initializer": "signed_const"}, "Unknown initializer"),
        ({"kernel_initializer": "he_normal", "scaled": True}, "`scaled`"),
    ],
)
def test_train_looks_for_kernels_before_the_data(change, message, tmp_path):
    nowhere = dataclasses.replace(SMALL, dataset="cifar10", data_dir=str(tmp_path / "none"), **change)
    with pytest.raises(ValueError, match=message):
        training.train(nowhere, tmp_path / "run")
    assert not list(tmp_path.iterdir())


@pytest.mark.integration
def test_train_overwrites_the_files_of_a_run_only(finished, tmp_path):
    foreign = tmp_path / "model_hub"
    foreign.mkdir()
    (foreign / "config.json").write_text('{"architectures": []}')
    with pytest.raises(ValueError, match="is not the folder of a run"):
        training.train(SMALL, foreign, overwrite=True)
    with pytest.raises(ValueError, match="is not the folder of a run"):
        training.train(SMALL, foreign, resume=True)
    folder = tmp_path / "run"
    shutil.copytree(finished[0], folder)
    (folder / "notes.txt").write_text("keep")
    training.train(dataclasses.replace(SMALL, epochs=1), folder, overwrite=True)
    assert (folder / "notes.txt").read_text() == "keep"
    assert len(history(folder)) == 1


@pytest.mark.integration
def test_train_killed_at_the_very_start(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / ".unfinished-config.json").write_text("{")
    assert training.train(dataclasses.replace(SMALL, epochs=1), folder, resume=True)["epochs"] == 1


@pytest.mark.integration
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("summary.json", "{"),
        ("summary.json", "[]"),
        ("checkpoint.json", "{}"),
        ("checkpoint.json", '{"epoch": 1, "seconds": 1, "history": []}'),
    ],
)
def test_train_names_damaged_records(finished, tmp_path, name, content):
    folder = tmp_path / "run"
    shutil.copytree(finished[0], folder)
    if name != "summary.json":
        (folder / "summary.json").unlink()
    (folder / name).write_text(content)
    with pytest.raises(ValueError, match=r"(checkpoint|summary).*damaged.*--overwrite"):
        training.train(SMALL, folder, resume=True)


@pytest.mark.integration
def test_train_refuses_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is not a writable directory"):
        training.train(SMALL, tmp_path / "file" / "run")


@pytest.mark.integration
@pytest.mark.parametrize(
    "change",
    [
        {"method": "dense", "learning_rate": 0.05},
        {"precision": "mixed_bfloat16"},
        {"precision": "mixed_float16"},
        {"model": "fc", "jit_compile": "true", "deterministic": False},
        {"optimizer": "adam", "learning_rate": 0.01},
        {"scaled": True, "kernel_initializer": "kaiming_normal", "k": 0.3},
        {"schedule": "constant", "warmup_epochs": 1.0, "label_smoothing": 0.1},
        {"model": "fc", "augment": "crop_flip"},
        {"redraw_every": 20, "redraw_from": "best"},
        {"method": "supermask", "rescale": True, "learning_rate": 20.0, "mask_statistics": "tensorboard"},
        pytest.param({"model": "resnet18", "width": 0.1, "epochs": 1}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_train_learns_in_every_variant(tmp_path, change):
    summary = training.train(dataclasses.replace(SMALL, **{"validation": 0.0, **change}), tmp_path / "run")
    assert summary["validation"] is None
    rows = history(tmp_path / "run")
    if len(rows) > 1:
        assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
    dense = change.get("method") == "dense"
    assert (summary["kept"] == summary["weights"]) == dense
    if change.get("schedule") == "constant":
        assert [float(row["learning_rate"]) for row in rows] == pytest.approx([0.5, 0.5, 0.5])


@pytest.mark.integration
def test_train_of_a_random_mask_learns_nothing(tmp_path):
    change = {"method": "random", "k": 0.3, "learning_rate": None, "epochs": None}
    run = dataclasses.replace(SMALL, **change)
    summary = training.train(run, tmp_path / "run")
    assert (summary["epochs"], summary["config"]["learning_rate"]) == (1, 0.0)
    untouched = experiment.build_model(run.with_protocol(), (8, 8, 1), 10)
    trained = keras.models.load_model(tmp_path / "run/model.keras")
    assert all(map(np.array_equal, untouched.get_weights(), trained.get_weights()))
    assert summary["kept"] == sum(layer.kept for layer in untouched.layers if hasattr(layer, "kept"))


@pytest.mark.integration
def test_train_goes_on_with_a_run_of_fewer_arguments(finished, tmp_path):
    make_older(shutil.copytree(finished[0], tmp_path / "run"))
    recorded = json.loads((tmp_path / "run/config.json").read_text())
    for name in ("k_schedule", "k_schedule_end", "mask_statistics", "rescale"):
        del recorded["config"][name]
    recorded["config"]["layer_k"] = None
    (tmp_path / "run/config.json").write_text(json.dumps(recorded))
    assert training.train(SMALL, tmp_path / "run", resume=True)["test"] == finished[1]["test"]
    with pytest.raises(ValueError, match="Differing: mask_statistics='history', recorded None"):
        training.train(dataclasses.replace(SMALL, mask_statistics="history"), tmp_path / "run", resume=True)


@pytest.mark.integration
@pytest.mark.rare
def test_train_goes_on_with_a_run_with_fractions_as_text(tmp_path):
    run = dataclasses.replace(SMALL, k={"conv*": 0.3, "dense1": 0.25, "*": 0.6}, epochs=2)
    whole = training.train(run, tmp_path / "whole")
    training.train(run, tmp_path / "old", until=1)
    make_older(tmp_path / "old")
    recorded = json.loads((tmp_path / "old/config.json").read_text())
    assert recorded["config"]["k"] == run.k
    recorded["config"] |= {"k": 0.6, "layer_k": "conv*=0.3;dense1=0.25"}
    (tmp_path / "old/config.json").write_text(json.dumps(recorded))
    assert RunConfig.from_json(recorded["config"]) == RunConfig(**run.with_protocol().to_json())
    reordered = dataclasses.replace(run, k={"dense1": 0.25, "conv*": 0.3, "*": 0.6})
    with pytest.raises(ValueError, match="Differing: k="):
        training.train(reordered, tmp_path / "old", resume=True)
    assert training.train(run, tmp_path / "old", resume=True)["test"] == whole["test"]
    assert history(tmp_path / "old") == history(tmp_path / "whole")


@pytest.mark.integration
def test_train_stopped_early_and_continued(finished, tmp_path):
    folder, _ = finished
    summary = training.train(SMALL, tmp_path / "a", until=2, test=False, ticket=True)
    assert summary["epochs"] == 2
    assert summary["test"] is None
    assert summary["ticket_bytes"] == (tmp_path / "a" / "model.ticket").stat().st_size
    assert not (tmp_path / "a" / "summary.json").exists()
    assert history(tmp_path / "a") == history(folder)[:2]
    summary = training.train(SMALL, tmp_path / "a", resume=True)
    assert history(tmp_path / "a") == history(folder)
    assert summary["test"] == training.train(SMALL, folder, resume=True)["test"]


def test_train_asks_for_tensorboard_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    config = RunConfig(model="fc", dataset="digits", width=0.1, mask_statistics="tensorboard")
    with pytest.raises(ImportError, match=r"Install the extra, '\.\[tuning\]'"):
        training.train(config, tmp_path / "run")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [{"k": 0.3, "k_schedule": "cubic", "k_schedule_end": 0.5}, {"method": "supermask", "learning_rate": 20.0}],
    ids=["schedule", "supermask"],
)
def test_train_resumed_has_the_same_statistics(tmp_path, change):
    config = RunConfig(
        model="conv2",
        width=0.1,
        epochs=3,
        **{"batch_size": 64, "learning_rate": 0.5, **change},
        mask_statistics="history",
    )
    summary = training.train(config, tmp_path / "a")
    training.train(config, tmp_path / "b", until=1)
    again = training.train(config, tmp_path / "b", resume=True)
    assert (tmp_path / "a/history.csv").read_text() == (tmp_path / "b/history.csv").read_text()
    assert again["layers"] == summary["layers"]
    assert again["test"] == summary["test"]
    rows = list(csv.DictReader((tmp_path / "a/history.csv").read_text().splitlines()))
    assert {"dense1/changed", "classes/threshold"} <= rows[0].keys()
    if "k_schedule" in change:
        assert float(rows[0]["dense1/kept"]) > 0.3
        assert float(rows[1]["dense1/kept"]) == pytest.approx(0.3, abs=1e-3)
        expected = keras_popup.mask_model(keras_popup.models.Conv2((8, 8, 1), 10, width=0.1), k=0.3, seed=1)
        assert summary["kept"] == sum(layer.kept for layer in expected.layers if hasattr(layer, "kept"))
    else:
        assert summary["test_draws"]["draws"] == 10
        assert again["test_draws"] == summary["test_draws"]
