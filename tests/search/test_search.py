"""Searches on the digits: records, budgets, failures, kills, Ray, the page in a browser."""

import csv
import dataclasses
import json
import os
import pickle
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import keras
import keras_tuner
import numpy as np
import pytest
from sklearn.datasets import load_digits
from tables import TUNERS
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import keras_popup
from keras_popup import cli, records, search
from keras_popup.search import PopupHyperModel, Range, SearchConfig, report, trial, workers
from keras_popup.search.space import check_space
from keras_popup.search.tasks import MeasureTask
from keras_popup.training import RunConfig

SMALL = ("--model", "fc", "--width", "0.1,0.2", "--epochs", "3", "--learning_rate", "0.5", "--seed", "0")
RUN = RunConfig(model="fc", width=0.2, epochs=3, learning_rate=0.5, seed=0)
BUDGETED = SearchConfig(run=RUN, space={"width": (0.1, 0.2, 0.5)}, tuner="grid", budget=2500)


def lines(folder, name="trials.jsonl"):
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def outcome(record):
    """Returns what must be the same of a trial wherever and whenever it ran."""
    names = ("seed", "k", "width", "kept", "ticket_bytes", "predicted_bytes", "history", "validation", "test")
    executions = [{name: each[name] for name in names} for each in record["executions"]]
    return {**{name: record[name] for name in ("trial", "hyperparameters", "score", "until")}, "executions": executions}


def by_number(records):
    return sorted((outcome(record) for record in records), key=lambda record: record["trial"])


@pytest.fixture(scope="module")
def failing(tmp_path_factory):
    """A search of which one trial fails, whose winner was trained again."""
    folder = tmp_path_factory.mktemp("searches") / "a"
    flags = ["--model", "fc", "--width", "0.2", "--epochs", "3", "--seed", "0", "--tuner", "grid", "--executions", "2"]
    flags += ["--learning_rate", "0.5,1e38,1", "--refit", "--tensorboard", "--out", str(folder)]
    assert cli.main(["search", *flags]) == 0
    return folder, flags


@pytest.fixture(scope="module")
def budgeted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("searches") / "b"
    return folder, search.search(BUDGETED, folder)


def test_records(failing):
    folder, _ = failing
    trials = lines(folder)
    assert [record["trial"] for record in trials] == [1, 2, 3]
    assert [record["hyperparameters"]["learning_rate"] for record in trials] == [0.5, 1e38, 1.0]
    for record in trials:
        if record["hyperparameters"]["learning_rate"] == 1e38:
            assert record["status"] == "failed"
            assert record["score"] is None
            assert "DivergenceError: The loss became" in record["error"]
            assert "DivergenceError" in record["traceback"]
            continue
        assert record["status"] == "completed"
        assert record["error"] is None
        assert record["peak_memory_mb"] > 100
        assert [each["seed"] for each in record["executions"]] == [0, 1]
        accuracies = [each["validation"]["accuracy"] for each in record["executions"]]
        assert record["score"] == pytest.approx(np.mean(accuracies))
        for number, each in enumerate(record["executions"]):
            assert [row["epoch"] for row in each["history"]] == [1, 2, 3]
            assert each["validation"]["accuracy"] == each["history"][-1]["val_accuracy"]
            assert each["kept"] == sum(layer["kept"] for layer in each["layers"]) == round(0.5 * each["weights"])
            run = records.RunFolder(folder / record["folder"] / str(number))
            assert each["ticket_bytes"] == run.ticket.stat().st_size <= each["predicted_bytes"]
            assert run.summary()["test"] is None
    rows = list(csv.DictReader((folder / "trials.csv").read_text().splitlines()))
    assert [row["val_accuracy"] for row in rows] == ["" if r["score"] is None else str(r["score"]) for r in trials]
    assert {"status", "seeds", "k", "width", "kept", "predicted_bytes", "ticket_bytes", "seconds", "error"} <= set(
        rows[0]
    )


