"""The checkpoints of a run, and damage to its files."""

import json
import shutil

import pytest
from record_folders import CONFIG, after, history_of, make_older, make_run, same, small_model, summary_of, values_of

from keras_popup.records import DamagedError, RunFolder, run_folder


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(folder after three epochs, folder of a finished run, values of the model by epoch)."""
    path, model = tmp_path_factory.mktemp("runs"), small_model()
    values = {0: values_of(model), **{epoch: values_of(after(model, epoch)) for epoch in (1, 2, 3)}}
    make_run(path / "going", model, 3)
    make_run(path / "finished", model, 3, finished=True)
    return path / "going", path / "finished", values


@pytest.fixture
def going(made, tmp_path):
    return shutil.copytree(made[0], tmp_path / "going")


@pytest.fixture
def finished(made, tmp_path):
    return shutil.copytree(made[1], tmp_path / "finished")


def flip(path, at=-1000):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def loaded(folder):
    """(history, values of the model)."""
    model = after(small_model(), 9)
    history, seconds = RunFolder(folder).load_checkpoint(model)
    assert seconds == len(history)
    return history, values_of(model)


def resume(folder):
    """What `train` does with a folder before it trains."""
    folder.check(CONFIG, resume=True, overwrite=False)
    if folder.summary():
        folder.check_finished()
    else:
        folder.load_checkpoint(small_model())


def test_save_checkpoint_keeps_the_one_before(made):
    names = ["checkpoint-0002.weights.h5", "checkpoint-0003.weights.h5", "checkpoint-before.json", "checkpoint.json"]
    assert sorted(path.name for path in made[0].iterdir()) == [*names, "config.json", "history.csv"]
    history, values = loaded(made[0])
    assert history == history_of(3)
    assert same(values, made[2][3])
    assert [path.name for path in made[1].glob("check*")] == []


@pytest.mark.parametrize(
    ("name", "damage", "said"),
    [
        ("checkpoint-0003.weights.h5", flip, "is damaged: its checksum differs"),
        ("checkpoint-0003.weights.h5", lambda path: path.unlink(), "is missing"),
        ("checkpoint-0003.weights.h5", lambda path: path.write_bytes(b""), "is damaged: its checksum differs"),
        ("checkpoint.json", lambda path: flip(path, 80), "is damaged: its checksum differs, or it is of another run"),
        ("checkpoint.json", lambda path: path.write_text("{"), "is damaged: it is not JSON"),
        ("checkpoint.json", lambda path: path.unlink(), "is missing"),
    ],
)
def test_load_checkpoint_goes_back_by_one(made, going, name, damage, said, caplog):
    damage(going / name)
    history, values = loaded(going)
    assert history == history_of(2)
    assert same(values, made[2][2])
    (message,) = caplog.messages
    assert message.startswith(f"'{going / name}' {said}")
    assert message.endswith("The run goes on from the checkpoint before, of epoch 2.")
    # The epoch that was lost is saved again, and all is as without the damage.
    RunFolder(going).save_checkpoint(after(small_model(), 3), history_of(3), 3.0)
    history, values = loaded(going)
    assert history == history_of(3)
    assert same(values, made[2][3])
    flip(going / "checkpoint-0003.weights.h5")
    assert loaded(going)[0] == history_of(2)


def test_load_checkpoint_needs_one_that_is_undamaged(going):
    for epoch in (2, 3):
        flip(going / f"checkpoint-000{epoch}.weights.h5")
    files = {path: path.read_bytes() for path in going.iterdir()}
    message = r"0003.weights.h5' is damaged: its .* There is no undamaged checkpoint before it. Start .* --overwrite"
    with pytest.raises(DamagedError, match=message):
        loaded(going)
    assert files == {path: path.read_bytes() for path in going.iterdir()}


def test_load_checkpoint_says_that_a_run_begins_anew(going, caplog):
    for path in going.glob("checkpoint*"):
        path.unlink()
    assert loaded(going)[0] == []
    assert caplog.messages == [f"There is no checkpoint in '{going}': the run begins anew."]


def test_load_checkpoint_refuses_one_of_another_run(going, tmp_path):
    make_run(tmp_path / "other", small_model(), 3, config={**CONFIG, "seed": 7})
    for path in (tmp_path / "other").glob("checkpoint*"):
        shutil.copyfile(path, going / path.name)
    with pytest.raises(DamagedError, match="its checksum differs, or it is of another run"):
        loaded(going)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda text: text, None),
        (lambda text: text + "4,0.2,0.4\n", None),  # a kill between the history and the checkpoint
        (lambda text: text[:-7], "is damaged"),
        (lambda text: text + "4,0.2,0.4\n5,0.2,0.4\n", "is damaged"),
        (lambda text: "\0\1", "is damaged"),
        (lambda text: None, "is missing"),
    ],
)
def test_load_checkpoint_writes_the_history_again(going, damage, said, caplog):
    path = going / "history.csv"
    text = path.read_text()
    path.unlink() if (damaged := damage(text)) is None else path.write_text(damaged)
    loaded(going)
    assert path.read_text() == text
    assert len(caplog.messages) == bool(said)
    assert not said or f"history.csv' {said}" in caplog.text


@pytest.mark.parametrize("stop_at", range(8))
def test_save_checkpoint_may_be_killed_at_every_write(made, going, stop_at, monkeypatch, caplog):
    """At each moment the last checkpoint, or the new one, is whole."""
    calls = 0

    def stopping(function):
        def run(*arguments, **options):
            nonlocal calls
            if calls == stop_at:
                raise KeyboardInterrupt
            calls += 1
            function(*arguments, **options)

        return run

    model = after(small_model(), 4)
    with monkeypatch.context() as patched:
        patched.setattr("keras_popup._files.os.replace", stopping(run_folder.os.replace))
        patched.setattr("pathlib.Path.unlink", stopping(run_folder.Path.unlink))
        try:
            RunFolder(going).save_checkpoint(model, history_of(4), 4.0)
        except KeyboardInterrupt:
            assert stop_at < 5
        else:
            assert stop_at >= 5
    history, values = loaded(going)
    assert history in (history_of(3), history_of(4))
    assert same(values, made[2][3] if len(history) == 3 else values_of(model))
    assert not caplog.messages


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("summary.json", "{", r"summary.json' is damaged: it is not JSON .*--overwrite"),
        ("summary.json", "[]", "summary.json' is damaged: it is not a JSON object"),
        ("summary.json", '{"test": null}', "summary.json' is damaged: it has no checksum"),
        ("summary.json", {"test": {"accuracy": 1.0}}, "summary.json' is damaged: its checksum differs"),
        ("history.csv", None, "history.csv' is missing"),
        ("history.csv", "epoch,loss\n", "history.csv' is damaged: its checksum differs"),
        ("model.keras", "", "model.keras' is damaged: its checksum differs. Start again with --overwrite"),
        ("model.ticket", "", "model.ticket' is damaged: its checksum differs"),
        ("config.json", {"versions": 3}, "config.json' is damaged: its checksum differs"),
    ],
)
def test_run_folder_names_damage_of_a_finished_run(finished, name, content, message):
    path = finished / name
    if isinstance(content, dict):
        content = json.dumps({**json.loads(path.read_text()), **content})
    path.unlink() if content is None else path.write_text(content)
    folder = RunFolder(finished)
    with pytest.raises(DamagedError, match=message):
        resume(folder)
    RunFolder(finished).check(CONFIG, resume=False, overwrite=True)


def test_run_folder_of_a_finished_run_is_checked(finished):
    folder = RunFolder(finished)
    folder.check(CONFIG, resume=True, overwrite=False)
    folder.check_finished()
    assert folder.summary() == summary_of(3)
    assert folder.history() == history_of(3)
    assert run_folder.find_model(str(finished)) == str(folder.model)
    folder.model.unlink()  # to save space
    folder.check_finished()
    folder.model.write_bytes(b"another")
    with pytest.raises(DamagedError, match=r"model.keras' is damaged"):
        run_folder.find_model(str(finished))


@pytest.mark.parametrize("content", ['{"config": {}, "vers', "", "\0"])
def test_check_overwrites_nothing_whose_arguments_cannot_be_read(going, content):
    (going / "config.json").write_text(content)
    folder = RunFolder(going)
    assert folder.is_one()
    for options in ({"resume": True, "overwrite": False}, {"resume": False, "overwrite": True}):
        message = (
            r"config.json' is damaged: it is .* So nothing tells whether .* nothing was changed. Put the file right"
        )
        with pytest.raises(DamagedError, match=message):
            folder.check(CONFIG, **options)


OLD = {"epoch": 1, "seconds": 1, "history": [{"epoch": 1}]}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("checkpoint.json", {**OLD, "epoch": "1"}, "'epoch' is '1', where an integer is expected"),
        ("checkpoint.json", {**OLD, "epoch": 3}, "its history is not that of epochs 1 to 3"),
        ("checkpoint.json", {**OLD, "epoch": 0}, "epoch is 0, where an epoch from 1 on is expected"),
        ("checkpoint.json", {**OLD, "history": None}, "'history' is null, where a list is expected"),
        ("checkpoint.json", {"epoch": 1, "seconds": 1}, "it lacks 'history'"),
        ("checkpoint.json", {**OLD, "epoch": 1, "history": [{"epoch": 2}]}, "its history is not that of epochs 1 to 1"),
        ("config.json", {"config": [], "versions": {}}, "'config' is a list, where an object is expected"),
        ("config.json", {"config": {}, "versions": None}, "'versions' is null, where an object is expected"),
        ("summary.json", {"test": 3}, "it lacks 'train'"),
        ("summary.json", {**summary_of(3), "layers": [3]}, r"'layers\[0\]' is 3, where an object is expected"),
    ],
)
def test_run_folder_of_an_earlier_version_has_a_schema(going, name, content, message):
    make_older(going)
    (going / name).write_text(json.dumps(content))
    folder = RunFolder(going)
    with pytest.raises(DamagedError, match=f"{name}' is damaged: {message}.*--overwrite"):
        resume(folder)


def test_run_folder_of_an_earlier_version_goes_on(made, going, caplog):
    make_older(going)
    folder = RunFolder(going)
    folder.check(CONFIG, resume=True, overwrite=False)
    folder.start(CONFIG, {}, overwrite=False)
    said = f"An earlier version has begun the run in '{going}', without checksums: its files cannot be checked."
    assert caplog.messages == [said]
    history, values = loaded(going)
    assert history == history_of(3)
    assert same(values, made[2][3])
    model = after(small_model(), 4)
    folder.save_checkpoint(model, history_of(4), 4.0)
    flip(going / "checkpoint-0004.weights.h5")  # which this version has written
    assert loaded(going)[0] == history_of(3)


@pytest.mark.parametrize(
    "text", ["epoch,loss\n1,x\n", "epoch,loss\n1\n", "loss\n1\n", "epoch\n2\n", '"', "epoch\nnan\n"]
)
def test_history_is_numbers(going, text):
    (going / "history.csv").write_text(text)
    with pytest.raises(DamagedError, match=r"history.csv' is damaged: it is not a row of numbers for each epoch"):
        RunFolder(going).history()


@pytest.mark.parametrize(
    "name", ["checkpoint-0003.weights.h5", "checkpoint.json", "history.csv", "model.keras", ".lock"]
)
def test_check_names_a_folder_where_a_file_belongs(going, name):
    (going / name).unlink(missing_ok=True)
    (going / name).mkdir()
    with pytest.raises(DamagedError, match=f"{name}' is a folder, where a file is expected. Move it away"):
        RunFolder(going).check(CONFIG, resume=True, overwrite=False)


def test_locked_names_a_folder_in_its_place(going):
    (going / ".lock").mkdir()
    with pytest.raises(DamagedError, match=r".lock' is a folder, where a file is expected"), RunFolder(going).locked():
        pass
