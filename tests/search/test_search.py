"""Searches as a whole: records, budgets, failures, interrupts, kills."""

import csv
import json
import os
import random
import signal
import time

import keras
import numpy as np
import pytest
from searches import LONG, RUN, SMALL, alive, by_number, gone, lines, started
from shared import make_once
from sklearn.datasets import load_digits

import keras_popup
from keras_popup import cli, records, search, training
from keras_popup.search import Range, SearchConfig
from keras_popup.training import RunConfig


@pytest.mark.integration
def test_search_records_every_trial(failing):
    folder, _ = failing
    trials = lines(folder)
    assert [record["trial"] for record in trials] == [1, 2, 3]
    assert [record["hyperparameters"]["learning_rate"] for record in trials] == [0.5, 1e6, 1.0]
    for record in trials:
        if record["hyperparameters"]["learning_rate"] == 1e6:
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


def test_search_finds_the_better_of_two(tmp_path):
    run = RunConfig(model="fc", width=0.2, epochs=2, seed=0)
    config = SearchConfig(run=run, space={"learning_rate": (1e-6, 0.5)}, tuner="grid", baseline=False)
    best = search.search(config, tmp_path / "s")
    assert best.hyperparameters == {"learning_rate": 0.5}
    trials = lines(tmp_path / "s")
    assert [record["status"] for record in trials] == ["completed"] * 2
    assert best.score == max(record["score"] for record in trials)
    assert (tmp_path / "s" / "best.ticket").stat().st_size == best.best_execution.ticket_bytes
    assert best.test is None


@pytest.mark.integration
def test_search_chooses_by_validation_and_tests_once(failing):
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


@pytest.mark.integration
def test_search_that_is_finished_is_not_run_again(failing, capsys, caplog):
    folder, flags = failing
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    views = {"trials.csv", "best.json", "best.keras", "best.ticket", "report.html", ".lock"}
    assert cli.main(["search", *flags, "--resume"]) == 0
    assert "test accuracy" in capsys.readouterr().out
    assert " epochs." in caplog.text
    assert "log.txt" not in caplog.text, "no further trial writes a log"
    changed = {path.name for path, when in before.items() if path.stat().st_mtime_ns != when}
    assert changed <= views


@pytest.mark.integration
def test_search_refuses_a_folder_that_is_not_its_own(failing, tmp_path, capsys):
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


@pytest.mark.integration
def test_search_keeps_every_ticket_in_the_budget(budgeted):
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


@pytest.mark.integration
def test_search_that_cannot_be_leaves_nothing_behind(capsys, tmp_path):
    for flags, message in [
        (("--width", "0.001,1"), "width=0.001 leaves no channel of 300"),
        (("--width", "0.1,0.2", "--tuner", "hyperband", "--epochs", "9"), "needs at least twice as many"),
        (("--k", "0.1:0.9", "--dataset", "none", "--data_dir", str(tmp_path / "none")), "none"),
        (("--k", "0.1:0.9", "--workers", "0"), "`workers` must be 1 or more"),
        (("--k", "0.1:0.9", "--gpus_per_worker", "1"), "For one worker see `devices`"),
        (("--k", "0.1:0.9", "--workers", "2", "--gpus_per_worker", "1.5"), "must be a whole number"),
        (("--k", "0.1:0.9", "--ray_address", "127.0.0.1:9"), "There is no Ray at 127.0.0.1:9"),
    ]:
        status = 2 if "--data_dir" in flags else 1  # what is seen without reading anything is a wrong argument
        assert cli.main(["search", "--model", "fc", *flags, "--out", str(tmp_path / "s")]) == status
        assert message in capsys.readouterr().err
        assert not list(tmp_path.iterdir())


@pytest.mark.integration
def test_search_of_masks_over_a_base_counts_its_relative_tickets(tmp_path):
    base = tmp_path / "base"
    training.train(RunConfig(model="fc", width=0.2, epochs=1, method="dense"), base)
    run = RunConfig(model="base", base=str(base), new_head=True, epochs=1)
    config = SearchConfig(run=run, space={"learning_rate": (1e-3, 1e-2)}, tuner="grid", budget=4000, baseline=True)
    search.search(config, tmp_path / "s")
    trials = lines(tmp_path / "s")
    assert len(trials) == 4
    for record in trials:
        (execution,) = record["executions"]
        assert execution["ticket_bytes"] <= execution["predicted_bytes"] <= 4000
        assert execution["predicted_bytes"] >= 4000 - 3 or execution["k"] == 0.5
    learned = keras.models.load_model(base / "model.keras")
    plain = keras_popup.load_ticket(tmp_path / "s" / "best.ticket", base=learned)
    model = keras.models.load_model(tmp_path / "s" / "best.keras")
    images = load_digits().images.astype("float32")[..., None]
    assert np.array_equal(plain(images), model(images))


@pytest.mark.rare
def test_search_counts_moving_averages_in_the_budget(tmp_path):
    run = RunConfig(model="resnet18", width=0.05, epochs=1, learning_rate=0.5, batch_size=256)
    folder = tmp_path / "s"
    config = SearchConfig(run=run, space={"k": Range(0.001, 0.49)}, tuner="grid", budget=8500, baseline=False)
    search.search(config, folder)
    (record,) = lines(folder)
    (execution,) = record["executions"]
    assert (folder / "best.ticket").stat().st_size == execution["ticket_bytes"] <= execution["predicted_bytes"] <= 8500


@pytest.mark.integration
@pytest.mark.rare
def test_search_of_supermasks(tmp_path):
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


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    def make(folder):
        assert cli.main(["search", *LONG, "--out", str(folder)]) == 0

    return make_once(tmp_path_factory, "undisturbed-search", make)


@pytest.mark.integration
@pytest.mark.slow
@pytest.mark.parametrize("how", [pytest.param(signal.SIGINT, marks=pytest.mark.rare), signal.SIGTERM])
def test_search_stopped_by_a_signal_goes_on(how, undisturbed, tmp_path):
    folder = tmp_path / "s"
    process = started(*LONG, "--out", str(folder))
    sign = alive(folder, epochs=3)
    process.send_signal(how)
    assert process.wait(60) == 128 + how
    assert "The same command with --resume goes on" in process.stderr.read()
    process.stderr.close()
    assert gone(sign["pid"])
    assert cli.main(["search", *LONG, "--out", str(folder), "--resume"]) == 0
    assert by_number(lines(folder)) == by_number(lines(undisturbed))
    assert "Going on after epoch" in (folder / "trials" / "0001" / "log.txt").read_text()


@pytest.mark.integration
@pytest.mark.rare
def test_search_goes_on_when_the_process_of_a_trial_is_killed(undisturbed, tmp_path):
    folder = tmp_path / "s"
    process = started(*LONG, "--out", str(folder))
    os.kill(alive(folder, epochs=3)["pid"], signal.SIGKILL)
    _, said = process.communicate(timeout=200)
    assert process.returncode == 0
    assert "Trial 1 goes on after its last epoch. Its process died: SIGKILL" in said
    assert by_number(lines(folder)) == by_number(lines(undisturbed))
    assert lines(folder)[0]["retries"] == 1


@pytest.mark.integration
@pytest.mark.rare
def test_search_killed_at_random_moments_goes_on(undisturbed, tmp_path):
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


@pytest.mark.integration
@pytest.mark.parametrize(  # the others are in the quick tests
    "tuner", [pytest.param("bayesian", marks=pytest.mark.rare), pytest.param("hyperband", marks=pytest.mark.rare)]
)
def test_search_by_every_tuner(tuner, tmp_path):
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
