"""Damage to tickets, packs, run folders and search folders: an error of this library, or the same result.

`make fuzz` has more cases than the slow tests. KERAS_POPUP_FUZZ is how many chunks of each kind there are, each a seed.
"""

import functools
import os
import random
import shutil
import signal
import stat

import numpy as np
import pytest
from based_tasks import X, network, randomize, task_of
from damage import damage, damage_folder
from hostile_tickets import edited, small_network, weights_of
from record_folders import (
    BUDGETED,
    CONFIG,
    SPACE,
    after,
    history_of,
    make_older,
    make_run,
    make_search,
    same,
    small_model,
    values_of,
)

import keras_popup
from keras_popup import TaskMasks, TicketError
from keras_popup.records import BaselineRecord, DamagedError, RunFolder, SearchFolder, StartedRecord, TrialRecord
from keras_popup.records.run_folder import find_model
from keras_popup.search.proposals import Proposals

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # Keras warns of much that is odd in a model

CHUNKS = range(int(os.environ.get("KERAS_POPUP_FUZZ", "5")))
_LACKING = ("started.jsonl lacks trial", "trials.jsonl lacks trials")
LIMIT = 60  # seconds, in which a case counts as hung


@pytest.fixture(autouse=True)
def _limited():
    def hang(*_):
        raise RuntimeError("it hangs")

    signal.signal(signal.SIGALRM, hang)
    yield
    signal.alarm(0)


def outcome(use):
    """(result, None) or (None, the error). An error of another kind than this library's goes on."""
    signal.alarm(LIMIT)
    try:
        return use(), None
    except (TicketError, DamagedError) as error:
        return None, str(error)
    except ValueError as error:
        if not any(text in str(error) for text in ("is not the folder of a", *_LACKING)):
            raise
        return None, str(error)
    finally:
        signal.alarm(0)


def check_error(error, path):
    """Checks that an error is one line that names the file and says what to do."""
    assert str(path) in error or error.startswith(_LACKING)
    assert error.endswith(".")
    assert "Errno" not in error
    assert error.isprintable(), ascii(error)


@functools.cache
def make_ticket(folder):
    """(bytes of a ticket, weights of its model)."""
    model = small_network()
    keras_popup.save_ticket(model, folder / "a.ticket")
    return (folder / "a.ticket").read_bytes(), weights_of(keras_popup.strip_masks(model))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return tmp_path_factory.mktemp("made")


@pytest.mark.parametrize("seed", CHUNKS)
def test_tickets(made, seed, tmp_path):
    content, weights = make_ticket(made)
    rng, path = random.Random(f"ticket {seed}"), tmp_path / "a.ticket"
    for number in range(50):
        path.write_bytes(changed := (damage, edited)[number % 5 == 0](content, rng))
        result, error = outcome(lambda: weights_of(keras_popup.load_ticket(path)))
        assert error or result == weights
        assert error or number % 5 == 0 or changed == content
        assert not error or str(path) in error


@functools.cache
def make_pack(folder):
    """(base, bytes of a pack, outputs of its tasks)."""
    base = randomize(network("classes", 10))
    tasks = TaskMasks(base)
    for name, arguments in {"birds": {}, "fish": {"k": 0.3, "seed": 2}}.items():
        keras_popup.save_ticket(task_of(base, **arguments), folder / "b.ticket", base=base)
        tasks.add(name, folder / "b.ticket")
    tasks.save(folder / "a.tickets", include_base=True)
    outputs = {name: tasks[name].predict_on_batch(X) for name in tasks}
    return base, (folder / "a.tickets").read_bytes(), outputs


@pytest.mark.parametrize("seed", CHUNKS)
def test_packs(made, seed, tmp_path):
    base, content, outputs = make_pack(made)
    rng, path = random.Random(f"pack {seed}"), tmp_path / "a.tickets"
    for _ in range(30):
        path.write_bytes(changed := damage(content, rng))
        tasks, error = outcome(lambda: TaskMasks.load(path, base))
        assert bool(error) == (changed != content)
        assert not error or str(path) in error
        for name in tasks or ():
            np.testing.assert_array_equal(tasks[name].predict_on_batch(X), outputs[name])


