"""Training runs: the folder they leave, determinism, resuming, divergence, refusals."""

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

from keras_popup import _files, datasets, records, training
from keras_popup.training import RunConfig, config, experiment

SMALL = RunConfig(model="conv2", width=0.1, epochs=3, batch_size=64, learning_rate=0.5)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "a"
    return folder, training.train(SMALL, folder)


def history(folder):
    return list(csv.DictReader((folder / "history.csv").read_text().splitlines()))


def test_run_folder(finished):
    folder, summary = finished
    assert sorted(path.name for path in folder.iterdir()) == [
        ".lock",
        "config.json",
        "curves.png",
        "history.csv",
        "model.keras",
        "summary.json",
    ]
    assert json.loads((folder / "summary.json").read_text()) == json.loads(json.dumps(summary))
    recorded = json.loads((folder / "config.json").read_text())
    assert RunConfig.from_json(recorded["config"]).with_protocol() == SMALL.with_protocol()
    assert {"tensorflow", "keras", "numpy", "keras_popup", "python"} <= recorded["versions"].keys()
    rows = history(folder)
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert summary["train"]["loss"] == float(rows[-1]["loss"])
    assert summary["validation"]["accuracy"] == float(rows[-1]["val_accuracy"])
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_summary_is_of_the_saved_model(finished):
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


def test_same_seed_same_history(finished, tmp_path):
    folder, _ = finished
    training.train(SMALL, tmp_path / "b")
    assert (folder / "history.csv").read_text() == (tmp_path / "b" / "history.csv").read_text()
    training.train(dataclasses.replace(SMALL, seed=2), tmp_path / "c")
    assert (folder / "history.csv").read_text() != (tmp_path / "c" / "history.csv").read_text()


def command(folder, *more):
    flags = {f"--{k}={v}" for k, v in dataclasses.asdict(SMALL).items() if v is not None and not isinstance(v, bool)}
    return [sys.executable, "-m", "keras_popup", "train", *flags, f"--out={folder}", *more]