def test_winner_is_chosen_by_validation_and_tested_once(failing):
    folder, _ = failing
    best = json.loads((folder / "best.json").read_text())
    assert best["score"] == max(record["score"] for record in lines(folder) if record["score"] is not None)
    again = records.RunFolder(folder / "refit" / f"{best['trial']:04d}" / "0")
    assert again.summary()["data"]["validation"] == 0
    assert best["test"] == again.summary()["test"]
    assert best["refit"] == again.summary()
    assert best["refit"]["ticket_bytes"] == (folder / "best.ticket").stat().st_size
    model, plain = keras.models.load_model(folder / "best.keras"), keras_popup.load_ticket(folder / "best.ticket")
    images = load_digits().images.astype("float32")[..., None]
    np.testing.assert_allclose(plain.predict(images, verbose=0), model.predict(images, verbose=0), rtol=1e-5)
    kept = list((folder / "trials").glob("*/*/model.keras"))
    assert {path.parent.parent for path in kept} == {folder / best["folder"]}


def test_baseline(failing):
    folder, _ = failing
    (baseline,) = lines(folder, "baselines.jsonl")
    assert baseline["width"] == 0.2
    run = baseline["executions"][0]["config"]
    assert (run["method"], run["learning_rate"], run["epochs"]) == ("dense", 0.01, 3)
    assert baseline["executions"][0]["ticket_bytes"] is None


def test_a_finished_search_is_not_run_again(failing, capsys):
    folder, flags = failing
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    views = {"trials.csv", "best.json", "best.keras", "best.ticket", "report.html", ".lock"}
    assert cli.main(["search", *flags, "--resume"]) == 0
    assert "test accuracy" in capsys.readouterr().out
    changed = {path.name for path, when in before.items() if path.stat().st_mtime_ns != when}
    assert changed <= views


def test_refusals_of_a_folder(failing, tmp_path, capsys):
    folder, flags = failing
    for more, message in [
        ([], "Use --resume to go on with it, --overwrite"),
        (["--resume", "--overwrite"], "not both"),
        (["--resume", "--executions", "1"], "executions=1, recorded 2"),
        (["--resume", "--k", "0.1:0.9"], "k='0.1:0.9', recorded 0.5"),
    ]:
        assert cli.main(["search", *flags, *more]) == 1
        assert message in capsys.readouterr().err
    with records.SearchFolder(folder).locked():
        assert cli.main(["search", *flags, "--resume"]) == 1
    assert "Another process is at work on the search in" in capsys.readouterr().err
    run = tmp_path / "run"
    run.mkdir()
    (run / "mine.txt").write_text("mine")
    assert cli.main(["search", *SMALL, "--k", "0.1:0.9", "--out", str(run), "--overwrite"]) == 1
    assert "is not the folder of a search" in capsys.readouterr().err
    assert (run / "mine.txt").exists()


def test_tensorboard(failing):
    folder, _ = failing
    trial = lines(folder)[0]
    logged = EventAccumulator(str(folder / "tensorboard" / "0001-0"))
    logged.Reload()
    history = trial["executions"][0]["history"]
    for name in ("loss", "val_accuracy"):
        assert [event.value for event in logged.Scalars(name)] == pytest.approx([row[name] for row in history])
    metadata = logged.SummaryMetadata("_hparams_/session_start_info")
    assert metadata.plugin_data.plugin_name == "hparams"
    assert b"learning_rate" in metadata.plugin_data.content


def test_every_ticket_is_in_the_budget(budgeted):
    folder, best = budgeted
    trials = lines(folder)
    assert len(trials) == 6
    assert {record["hyperparameters"]["branch"] for record in trials} == {"sparse", "dense"}
    for record in trials:
        (execution,) = record["executions"]
        ticket = folder / record["folder"] / "0" / "model.ticket"
        assert ticket.stat().st_size == execution["ticket_bytes"] <= execution["predicted_bytes"] <= 2500
        sparse = record["hyperparameters"]["branch"] == "sparse"
        assert execution["k"] <= 0.5 if sparse else execution["k"] >= 0.5
        # As large as fits.
        assert execution["predicted_bytes"] >= 2500 - 3 or execution["k"] == 0.5
        model_layers = {row.path: row for row in keras_popup.ticket_info(ticket).layers}
        assert {layer["name"]: layer["kept"] for layer in execution["layers"]} == {
            name: row.kept for name, row in model_layers.items()
        }
    assert best.test is None
    assert (folder / "best.ticket").stat().st_size <= 2500


