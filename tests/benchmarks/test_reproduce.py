"""The reproduction: its table of runs, a row from beginning to end, and the page made of the results."""

import dataclasses
import json
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_popup import cli, training
from keras_popup.training import RunConfig, defaults

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import reproduce  # noqa: E402
import results_page  # noqa: E402
import trained_masks  # noqa: E402

ROWS = {row.name: row for rows in reproduce.GROUPS.values() for row in rows}
DIGITS = reproduce.Row(RunConfig(model="fc", dataset="digits", epochs=2, width=0.1, mask_statistics="history"))


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(reproduce, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(reproduce, "RUNS", tmp_path / "runs")
    return tmp_path


def test_a_name_is_one_run():
    runs = {}
    for rows in reproduce.GROUPS.values():
        for row in rows:
            assert runs.setdefault(row.name, (row.config, row.data)) == (row.config, row.data)
            assert row.config.data_dir is None
    assert len(runs) == len({json.dumps([dataclasses.asdict(config), data]) for config, data in runs.values()})


def test_commands_say_the_same_as_the_table(monkeypatch):
    taken = []
    monkeypatch.setattr(training, "train", lambda config, out, **_: taken.append(config) or sys.exit(0))
    for row in list(ROWS.values())[::7] + reproduce.GROUPS["imagenet"]:
        with pytest.raises(SystemExit):
            cli.main(row.command({}))
        assert taken[-1] == row.config


def test_rows_are_chosen_by_group_or_name():
    assert list(reproduce.rows(["k-curve"])) == reproduce.GROUPS["k-curve"]
    everything = {row.name for row in reproduce.rows([])}
    assert everything == set(ROWS) - {row.name for row in reproduce.GROUPS["imagenet"]}
    (one,) = reproduce.rows([DIGITS.name.replace("digits", "cifar10"), reproduce.GROUPS["float32"][0].name])
    assert one == reproduce.GROUPS["float32"][0]


@pytest.mark.slow
def test_a_row_leaves_a_file_that_names_no_place(elsewhere, monkeypatch, capfd):
    monkeypatch.setitem(reproduce.GROUPS, "mine", [DIGITS])
    monkeypatch.setattr(sys, "argv", ["reproduce.py", "--only", "mine"])
    reproduce.main()
    found = json.loads(DIGITS.result.read_text())
    assert found["test"]["accuracy"] > 0.1
    assert "data_dir" not in found["config"]
    assert str(elsewhere) not in DIGITS.result.read_text()
    assert [epoch["epoch"] for epoch in found["history"]] == [1, 2]
    assert "dense1/changed" in found["history"][0]
    before = DIGITS.result.stat().st_mtime_ns
    reproduce.main()
    assert DIGITS.result.stat().st_mtime_ns == before
    assert "1 of 1 rows are done" in capfd.readouterr().out
    monkeypatch.setattr(sys, "argv", ["reproduce.py", "--only", "mine", "--again"])
    model = DIGITS.folder / "model.keras"
    trained = model.stat().st_mtime_ns
    reproduce.main()
    assert DIGITS.result.stat().st_mtime_ns > before
    assert model.stat().st_mtime_ns > trained
    found.pop("seconds"), found.pop("images_per_second")
    assert found.items() <= json.loads(DIGITS.result.read_text()).items()


@pytest.mark.slow
def test_a_row_that_diverges_is_a_result_and_one_that_fails_is_not(elsewhere, monkeypatch, capfd):
    wild = reproduce.Row(dataclasses.replace(DIGITS.config, method="dense", mask_statistics=None, learning_rate=1e30))
    unreadable = reproduce.Row(RunConfig(model="fc", dataset="nothing", epochs=1))
    monkeypatch.setitem(reproduce.GROUPS, "mine", [unreadable, wild])
    monkeypatch.setattr(sys, "argv", ["reproduce.py", "--only", "mine"])
    with pytest.raises(SystemExit, match="not finished: nothing"):
        reproduce.main()
    assert json.loads(wild.result.read_text())["diverged"]
    assert not unreadable.result.exists()
    assert "The loss became" in capfd.readouterr().err
    assert "| diverged |" in results_page.plain([wild])
    assert "1e+30: diverged" in results_page.rates("fc", {"learned weights": (1e30,)}, lambda *_, **__: wild)


def test_results_are_of_the_rows_they_are_named_after():
    for row in ROWS.values():
        if row.result.exists():
            expected = dataclasses.asdict(row.config.with_protocol())
            found = json.loads(row.result.read_text())["config"]
            assert defaults() | found | {"data_dir": None} == expected, row.name


def test_results_on_one_dataset_are_of_the_same_images():
    sources = {}
    for row in ROWS.values():
        if row.result.exists():
            source = json.loads(row.result.read_text())["source"]
            sources.setdefault(row.data or row.config.dataset, set()).add(source)
    assert all(len(each) == 1 for each in sources.values()), sources
    assert sources["cifar10"] != sources["cifar10-original"]


def test_only_places_are_added_to_a_row(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["reproduce.py", "--only", "k-curve", "--", "--epochs=1"])
    with pytest.raises(SystemExit):
        reproduce.main()
    assert "only --strategy and --devices=..." in capsys.readouterr().err


def test_the_page_is_that_of_the_results(tmp_path):
    made = results_page.page(tmp_path)
    assert (BENCHMARKS.parent / "docs/results.md").read_text() == made, "run python benchmarks/results_page.py"
    assert {path.name for path in tmp_path.iterdir()} <= {"k.png", "widths.png", "mask-change.png", "criteria.png"}


@pytest.mark.parametrize(
    ("first", "second", "margin", "expected"),
    [
        ([88.4, 88.5, 88.6], [87.1, 87.2, 87.3], 0, "yes"),
        ([87.1, 87.2, 87.3], [88.4, 88.5, 88.6], 0, "**no**"),
        ([87.1, 87.2, 87.3], [88.4, 88.5, 88.6], 2, "yes"),
        ([88.0, 88.5, 89.0], [87.9, 88.4, 88.9], 0, "not told apart"),
        ([88.4, 88.5, 88.6], [], 0, "no result"),
        ([77.9], [77.0], 0, "not told apart"),
        ([77.9], [76.8], 0, "yes"),
        ([76.8], [77.9], 0, "**no**"),
    ],
)
def test_verdicts(first, second, margin, expected):
    assert results_page.verdict(first, second, margin) == expected


def test_verdicts_on_several():
    assert results_page.rises([[70.0], [72.0], [74.0]]) == "yes"
    assert results_page.rises([[70.0], [72.0], [70.5]]) == "**no**"
    assert results_page.rises([[70.0], [72.0], [72.5]]) == "not told apart"
    assert results_page.rises([[70.0], [72.0], []]) == "no result"
    assert results_page.closes([([70.0], [75.0]), ([72.0], [74.0])]) == "yes"
    assert results_page.closes([([72.0], [74.0]), ([70.0], [75.0])]) == "**no**"
    assert results_page.closes([([70.0], [73.0]), ([72.0], [74.0])]) == "not told apart"  # of four single runs
    assert results_page.closes([([70.0], [73.0]), ([], [])]) == "no result"
    assert results_page.closes([([70.0], [73.0]), ([76.0], [74.0])]) == "not told apart"  # masks are ahead
    assert results_page.worst(["yes", "not told apart", "yes"]) == "not told apart"
    assert results_page.worst(["yes", "**no**", "not told apart"]) == "**no**"
    assert results_page.best_of([[1.0, 3.0], [2.5, 2.5]]) == [2.5, 2.5]
    assert results_page.best_of([[1.0], []]) == []


def test_of_several_runs_one_is_chosen_by_validation(monkeypatch):
    accuracies = {0.1: (0.72, 0.70), 0.5: (0.71, 0.73), 0.01: (0.74, 0.75), 0.03: (0.76, 0.74)}

    def record(row):
        validation, test = accuracies.get(row.config.learning_rate, (0.6, 0.6))
        return {"validation": {"accuracy": validation}, **{key: {"accuracy": test} for key in ("test", "test_draws")}}

    monkeypatch.setattr(results_page, "record", record)
    monkeypatch.setattr(reproduce.Row, "result", Path(__file__))  # of each there is one
    assert results_page.at_30_epochs("conv2") == ([pytest.approx(70)], [pytest.approx(60)], [pytest.approx(74)])


def test_weights_before_training_are_found_again(tmp_path):
    """What trained_masks.py takes for the weights that a run began with."""
    config = dataclasses.replace(DIGITS.config, method="dense", mask_statistics=None, learning_rate=0.0, epochs=1)
    training.train(config, tmp_path / "run")
    initial, _ = trained_masks.initial_network(config)
    final = keras.models.load_model(tmp_path / "run" / "model.keras")
    assert all(map(np.array_equal, initial.get_weights(), final.get_weights()))


@pytest.mark.rare
@pytest.mark.parametrize("row", reproduce.GROUPS["imagenet"], ids=lambda row: row.name)
def test_imagenet_rows_start_train_and_resume(row, tmp_path):
    """Whole networks on a few images of 224x224, read from files: five steps, a checkpoint, and five more."""
    rng = np.random.default_rng(1)
    for split, count in (("train", 5), ("val", 2)):
        for name in ("cat", "dog"):
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                image = rng.integers(0, 256, (240 + number, 260, 3), np.uint8)
                (folder / f"{number}.jpg").write_bytes(tf.io.encode_jpeg(image).numpy())
    config = dataclasses.replace(
        row.config, data_dir=str(tmp_path / "images"), batch_size=2, epochs=2, warmup_epochs=1.0
    )
    training.train(config, tmp_path / "run", until=1)
    assert len(list((tmp_path / "run").glob("checkpoint-0001.weights.h5"))) == 1
    summary = training.train(config, tmp_path / "run", resume=True)
    assert summary["epochs"] == 2
    assert summary["data"]["image_shape"] == (224, 224, 3)
    assert np.isfinite(summary["train"]["loss"])
    assert summary["kept"] == pytest.approx(0.3 * summary["weights"], rel=1e-4)
