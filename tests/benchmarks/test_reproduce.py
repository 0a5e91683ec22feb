"""The reproduction: its table of runs, a row from beginning to end, and the page made of the results."""

import dataclasses
import json
import re
import sys
from concurrent import futures
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_popup import cli, training
from keras_popup._files import UNFINISHED
from keras_popup.training import RunConfig, read_arguments

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import reproduce  # noqa: E402
import results_page  # noqa: E402
import trained_masks  # noqa: E402
from reproduction import figures, rows, store, verdicts  # noqa: E402
from reproduction.results import Rates, Results, best_of  # noqa: E402
from reproduction.rows import GROUPS, Row  # noqa: E402
from reproduction.verdicts import Verdict  # noqa: E402

pytestmark = pytest.mark.integration

ROWS = {row.name: row for members in GROUPS.values() for row in members}
DIGITS = Row(RunConfig(model="fc", dataset="digits", epochs=2, width=0.1, mask_statistics="history"))


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(rows, "RUNS", tmp_path / "runs")
    return tmp_path


def test_row_of_a_name_is_one_run():
    runs = {}
    for members in GROUPS.values():
        for row in members:
            assert runs.setdefault(row.name, (row.config, row.data)) == (row.config, row.data)
            assert row.config.data_dir is None
    assert len(runs) == len({json.dumps([dataclasses.asdict(config), data]) for config, data in runs.values()})


def test_row_has_the_command_of_its_configuration(monkeypatch):
    taken = []
    monkeypatch.setattr(training, "train", lambda config, out, **_: taken.append(config) or sys.exit(0))
    for row in list(ROWS.values())[::7] + GROUPS["imagenet"]:
        with pytest.raises(SystemExit):
            cli.main(row.command({}))
        assert taken[-1] == row.config


def test_matching_by_group_or_name():
    assert list(rows.matching(["k-curve"])) == GROUPS["k-curve"]
    everything = {row.name for row in rows.matching([])}
    assert everything == set(ROWS) - {row.name for row in GROUPS["imagenet"]}
    (one,) = rows.matching([DIGITS.name.replace("digits", "cifar10"), GROUPS["float32"][0].name])
    assert one == GROUPS["float32"][0]


@pytest.mark.rare
def test_run_of_a_row_leaves_a_line_that_names_no_place(elsewhere, monkeypatch, capfd):
    monkeypatch.setitem(GROUPS, "mine", [DIGITS])
    monkeypatch.setattr(sys, "argv", ["reproduce.py", "--only", "mine"])
    reproduce.main()
    file = store.RESULTS / "mine.jsonl"
    found = store.read(file)[DIGITS.name]
    assert found["test"]["accuracy"] > 0.1
    assert "data_dir" not in found["config"]
    assert str(elsewhere) not in file.read_text()
    assert {len(curve) for curve in found["history"].values()} == {2}
    assert {"val_accuracy", "dense1/changed"} <= set(found["history"])
    before = file.stat().st_mtime_ns
    reproduce.main()
    assert file.stat().st_mtime_ns == before
    assert "1 of 1 rows are done" in capfd.readouterr().out
    monkeypatch.setattr(sys, "argv", ["reproduce.py", "--only", "mine", "--again"])
    model = DIGITS.folder / "model.keras"
    trained = model.stat().st_mtime_ns
    reproduce.main()
    assert file.stat().st_mtime_ns > before
    assert model.stat().st_mtime_ns > trained
    found.pop("seconds"), found.pop("images_per_second"), found.pop("times")
    assert found.items() <= store.read(file)[DIGITS.name].items()


@pytest.mark.rare
def test_run_that_diverges_is_a_result_and_one_that_fails_is_not(elsewhere, monkeypatch, capfd):
    wild = Row(dataclasses.replace(DIGITS.config, method="dense", mask_statistics=None, learning_rate=1e6))
    unreadable = Row(RunConfig(model="fc", dataset="nothing", epochs=1))
    monkeypatch.setitem(GROUPS, "mine", [unreadable, wild])
    monkeypatch.setattr(sys, "argv", ["reproduce.py", "--only", "mine"])
    with pytest.raises(SystemExit, match="did not finish: nothing"):
        reproduce.main()
    results = Results(store.read_all())
    assert set(results.records) == {wild.name}
    assert results.records[wild.name]["diverged"]
    assert results.record(wild) is None
    assert "The loss became" in capfd.readouterr().err