def test_a_refit_that_fails_keeps_the_winner_and_is_tried_again(budgeted, tmp_path):
    folder = shutil.copytree(budgeted[0], tmp_path / "c")
    in_the_way = folder / "refit" / f"{budgeted[1].trial:04d}" / "0" / "mine.txt"
    in_the_way.parent.mkdir(parents=True)
    in_the_way.write_text("mine")
    with pytest.raises(RuntimeError, match="Training the winner again has failed: .*--resume --refit tries again"):
        search.search(BUDGETED, folder, resume=True, refit=True)
    assert records.SearchFolder(folder).best() == budgeted[1]
    in_the_way.unlink()
    best = search.search(BUDGETED, folder, resume=True, refit=True)
    assert (best.trial, best.score) == (budgeted[1].trial, budgeted[1].score)
    assert best.test == best.refit["test"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--k", "0:0.5"), "must be a number in (0, 1]. Received: k=0.0"),
        (("--k", "0.9:0.1"), "`k`: A range goes from the smaller to the larger number. Received: 0.9:0.1"),
        (("--k", "some"), "`k`: Expected numbers"),
        (("--k", "0.5"), "There is nothing to search"),
        (("--width", "0:1"), "`width` must be a positive number"),
        (("--k", "0.1:0.9", "--budget", "10 apples"), "`budget` must be bytes, such as 100kB"),
        (("--k", "0.3", "--budget", "10kB"), "With a budget, k follows from the width"),
        (("--k", "0.1:0.9", "--layer_k", "conv*=0.1:0.9;dense"), "`layer_k` must be such as"),
        (("--k", "0.1:0.9", "--tuner", "luck"), "tuner"),
    ],
)
def test_bad_flags(capsys, tmp_path, flags, message):
    assert cli.main(["search", "--model", "fc", *flags, "--out", str(tmp_path / "s")]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


class SameProcess:
    """Measures what a search would, in this process: starting a child process takes seconds."""

    def ask(self, task, seconds):
        return trial.measure(task)


WIDTHS = {"width": (0.1, 0.2)}
IMPOSSIBLE = {
    "width": ({"space": {"width": (0.001, 1.0)}}, {}, "width=0.001 leaves no channel of 300"),
    "k": ({"space": {"k": Range(0.0001, 0.5)}}, {"width": 0.1}, "keeps none of the"),
    "budget": ({"space": WIDTHS, "budget": 1000}, {}, "The smallest possible ticket of width 0.1 takes 1,"),
    "budget, k": ({"space": {"k": Range(1e-5, 1e-4)}, "budget": 9000}, {"width": 0.1}, "keeps none of the"),
    "budget, widths": ({"space": {"width": Range(0.1, 2.0), "k": Range(0.3, 0.7)}, "budget": 5000}, {}, "to 0.1, wh"),
    "budget, kernels": (
        {"space": WIDTHS, "budget": 9000},
        {"kernel_initializer": "he_normal"},
        "A ticket stores the kernels",
    ),
    "budget, some kernels": (
        {"space": {"kernel_initializer": ("signed_constant", "he_normal")}, "budget": 9000},
        {"width": 0.1},
        "A ticket stores the kernels of 'he_normal' themselves",
    ),
    "initializer": ({"space": {"kernel_initializer": ("signed_constant", "odd")}}, {}, "odd"),
    "scaled": (
        {"space": {"kernel_initializer": ("signed_constant", "he_normal")}},
        {"scaled": True},
        "`scaled` needs one of this library's",
    ),
    "devices": ({"space": WIDTHS}, {"devices": "GPU:5,GPU:6"}, "There is no device GPU:5, GPU:6"),
    "validation": ({"space": WIDTHS}, {"validation": 0.0}, "A search chooses by validation images"),
}


@pytest.mark.parametrize(("changes", "run", "message"), IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_what_cannot_be_is_found_before_the_first_trial(changes, run, message):
    config = SearchConfig(**{"run": RunConfig(**{"model": "fc", "epochs": 9, **run}), **changes})
    with pytest.raises(ValueError, match=re.escape(message)):
        check_space(config, SameProcess(), here=True)


def test_errors_of_a_measurement_can_be_unpickled(tmp_path):
    run = RunConfig(model="fc", dataset="none", data_dir=str(tmp_path / "none"))
    task = MeasureTask(run=run, widths=(1.0,), initializers=("signed_constant",), tickets=False, here=False)
    error = pickle.loads(pickle.dumps(trial.try_measure(task)))
    assert type(error) is FileNotFoundError
    assert str(tmp_path / "none") in str(error)
    error = trial.try_measure(dataclasses.replace(task, run=RunConfig(model="fc", validation=0.0)))
    assert type(error) is ValueError


def test_widths_that_do_not_fit_are_left_out(caplog):
    run = RunConfig(model="fc", epochs=9)
    config = SearchConfig(run=run, space={"width": (0.1, 0.5, 4.0), "k": Range(0.3, 0.7)}, budget=5000)
    space, measurement = check_space(config, SameProcess(), here=True)
    assert space == {"width": (0.1, 0.5), "branch": ("sparse", "dense")}
    assert (measurement.image_shape, measurement.classes) == ((8, 8, 1), 10)
    assert measurement.size_of(dataclasses.replace(run, width=0.5)) == measurement.sizes[0.5, "signed_constant"]
    assert measurement.size_of(dataclasses.replace(run, width=0.7)) is None
    assert "Left out, as no ticket fits into the budget: width 4." in caplog.text


def test_a_branch_on_which_a_width_does_not_fit_is_left_out():
    space = {"width": (0.1, 0.5), "k": Range(0.4, 0.95)}
    config = SearchConfig(run=RunConfig(model="fc", epochs=9), space=space, budget=2500)
    assert check_space(config, SameProcess(), here=True)[0] == {"width": (0.1, 0.5), "branch": "dense"}


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("--selector", "top_k,bernoulli"), {"selector": ("top_k", "bernoulli"), "width": (0.1, 0.2)}),
        (("--selector", "bernoulli"), {"width": (0.1, 0.2)}),
        (("--kernel_initializer", "signed_constant"), {"width": (0.1, 0.2)}),
        (("--l2", "1e-5:1e-3:log"), {"l2": Range(1e-5, 1e-3, "log"), "width": (0.1, 0.2)}),
    ],
)
def test_flags_of_what_is_searched(monkeypatch, flags, expected):
    taken = []
    monkeypatch.setattr(search, "search", lambda config, *_, **__: taken.append(config) or sys.exit(0))
    with pytest.raises(SystemExit):
        cli.main(["search", "--model", "fc", "--width", "0.1,0.2", *flags, "--out", "s"])
    assert taken[0].space == expected
    assert taken[0].run.selector == ("bernoulli" if flags[1] == "bernoulli" else None)