def test_killed_and_resumed(finished, tmp_path):
    whole, expected = finished
    folder = tmp_path / "killed"
    run = subprocess.Popen(command(folder), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (folder / "checkpoint.json").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(run.pid, signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL
    assert len(history(folder)) < 3
    assert not (folder / "summary.json").exists()
    resumed = subprocess.run(command(folder, "--resume"), capture_output=True, text=True, timeout=120)
    assert resumed.returncode == 0, resumed.stderr
    assert "Going on after epoch" in resumed.stderr
    assert (folder / "history.csv").read_text() == (whole / "history.csv").read_text()
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["test"] == expected["test"]
    assert summary["layers"] == expected["layers"]


def test_killed_after_any_epoch(finished, tmp_path, monkeypatch):
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


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")

    def fail(unfinished):
        unfinished.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        _files.write_atomically(path, fail)
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]
    assert path.read_text() == "old"


def test_resume_of_a_finished_run_trains_nothing(finished):
    folder, summary = finished
    before = (folder / "model.keras").stat().st_mtime_ns
    assert training.train(SMALL, folder, resume=True) == json.loads(json.dumps(summary))
    assert (folder / "model.keras").stat().st_mtime_ns == before


def test_an_existing_folder_is_refused(finished, tmp_path):
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


def test_what_a_kill_has_left_half_written_is_removed(tmp_path):
    training.train(SMALL, tmp_path / "run", until=1)
    (tmp_path / "run" / ".unfinished-7-checkpoint-0002.weights.h5").write_bytes(b"half")
    training.train(SMALL, tmp_path / "run", resume=True)
    assert not list((tmp_path / "run").glob(".unfinished*"))


def test_two_processes_do_not_train_in_one_folder(finished):
    folder, _ = finished
    files = {path: path.read_bytes() for path in folder.iterdir()}
    with records.RunFolder(folder).locked(), pytest.raises(ValueError, match="Another process is at work on the run"):
        training.train(SMALL, folder, overwrite=True)
    assert files == {path: path.read_bytes() for path in folder.iterdir()}


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
def test_refusals_come_before_anything_is_written_or_removed(tmp_path, change, message, exists):
    folder = tmp_path / "run"
    if exists:
        folder.mkdir()
        (folder / "config.json").write_text('{"config": {}, "versions": {}}')
    with pytest.raises(ValueError, match=message):
        training.train(dataclasses.replace(SMALL, **change), folder, overwrite=True)
    assert folder.exists() == exists
    assert not exists or [path.name for path in folder.iterdir()] == ["config.json"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 0.0}, r"`k`, .* must be a number in \(0, 1\]"),
        ({"k": float("nan")}, r"`k`, .* must be a number in \(0, 1\]"),
        ({"k": {"conv*": 1.5}}, r"Layers 'conv\*': `k`, .* must be a number in \(0, 1\]. Received: k=1.5"),
        ({"k": {}}, "`k` must be a number, or a dict"),
        ({"k": {"*": "0.5"}}, "`k` must be a number, or a dict"),
        ({"k": {1: 0.5}}, "`k` must be a number, or a dict"),
        ({"k": "half"}, "`k` must be of type"),
        ({"deterministic": 1}, "`deterministic` must be of type bool"),
        ({"epochs": True}, "`epochs` must be of type"),
        ({"model": "conv5"}, "`model` must be one of fc, conv2"),
        ({"method": "magic"}, "`method` must be one of"),
        ({"epochs": 0}, "`epochs` must be 1 or more"),
        ({"batch_size": -1}, "`batch_size` must be"),
        ({"learning_rate": -1.0}, "`learning_rate` must be"),
        ({"momentum": 1.0}, "`momentum` must be"),
        ({"precision": "float8"}, "`precision` must be one of"),
        ({"seed": -1}, "`seed` must be"),
        ({"epochs": "3"}, "`epochs` must be of type"),
        ({"optimizer": "adam", "learning_rate": None}, "`optimizer`='adam' has no protocol"),
        ({"validation": 1.0}, "`validation` must be"),
        ({"jit_compile": "true"}, "`jit_compile` must be .* with --nodeterministic"),
        ({"warmup_epochs": 5.0}, "`warmup_epochs` must be less than"),
        ({"method": "supermask", "k": 0.3}, "`k` must be left out: bernoulli learns"),
        ({"selector": "bernoulli", "k": {"conv*": 0.3}}, "`k` must be left out"),
        ({"method": "supermask", "k_schedule": "linear"}, "`k_schedule` must be left out"),
        ({"method": "dense", "k_schedule": "linear"}, "`k_schedule` must be left out"),
        ({"k_schedule": "cubic", "k": {"conv*": 0.3, "*": 0.5}}, "`k_schedule` must be left out"),
        ({"k_schedule": "cubic", "k_schedule_end": 0.0}, r"`k_schedule_end` must be in \(0, 1\]"),
        ({"rescale": True}, "`rescale` must be false"),
        ({"method": "dense", "mask_statistics": "history"}, "`mask_statistics` must be left out"),
        ({"method": "dense", "k": 0.3}, "`k` must be left out for the method 'dense'"),
        ({"method": "dense", "k": {"*": 0.3}}, "`k` must be left out for the method 'dense'"),
        ({"method": "dense", "kernel_initializer": "xavier_normal"}, "`kernel_initializer` must be left out"),
        ({"method": "dense", "scaled": True}, "`scaled` must be left out"),
        ({"method": "random", "learning_rate": 0.5}, "`learning_rate` must be 0"),
        ({"method": "random", "learning_rate": None, "selector": "bernoulli"}, "`selector` must be left out"),
        ({"method": "supermask", "selector": "top_k"}, "`selector` must be left out"),
        ({"method": "dense", "selector": "bernoulli"}, "`selector` must be left out"),
        ({"k_schedule_end": 0.5}, "`k_schedule_end` must be 1 without"),
    ],
)
def test_config_checks_itself(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMALL, **change).with_protocol()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kernel_initializer": "signed_const"}, "Unknown initializer"),
        ({"kernel_initializer": "he_normal", "scaled": True}, "`scaled`"),
    ],
)
def test_kernels_are_looked_for_before_the_data(change, message, tmp_path):
    nowhere = dataclasses.replace(SMALL, dataset="cifar10", data_dir=str(tmp_path / "none"), **change)
    with pytest.raises(ValueError, match=message):
        training.train(nowhere, tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_overwrite_removes_the_files_of_a_run_only(finished, tmp_path):
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


def test_killed_at_the_very_start(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / ".unfinished-config.json").write_text("{")
    assert training.train(dataclasses.replace(SMALL, epochs=1), folder, resume=True)["epochs"] == 1


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("summary.json", "{"),
        ("summary.json", "[]"),
        ("checkpoint.json", "{}"),
        ("checkpoint.json", '{"epoch": 1, "seconds": 1, "history": []}'),
    ],
)
def test_damaged_records_are_named(finished, tmp_path, name, content):
    folder = tmp_path / "run"
    shutil.copytree(finished[0], folder)
    if name != "summary.json":
        (folder / "summary.json").unlink()
    (folder / name).write_text(content)
    with pytest.raises(ValueError, match=r"(checkpoint|summary).*damaged.*--overwrite"):
        training.train(SMALL, folder, resume=True)