def test_page_says_why_a_row_has_no_accuracy():
    ended, missing = ROWS[rows.fashion().name], ROWS[rows.fashion(k=0.1).name]
    results = Results({ended.name: {"diverged": True}})
    tables = results_page.environment(results).get_template("results_tables.md").module
    lines = tables.runs([ended, missing]).splitlines()
    assert "| diverged |" in lines[2]
    assert "| not run |" in lines[3]
    rates = Rates(results, "fc", "edge-popup", {0.1: missing, 0.5: ended})
    assert "| 0.1: not run, 0.5: diverged | not chosen yet |" in tables.rates({"edge-popup": rates})


def test_page_marks_the_best_rate_and_says_what_is_odd():
    tried = {rate: rows.fashion(learning_rate=rate) for rate in (0.1, 0.5, 1.0)}
    records = {row.name: {"validation": {"accuracy": rate / 2}} for rate, row in tried.items()}
    results = Results(records)
    tables = results_page.environment(results).get_template("results_tables.md").module
    text = tables.rates({"edge-popup": Rates(results, "fc", "edge-popup", tried)})
    assert "0.5: 25.00, 1: **50.00** | 0.5, which is not the best; the best is at the end of those tried |" in text


def test_put_sorts_and_replaces_lines(tmp_path):
    for name, value in (("b", 1), ("a", 2), ("b", 3)):
        store.put(tmp_path / "new" / "group.jsonl", {"name": name, "value": value})
    lines = (tmp_path / "new" / "group.jsonl").read_text().splitlines()
    assert lines == ['{"name": "a", "value": 2}', '{"name": "b", "value": 3}']
    store.put(tmp_path / "new" / "other.jsonl", {"name": "c"})
    (tmp_path / "new" / f"{UNFINISHED}1-group.jsonl").write_text("half a li")
    assert set(store.read_all(tmp_path / "new")) == {"a", "b", "c"}


def test_put_loses_no_line_when_several_store_at_once(tmp_path):
    file = tmp_path / "group.jsonl"
    with futures.ThreadPoolExecutor(8) as several:
        list(several.map(lambda number: store.put(file, {"name": f"{number:02d}"}), range(40)))
    assert list(store.read(file)) == [f"{number:02d}" for number in range(40)]


def test_results_are_of_the_rows_they_are_named_after():
    for file in store.RESULTS.glob("*.jsonl"):
        for name, record in store.read(file).items():
            assert rows.group_of(ROWS[name]) == file.stem
            expected = dataclasses.asdict(ROWS[name].config.with_protocol())
            assert read_arguments(record["config"]) | {"data_dir": None} == expected, name


def test_results_on_one_dataset_are_of_the_same_images():
    sources = {}
    for name, record in store.read_all().items():
        sources.setdefault(ROWS[name].data or ROWS[name].config.dataset, set()).add(record["source"])
    assert all(len(each) == 1 for each in sources.values()), sources
    assert sources["cifar10"] != sources["cifar10-original"]


def test_places_are_all_that_is_added_to_a_row(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["reproduce.py", "--only", "k-curve", "--", "--epochs=1"])
    with pytest.raises(SystemExit):
        reproduce.main()
    assert "only --strategy and --devices=..." in capsys.readouterr().err


def test_page_is_that_of_the_results():
    made = results_page.page(results_page.stored())
    assert (BENCHMARKS.parent / "docs/results.md").read_text() == made, "run python benchmarks/results_page.py"


def test_draw_all_makes_the_pictures_of_the_page(tmp_path):
    figures.draw_all(results_page.stored(), tmp_path)
    shown = set(re.findall(r"\(img/results/(.*?)\)", (BENCHMARKS.parent / "docs/results.md").read_text()))
    assert {path.name for path in tmp_path.iterdir()} == shown


def test_page_without_results():
    made = results_page.page(Results({}))
    assert "None of these rows was run." in made
    assert "| yes |" not in made
    assert "**no**" not in made