def test_what_cannot_be_leaves_nothing_behind(capsys, tmp_path):
    for flags, message in [
        (("--width", "0.001,1"), "width=0.001 leaves no channel of 300"),
        (("--width", "0.1,0.2", "--tuner", "hyperband", "--epochs", "9"), "needs at least twice as many"),
        (("--k", "0.1:0.9", "--dataset", "none", "--data_dir", str(tmp_path / "none")), "none"),
        (("--k", "0.1:0.9", "--workers", "0"), "`workers` must be 1 or more"),
        (("--k", "0.1:0.9", "--gpus_per_worker", "1"), "For one worker see `devices`"),
        (("--k", "0.1:0.9", "--workers", "2", "--gpus_per_worker", "1.5"), "must be a whole number"),
        (("--k", "0.1:0.9", "--ray_address", "127.0.0.1:9"), "There is no Ray at 127.0.0.1:9"),
    ]:
        assert cli.main(["search", "--model", "fc", *flags, "--out", str(tmp_path / "s")]) == 1
        assert message in capsys.readouterr().err
        assert not list(tmp_path.iterdir())


def browser():
    if not shutil.which("chromedriver"):
        assert not os.environ.get("KERAS_POPUP_NEEDS_BROWSER"), "chromedriver is missing"
        pytest.skip("needs Chromium and ChromeDriver")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    for argument in ("headless", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "window-size=1200,4000"):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of selenium's