def test_a_run_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is not a writable directory"):
        training.train(SMALL, tmp_path / "file" / "run")


def test_divergence_names_its_cause_and_keeps_the_checkpoint(tmp_path, monkeypatch):
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


def test_divergence_of_a_dense_network(tmp_path):
    wild = dataclasses.replace(SMALL, method="dense", learning_rate=1e30)
    with pytest.raises(training.DivergenceError, match=r"at a learning rate of .*e\+.*; not finite: .*kernel"):
        training.train(wild, tmp_path / "run")


@pytest.mark.parametrize(
    "change",
    [
        {"method": "dense", "learning_rate": 0.05},
        {"precision": "mixed_bfloat16"},
        {"precision": "mixed_float16"},
        {"jit_compile": "true", "deterministic": False},
        {"optimizer": "adam", "learning_rate": 0.01},
        {"scaled": True, "kernel_initializer": "kaiming_normal", "k": 0.3},
        {"schedule": "constant", "warmup_epochs": 1.0, "label_smoothing": 0.1},
        {"model": "fc", "augment": "crop_flip"},
        {"method": "supermask", "rescale": True, "learning_rate": 20.0, "mask_statistics": "tensorboard"},
        pytest.param({"model": "resnet18", "width": 0.1, "epochs": 1}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_variants_learn(tmp_path, change):
    summary = training.train(dataclasses.replace(SMALL, **{"validation": 0.0, **change}), tmp_path / "run")
    assert summary["validation"] is None
    rows = history(tmp_path / "run")
    if len(rows) > 1:
        assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
    dense = change.get("method") == "dense"
    assert (summary["kept"] == summary["weights"]) == dense
    if change.get("schedule") == "constant":
        assert [float(row["learning_rate"]) for row in rows] == pytest.approx([0.5, 0.5, 0.5])


def test_mixed_precision_is_that_of_the_run_only(tmp_path):
    model = experiment.build_model(dataclasses.replace(SMALL, precision="mixed_bfloat16"), (8, 8, 1), 10)
    assert model.layers[1].compute_dtype == "bfloat16"
    assert keras.config.dtype_policy().name == "float32"


def test_protocols():
    conv4 = RunConfig(model="conv4").with_protocol()
    assert (conv4.optimizer, conv4.learning_rate, conv4.momentum, conv4.l2) == ("sgd", 0.1, 0.9, 1e-4)
    assert (conv4.epochs, conv4.batch_size, conv4.schedule, conv4.warmup_epochs) == (100, 128, "cosine", 0)
    assert RunConfig(model="conv4", method="dense").with_protocol().learning_rate == 0.01
    adam = RunConfig(model="conv4", method="dense", optimizer="adam").with_protocol()
    assert (adam.learning_rate, adam.batch_size, adam.schedule, adam.l2) == (3e-4, 60, "constant", 0.0)
    resnet18 = RunConfig(model="resnet18").with_protocol()
    assert (resnet18.batch_size, resnet18.l2, resnet18.learning_rate) == (256, 5e-4, 0.1)
    resnet50 = RunConfig(model="resnet50").with_protocol()
    assert (resnet50.learning_rate, resnet50.momentum, resnet50.l2) == (0.256, 0.875, 3.05e-5)
    assert (resnet50.warmup_epochs, resnet50.label_smoothing) == (5, 0.1)
    assert RunConfig(model="conv4", learning_rate=0.7, l2=0.0).with_protocol().l2 == 0.0
    assert set(config.PROTOCOLS["conv4"]) == {"edge-popup", "supermask", "random", "dense"}
    supermask = RunConfig(model="conv4", method="supermask").with_protocol()
    assert (supermask.learning_rate, supermask.l2, supermask.selector) == (50.0, 0.0, "bernoulli")
    assert RunConfig(model="conv4", selector="bernoulli").with_protocol().learning_rate == 50.0


@pytest.mark.parametrize("method", config.PROTOCOLS["conv4"])
def test_a_configuration_with_a_protocol_has_no_gaps(method):
    run = RunConfig(method=method).with_protocol()
    assert all(getattr(run, name) is not None for name in config.ResolvedRunConfig.__annotations__)
    assert run.with_protocol() == run
    with pytest.raises(TypeError, match=r"A ResolvedRunConfig needs epochs\. Use RunConfig.with_protocol"):
        dataclasses.replace(run, epochs=None)


def test_a_random_mask_learns_nothing(tmp_path):
    change = {"method": "random", "k": 0.3, "learning_rate": None, "epochs": None}
    run = dataclasses.replace(SMALL, **change)
    summary = training.train(run, tmp_path / "run")
    assert (summary["epochs"], summary["config"]["learning_rate"]) == (1, 0.0)
    untouched = experiment.build_model(run.with_protocol(), (8, 8, 1), 10)
    trained = keras.models.load_model(tmp_path / "run/model.keras")
    assert all(map(np.array_equal, untouched.get_weights(), trained.get_weights()))
    assert summary["kept"] == sum(layer.kept for layer in untouched.layers if hasattr(layer, "kept"))


def test_a_run_of_a_version_with_fewer_arguments_goes_on(finished, tmp_path):
    shutil.copytree(finished[0], tmp_path / "run")
    recorded = json.loads((tmp_path / "run/config.json").read_text())
    for name in ("k_schedule", "k_schedule_end", "mask_statistics", "rescale"):
        del recorded["config"][name]
    recorded["config"]["layer_k"] = None
    (tmp_path / "run/config.json").write_text(json.dumps(recorded))
    assert training.train(SMALL, tmp_path / "run", resume=True)["test"] == finished[1]["test"]
    with pytest.raises(ValueError, match="Differing: mask_statistics='history', recorded None"):
        training.train(dataclasses.replace(SMALL, mask_statistics="history"), tmp_path / "run", resume=True)


@pytest.mark.parametrize(("method", "l2"), [("edge-popup", 1e-2), ("dense", 1e-2), ("edge-popup", 0.0)])
def test_weight_decay_is_coupled_l2(method, l2):
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
def test_fractions_of_layers(k, expected):
    run = dataclasses.replace(SMALL, k=k).with_protocol()
    model = experiment.build_model(run, (8, 8, 1), 10)
    assert [layer.k for layer in model.layers if hasattr(layer, "kept")] == expected


def test_a_layer_that_is_not_there_is_refused():
    run = dataclasses.replace(SMALL, k={"conv9": 0.3, "*": 0.5}).with_protocol()
    with pytest.raises(ValueError, match="matches no layer"):
        experiment.build_model(run, (8, 8, 1), 10)


def test_a_run_of_a_version_with_fractions_as_text_goes_on(tmp_path):
    run = dataclasses.replace(SMALL, k={"conv*": 0.3, "dense1": 0.25, "*": 0.6}, epochs=2)
    whole = training.train(run, tmp_path / "whole")
    training.train(run, tmp_path / "old", until=1)
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


def test_equal_configurations_have_equal_hashes():
    assert hash(RunConfig(k={"*": 0.3})) == hash(RunConfig(k={"*": 0.3}))
    assert RunConfig(k={"*": 0.3}) != RunConfig(k=0.3)


def test_stopped_early_and_continued(finished, tmp_path):
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