@pytest.mark.parametrize(
    ("first", "second", "margin", "expected"),
    [
        ([88.4, 88.5, 88.6], [87.1, 87.2, 87.3], 0, Verdict.YES),
        ([87.1, 87.2, 87.3], [88.4, 88.5, 88.6], 0, Verdict.NO),
        ([87.1, 87.2, 87.3], [88.4, 88.5, 88.6], 2, Verdict.YES),
        ([88.0, 88.5, 89.0], [87.9, 88.4, 88.9], 0, Verdict.NOT_TOLD_APART),
        ([88.4, 88.5, 88.6], [], 0, Verdict.NO_RESULT),
        ([77.9], [77.0], 0, Verdict.NOT_TOLD_APART),
        ([77.9], [76.8], 0, Verdict.YES),
        ([76.8], [77.9], 0, Verdict.NO),
    ],
)
def test_better(first, second, margin, expected):
    assert verdicts.better(first, second, margin) is expected


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        ([74.0], Verdict.YES),
        ([70.5], Verdict.NO),
        ([72.5], Verdict.NOT_TOLD_APART),
        ([], Verdict.NO_RESULT),
    ],
)
def test_rises(last, expected):
    assert verdicts.rises([[70.0], [72.0], last]) is expected


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([([70.0], [75.0]), ([72.0], [74.0])], Verdict.YES),
        ([([72.0], [74.0]), ([70.0], [75.0])], Verdict.NO),
        ([([70.0], [73.0]), ([72.0], [74.0])], Verdict.NOT_TOLD_APART),  # of four single runs
        ([([70.0], [73.0]), ([], [])], Verdict.NO_RESULT),
        ([([70.0], [73.0]), ([76.0], [74.0])], Verdict.NOT_TOLD_APART),  # masks are better
    ],
)
def test_closes(pairs, expected):
    assert verdicts.closes(pairs) is expected


def test_worst_of_several_verdicts():
    assert verdicts.worst([Verdict.YES, Verdict.NOT_TOLD_APART, Verdict.YES]) is Verdict.NOT_TOLD_APART
    assert verdicts.worst([Verdict.YES, Verdict.NO, Verdict.NOT_TOLD_APART]) is Verdict.NO
    assert verdicts.worst([Verdict.NO_RESULT, Verdict.NO]) is Verdict.NO_RESULT
    assert set(results_page.WORDS) == set(Verdict)


def test_best_of_several_needs_all():
    assert best_of([[1.0, 3.0], [2.5, 2.5]]) == [2.5, 2.5]
    assert best_of([[1.0], []]) == []


def test_results_choose_one_of_several_runs_by_validation():
    accuracies = {0.1: (0.72, 0.70), 0.5: (0.71, 0.73), 0.01: (0.74, 0.75), 0.03: (0.76, 0.74)}
    records = {}
    for row in GROUPS["conv2-30"]:
        validation, test = accuracies.get(row.config.learning_rate, (0.6, 0.6))
        tested = {key: {"accuracy": test} for key in ("test", "test_draws")}
        records[row.name] = {"validation": {"accuracy": validation}, **tested}
    expected = [pytest.approx(70)], [pytest.approx(60)], [pytest.approx(74)]
    assert Results(records).at_30_epochs("conv2") == expected
    records.popitem()
    assert Results(records).at_30_epochs("conv2") == ([], [], [])


def test_initial_network_has_the_weights_before_training(tmp_path):
    """What trained_masks.py takes for the weights that a run began with."""
    config = dataclasses.replace(DIGITS.config, method="dense", mask_statistics=None, learning_rate=0.0, epochs=1)
    training.train(config, tmp_path / "run")
    initial, _ = trained_masks.initial_network(config)
    final = keras.models.load_model(tmp_path / "run" / "model.keras")
    assert all(map(np.array_equal, initial.get_weights(), final.get_weights()))


@pytest.mark.rare
@pytest.mark.parametrize("row", GROUPS["imagenet"], ids=lambda row: row.name)
def test_rows_of_imagenet_start_train_and_resume(row, tmp_path):
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