def test_the_page_in_a_browser(failing, budgeted):
    driver = browser()
    try:
        for folder, plots in ((failing[0], 7), (budgeted[0], 7)):
            trials = [record for record in lines(folder) if record["score"] is not None]
            report.write_report(folder)
            driver.get((folder / "report.html").as_uri())
            # Drawn, all of it: a busy machine may return from get() before the page is there.
            drawn = (
                "return [...document.querySelectorAll('.js-plotly-plot')].filter(p => p.querySelector('svg')).length"
            )
            deadline = time.monotonic() + 60
            while driver.execute_script(drawn) < plots and time.monotonic() < deadline:
                time.sleep(0.1)
            assert driver.execute_script(drawn) == plots, (driver.title, driver.get_log("browser"))
            points = driver.find_elements("css selector", "#accuracy-over-k .scatterlayer .points path")
            assert len(points) == len(trials)
            assert len(driver.find_elements("css selector", "#learning-curves .scatterlayer .trace")) == len(trials)
            assert [log for log in driver.get_log("browser") if log["level"] == "SEVERE"] == []
            events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
            urls = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
            assert urls
            assert not [url for url in urls if not url.startswith(("file:", "data:"))]
        assert "DivergenceError" in (failing[0] / "report.html").read_text()
    finally:
        driver.quit()


def test_a_reader_changes_nothing(failing, tmp_path):
    folder = tmp_path / "read"
    shutil.copytree(failing[0], folder)
    with open(folder / "trials.jsonl", "a") as file:
        file.write('{"trial": 4, "half')
    before = (folder / "trials.jsonl").read_bytes()
    report.write_report(folder)
    assert (folder / "trials.jsonl").read_bytes() == before
    assert len(records.SearchFolder(folder).records(records.TrialRecord, repair=True)) == 3
    assert (folder / "trials.jsonl").read_bytes() == (failing[0] / "trials.jsonl").read_bytes()


def test_what_a_kill_prevented_is_made_up_for(failing, tmp_path):
    folder, flags = tmp_path / "s", [*failing[1][:-1], str(tmp_path / "s")]
    shutil.copytree(failing[0], folder)
    table = (folder / "trials.csv").read_text()
    (folder / "trials.csv").unlink()
    shutil.rmtree(folder / "tensorboard")
    (folder / "tensorboard" / ".unfinished-0001-0").mkdir(parents=True)
    assert cli.main(["search", *flags, "--resume"]) == 0
    assert (folder / "trials.csv").read_text() == table
    assert {path.name for path in (folder / "tensorboard").iterdir()} == {"0001-0", "0001-1", "0003-0", "0003-1"}


def test_tickets_of_moving_averages_are_in_the_budget(tmp_path):
    run = RunConfig(model="resnet18", width=0.05, epochs=1, learning_rate=0.5, batch_size=256)
    folder = tmp_path / "s"
    config = SearchConfig(run=run, space={"k": Range(0.001, 0.49)}, tuner="grid", budget=8000, baseline=False)
    search.search(config, folder)
    (record,) = lines(folder)
    (execution,) = record["executions"]
    assert (folder / "best.ticket").stat().st_size == execution["ticket_bytes"] <= execution["predicted_bytes"] <= 8000


@pytest.mark.slow
def test_supermasks_are_searched(tmp_path):
    """Over selector and width, with tickets, a baseline without what is of masks, and the winner's model."""
    config = SearchConfig(
        run=RunConfig(
            model="fc",
            width=0.2,
            epochs=2,
            method="supermask",
            learning_rate=50.0,
            rescale=True,
            mask_statistics="history",
        ),
        space={"width": (0.1, 0.2)},
        tuner="grid",
    )
    best = search.search(config, tmp_path / "search")
    trials = lines(tmp_path / "search")
    assert [record["status"] for record in trials] == ["completed"] * 2
    for record in trials:
        (each,) = record["executions"]
        assert each["k"] == each["kept"] / each["weights"] != 0.5
        assert each["ticket_bytes"] <= each["predicted_bytes"]
    plain = keras_popup.load_ticket(tmp_path / "search/best.ticket")
    model = keras.models.load_model(tmp_path / "search/best.keras")
    images = load_digits().images.astype("float32")[..., None]
    assert np.array_equal(plain(images), model(images))
    assert best.score == max(record["score"] for record in trials)