make_model = functools.cache(small_model)


def resume_run(path):
    """What `train` with `resume` does with a folder before it trains."""
    folder, model = RunFolder(path), after(make_model(), 9)
    folder.check(CONFIG, resume=True, overwrite=False)
    if summary := folder.summary():
        folder.check_finished()
        return summary, folder.history(), find_model(str(path)) and None
    with folder.locked():
        return *folder.load_checkpoint(model), values_of(model)


@functools.cache
def make_runs(folder):
    """(path of a run, the results that its damaged folder may have), of one that goes on and a finished one."""
    model = make_model()
    going, finished = (make_run(folder / name, model, 3, finished=name == "f").path for name in ("g", "f"))
    untouched = values_of(after(model, 9))
    results = [(history_of(n), float(n), values_of(after(model, n)) if n else untouched) for n in (0, 2, 3)]
    return (going, results), (finished, [resume_run(finished), results[0]])


def same_result(result, expected):
    *texts, values = result
    *others, others_values = expected
    return texts == others and (values is others_values is None or same(values, others_values))


@pytest.mark.parametrize("seed", CHUNKS)
def test_runs(made, seed, tmp_path, caplog):
    rng = random.Random(f"run {seed}")
    for number in range(70):
        path, expected = make_runs(made)[number % 2]
        folder = shutil.copytree(path, tmp_path / str(number))
        done = damage_folder(folder, rng)
        caplog.clear()
        result, error = outcome(lambda folder=folder: resume_run(folder))
        if error:
            check_error(error, folder)
        else:
            assert any(same_result(result, each) for each in expected), done
            assert same_result(result, expected[-1]) or caplog.messages or path.name == "f", done
        remove(folder)


def read_search(path):
    """What `search` with `resume` does with a folder before it trains, and what is read of its winner."""
    folder = SearchFolder(path)
    folder.check(BUDGETED.arguments(), resume=True, overwrite=False)
    with folder.locked():
        trials, started, baselines = (
            folder.records(kind, repair=True) for kind in (TrialRecord, StartedRecord, BaselineRecord)
        )
        Proposals(BUDGETED, SPACE).replay(started, trials)
    best = folder.best()
    for name in ("best.keras", "best.ticket"):
        folder.check_best(name)
    runs = []
    for trial in range(1, 4):
        run = RunFolder(folder.trial(trial) / "0")
        if run.is_one() and (summary := run.summary()):
            run.check_finished()
            runs.append((summary, run.history()))
    return trials, started, baselines, [best] if best else [], runs


@functools.cache
def make_searches(folder):
    """(path of a search, what is read of it)."""
    path = make_search(folder / "s", small_model()).path
    return path, read_search(path)


@pytest.mark.parametrize("seed", CHUNKS)
def test_searches(made, seed, tmp_path):
    path, expected = make_searches(made)
    rng = random.Random(f"search {seed}")
    for number in range(50):
        folder = shutil.copytree(path, tmp_path / str(number))
        done = damage_folder(folder, rng)
        result, error = outcome(lambda folder=folder: read_search(folder))
        if error:
            check_error(error, folder)
        else:
            # What is missing, as after a kill, is made again. All that is there is what was written.
            assert all(each in whole for part, whole in zip(result, expected, strict=True) for each in part), done
        remove(folder)


@pytest.mark.parametrize("seed", CHUNKS)
def test_folders_of_earlier_versions(made, seed, tmp_path):
    """Without checksums, other values cannot be found; other types and what cannot be read are errors."""
    rng = random.Random(f"older {seed}")
    for number in range(20):
        path = make_runs(made)[number % 2][0]
        folder = shutil.copytree(path, tmp_path / str(number))
        make_older(folder)
        damage_folder(folder, rng)
        try:
            _, error = outcome(lambda folder=folder: resume_run(folder))
        except ValueError as caught:
            error = str(caught)
            assert error.startswith("--resume needs the configuration")
        if error:
            assert str(folder) in error
            assert "Errno" not in error
        remove(folder)


def remove(folder):
    for path in folder.rglob("*"):
        path.chmod(path.stat().st_mode | stat.S_IRWXU)
    shutil.rmtree(folder)