def test_what_is_drawn_cannot_run(failing, tmp_path):
    folder = tmp_path / "evil"
    shutil.copytree(failing[0], folder)
    config = json.loads((folder / "search.json").read_text())
    config["config"]["dataset"] = "<script>alert(1)</script>"
    (folder / "search.json").write_text(json.dumps(config))
    text = (folder / "trials.jsonl").read_text().replace("DivergenceError", "</td><script>alert(2)</script>")
    (folder / "trials.jsonl").write_text(text)
    assert cli.main(["report", str(folder)]) == 0
    assert "<script>alert" not in (folder / "report.html").read_text()


def test_report_needs_a_search(capsys, tmp_path):
    assert cli.main(["report", str(tmp_path)]) == 1
    assert "must be the folder of a search" in capsys.readouterr().err


@pytest.mark.parametrize(
    "tuner", [pytest.param(tuner, marks=() if tuner == "random" else pytest.mark.slow) for tuner in TUNERS]
)
def test_hypermodel_in_every_tuner(tuner, tmp_path):
    digits = load_digits()
    images, labels = (digits.images / 16).astype("float32")[..., None], digits.target

    def build(width):
        return keras_popup.models.FullyConnected((8, 8, 1), width=width)

    hypermodel = PopupHyperModel(
        build,
        k={"dense*": Range(0.1, 0.9), "*": 0.5},
        width=[0.1, 0.2],
        learning_rate=Range(0.1, 1, "log"),
        l2=[0.0, 1e-4],
        kernel_initializer=["signed_constant", "kaiming_normal"],
        seed=0,
    )
    classes = {
        "random": keras_tuner.RandomSearch,
        "grid": keras_tuner.GridSearch,
        "bayesian": keras_tuner.BayesianOptimization,
        "hyperband": keras_tuner.Hyperband,
    }
    more = {"max_epochs": 2, "factor": 2} if tuner == "hyperband" else {"max_trials": 2}
    tuner = classes[tuner](hypermodel, objective="val_accuracy", seed=1, directory=tmp_path, **more)
    tuner.search(images[:1000], labels[:1000], epochs=2, validation_data=(images[1000:], labels[1000:]), verbose=0)
    best = tuner.get_best_hyperparameters()[0].values
    assert {"k[dense*]", "width", "learning_rate", "l2", "kernel_initializer"} <= set(best)
    model = tuner.get_best_models()[0]
    layer = model.get_layer("dense1")
    assert layer.k == pytest.approx(best["k[dense*]"])
    assert layer.units == int(300 * best["width"])
    assert model.get_layer("classes").k == 0.5
    assert float(model.optimizer.learning_rate) == pytest.approx(best["learning_rate"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": Range(0.0, 0.5)}, "`k` must be in (0, 1]"),
        ({"k": {"a": [0.5, 2.0]}}, "`k[a]` must be in (0, 1]"),
        ({"k": "half"}, "`k` must be in (0, 1]"),
        ({"k": (0.1, 0.9)}, "`k` must be a list of values, or Range(low, high)"),
        ({"k": ["0.5", "0.6"]}, "`k` must be in (0, 1]"),
        ({"width": "0.5"}, "`width` must be more than 0"),
        ({"learning_rate": "high"}, "`learning_rate` must be a number >= 0"),
        ({"learning_rate": float("inf")}, "`learning_rate` must be a number >= 0"),
        ({"kernel_initializer": [keras.initializers.HeNormal(1), "signed_constant"]}, "Expected different values"),
        ({"optimizer": keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, 9))}, "must have a number"),
        ({"k": []}, "`k`: Expected different values"),
        ({"width": [0.0, 1.0]}, "`width` must be more than 0"),
        ({"learning_rate": -1.0}, "`learning_rate` must be a number >= 0"),
        ({"kernel_initializer": ["signed_constant", "odd"]}, "odd"),
        ({"selector": "best"}, "Unknown selector"),
        ({"selector": "bernoulli", "k": Range(0.1, 0.9)}, "'bernoulli' learns how many weights are kept"),
        ({"selector": ["top_k", "bernoulli"], "k": {"*": 0.3}}, "'bernoulli' learns how many weights are kept"),
        ({"seed": -1}, "`seed` must be an integer"),
    ],
)
def test_bad_hypermodels(arguments, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        PopupHyperModel(keras_popup.models.FullyConnected, **arguments)
    assert message in str(caught.value)


@pytest.mark.parametrize(("selector", "rate", "l2"), [("top_k", 0.1, 1e-4), ("bernoulli", 50.0, 0.0)])
def test_each_selector_has_its_own_defaults(selector, rate, l2):
    hypermodel = PopupHyperModel(keras_popup.models.FullyConnected, selector=["top_k", "bernoulli"])
    hp = keras_tuner.HyperParameters()
    hp.Fixed("selector", selector)
    model = hypermodel.build(hp)
    assert float(model.optimizer.learning_rate) == pytest.approx(rate)
    regularizer = model.get_layer("dense1").scores_regularizer
    assert 2 * float(regularizer.l2 if regularizer else 0) == pytest.approx(l2)


# A process that a shell has put into the background ignores Ctrl-C, and so would those it starts.
COMMAND = "import signal, sys; from keras_popup import cli; signal.signal(signal.SIGINT, signal.default_int_handler); "
COMMAND += "sys.exit(cli.main())"


def started(*flags):
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, "search", *flags],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def alive(folder, epochs=1, but=(), limit=180):
    """Waits until a trial of none of the processes `but` has trained for some epochs, and returns what it says."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        for path in folder.glob("trials/*/alive.json"):
            sign = json.loads(path.read_text())
            if sign["pid"] not in but and epochs <= sign["epoch"] < sign["epochs"]:
                return sign
        time.sleep(0.02)
    raise TimeoutError("no trial has begun")


def gone(pid, limit=30):
    end = time.monotonic() + limit
    while time.monotonic() < end:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


LONG = (
    "--model",
    "fc",
    "--width",
    "0.1,0.2",
    "--k",
    "0.1:0.9",
    "--epochs",
    "12",
    "--learning_rate",
    "0.5",
    "--seed",
    "0",
)
LONG = (*LONG, "--tuner", "random", "--max_trials", "4", "--nobaseline")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("searches") / "undisturbed"
    assert cli.main(["search", *LONG, "--out", str(folder)]) == 0
    return folder


@pytest.mark.slow
def test_interrupted_by_the_user(undisturbed, tmp_path):
    folder = tmp_path / "s"
    process = started(*LONG, "--out", str(folder))
    sign = alive(folder, epochs=3)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert "The same command with --resume goes on" in process.stderr.read()
    process.stderr.close()
    assert gone(sign["pid"])
    assert cli.main(["search", *LONG, "--out", str(folder), "--resume"]) == 0
    assert by_number(lines(folder)) == by_number(lines(undisturbed))
    assert "Going on after epoch" in (folder / "trials" / "0001" / "log.txt").read_text()


@pytest.mark.slow
def test_a_trials_process_is_killed(undisturbed, tmp_path):
    folder = tmp_path / "s"
    process = started(*LONG, "--out", str(folder))
    os.kill(alive(folder, epochs=3)["pid"], signal.SIGKILL)
    _, said = process.communicate(timeout=200)
    assert process.returncode == 0
    assert "Trial 1 goes on after its last epoch. Its process died: SIGKILL" in said
    assert by_number(lines(folder)) == by_number(lines(undisturbed))
    assert lines(folder)[0]["retries"] == 1


@pytest.mark.slow
def test_killed_at_random_moments(undisturbed, tmp_path):
    folder, kills = tmp_path / "s", 0
    moments = random.Random(7)
    while kills < 10:
        process = started(*LONG, "--out", str(folder), "--resume")
        if moments.random() < 0.7:  # while a trial trains, or between two; else at any moment
            alive(folder, epochs=0)
        time.sleep(moments.random() * 1.5)
        assert process.poll() is None or kills > 5
        before = lines(folder) if (folder / "trials.jsonl").exists() else []
        process.kill()
        process.wait()
        process.stderr.close()
        kills += 1
        for path in folder.glob("trials/*/alive.json"):
            path.unlink()
        after = records.SearchFolder(folder).records(records.TrialRecord)
        assert [record.to_json() for record in after[: len(before)]] == before
    assert cli.main(["search", *LONG, "--out", str(folder), "--resume"]) == 0
    assert by_number(lines(folder)) == by_number(lines(undisturbed))
    assert len({record["trial"] for record in lines(folder)}) == len(lines(folder)) == 4


@pytest.mark.slow
def test_two_workers_on_ray_find_what_one_does_though_one_is_killed_and_the_driver_too(tmp_path):
    flags = [*LONG, "--epochs", "60", "--max_trials", "3"]
    assert cli.main(["search", *flags, "--out", str(tmp_path / "one")]) == 0
    folder = tmp_path / "two"
    process = started(*flags, "--out", str(folder), "--workers", "2")
    killed = alive(folder, epochs=3)["pid"]
    os.kill(killed, signal.SIGKILL)
    time.sleep(1)
    remaining = alive(folder, epochs=5, but=(killed,))["pid"]
    for line in process.stderr:  # the other goes on meanwhile
        if "goes on after its last epoch. Its process was lost: WorkerCrashedError" in line:
            break
    process.kill()
    process.wait()
    process.stderr.close()
    assert gone(remaining)
    process = started(*flags, "--out", str(folder), "--workers", "2", "--resume")
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert by_number(lines(folder)) == by_number(lines(tmp_path / "one"))
    logs = [path.read_text() for path in folder.glob("trials/*/log.txt")]
    assert sum("Going on after epoch" in log for log in logs) >= 1


@pytest.mark.rare
def test_what_is_stuck_is_given_up(tmp_path):
    folder, stopped = tmp_path / "s", []
    flags = [*LONG, "--epochs", "500", "--max_trials", "1", "--stall_minutes", "0.25", "--retries", "1"]
    process = started(*flags, "--out", str(folder))
    for _ in range(2):
        stopped.append(alive(folder, epochs=2, but=stopped)["pid"])
        os.kill(stopped[-1], signal.SIGSTOP)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "It made no progress for 0.25 minutes" in said
    assert "No trial has succeeded" in said
    assert lines(folder)[0]["error"] == "It made no progress for 0.25 minutes, 2 times."


@pytest.mark.parametrize(  # the others are in the quick tests
    "tuner", [pytest.param("bayesian", marks=pytest.mark.rare), pytest.param("hyperband", marks=pytest.mark.slow)]
)
def test_every_tuner(tuner, tmp_path):
    space = {"k": Range(0.1, 0.9), "learning_rate": Range(0.1, 1.0, "log")}
    config = SearchConfig(
        run=RUN, space=space, tuner=tuner, max_trials=None if tuner == "hyperband" else 9, baseline=False
    )
    best = search.search(config, tmp_path / "a")
    trials = lines(tmp_path / "a")
    assert best.until is None
    assert best.score == max(record["score"] for record in trials if record["until"] is None)
    if tuner == "hyperband":
        gone_on = [record for record in trials if len(record["executions"][0]["history"]) == 3 and record["trial"] > 3]
        assert {record["until"] for record in trials} == {1, None}
        assert any(record["folder"] != f"trials/{record['trial']:04d}" for record in gone_on)
    else:
        assert len(trials) == 9
    # What was searched is what was trained.
    for record in trials:
        run = record["executions"][0]["config"]
        assert {name: run[name] for name in space} == record["hyperparameters"]


@pytest.mark.rare
def test_memory_of_fifty_trials(tmp_path):
    flags = ["--model", "fc", "--width", "0.1", "--k", "0.1:0.9", "--epochs", "1", "--tuner", "random", "--nobaseline"]
    process = started(*flags, "--max_trials", "50", "--out", str(tmp_path / "s"))
    sizes = {}
    while process.poll() is None:
        ended = len(lines(tmp_path / "s")) if (tmp_path / "s" / "trials.jsonl").exists() else 0
        with open(f"/proc/{process.pid}/statm") as file:
            text = file.read().split()
        if ended and len(text) > 1:
            sizes[ended] = int(text[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
        time.sleep(0.2)
    process.stderr.close()
    assert process.returncode == 0
    trials = lines(tmp_path / "s")
    assert len(trials) == 50
    own = [sizes[number] for number in sorted(sizes) if number >= 5]
    assert max(own) - own[0] < 50, sizes  # MiB
    peaks = [record["peak_memory_mb"] for record in trials]
    renewed = [peaks[start : start + workers.TRIALS_PER_PROCESS] for start in range(0, 50, workers.TRIALS_PER_PROCESS)]
    assert max(max(part) for part in renewed) - max(renewed[0]) < 100, peaks
