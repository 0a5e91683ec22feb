"""Packs: what is saved comes back, and no damaged or forged pack is taken."""

import json
import random
import signal
import zlib
from pathlib import Path

import keras
import numpy as np
import pytest
from based_tasks import X, network, randomize, task_of
from damage import damage, edit
from hostile_tickets import HEADER, sealed

import keras_popup
from keras_popup import TaskMasks, TicketError
from keras_popup._files import is_pack

MAGIC = b"\x89KPP\r\n\x1a\n"


@pytest.fixture(scope="module")
def base():
    return randomize(network("classes", 10))


@pytest.fixture(scope="module")
def packed(base, tmp_path_factory):
    """(bytes of a pack without its base, bytes of one with it, the outputs by task)."""
    folder, tasks = tmp_path_factory.mktemp("pack"), TaskMasks(base)
    for name, arguments in {"birds": {}, "fish": {"k": 0.3, "seed": 2}}.items():
        keras.backend.clear_session()
        keras_popup.save_ticket(task_of(base, **arguments), folder / "a.ticket", base=base)
        tasks.add(name, folder / "a.ticket")
    assert tasks.save(folder / "a.tickets") == (folder / "a.tickets").stat().st_size
    tasks.save(folder / "b.tickets", include_base=True)
    contents = [(folder / name).read_bytes() for name in ("a.tickets", "b.tickets")]
    return (*contents, {name: tasks[name].predict(X, verbose=0) for name in tasks})


def load(path, content, base=None, **arguments):
    path.write_bytes(content)
    return TaskMasks.load(path, base, **arguments)


def changed(content, change):
    """A pack with another manifest, sealed again."""
    *_, packed_size, _ = HEADER.unpack(content[: HEADER.size])
    manifest = json.loads(zlib.decompress(content[HEADER.size : HEADER.size + packed_size], -15))
    sections = content[HEADER.size + packed_size : -32]
    result = change(manifest, sections)
    return sealed(manifest, sections if result is None else result, magic=MAGIC)


def test_packs_come_back(base, packed, tmp_path):
    without, with_base, answers = packed
    assert len(without) + 50_000 < len(with_base)
    base.save(tmp_path / "base.keras")
    for content, given in ((without, base), (without, tmp_path / "base.keras"), (with_base, None), (with_base, base)):
        tasks = load(tmp_path / "a.tickets", content, given, max_in_use=1)
        assert list(tasks) == list(answers)
        for name, expected in answers.items():
            np.testing.assert_array_equal(tasks[name].predict(X, verbose=0), expected)
        for include, expected in ((False, without), (True, with_base)):
            tasks.save(tmp_path / "again.tickets", include_base=include)
            if given is base or not include:
                assert (tmp_path / "again.tickets").read_bytes() == expected  # packs of packs do not drift


def test_packs_and_tickets_are_told_apart(base, packed, tmp_path):
    keras_popup.save_ticket(task_of(base), tmp_path / "a.ticket", base=base)
    with pytest.raises(TicketError, match=r"Pack '.*' cannot be used: not a pack of tickets"):
        TaskMasks.load(tmp_path / "a.ticket", base)
    (tmp_path / "a.tickets").write_bytes(packed[0])
    assert is_pack(tmp_path / "a.tickets")
    assert not is_pack(tmp_path / "a.ticket")
    with pytest.raises(TicketError, match="it is a pack of several tickets"):
        keras_popup.load_ticket(tmp_path / "a.tickets", base=base)


def test_pack_refuses_another_base(base, packed, tmp_path):
    without, with_base, _ = packed
    with pytest.raises(TicketError, match="it does not hold its base, 'base'. Pass that model as `base`"):
        load(tmp_path / "a.tickets", without)
    other = randomize(network("classes", 10), seed=8)
    for content in (without, with_base):
        with pytest.raises(TicketError, match="task 'birds': the base 'base' is not the one.*kernel of layer 'conv'"):
            load(tmp_path / "a.tickets", content, other)


def test_a_pack_that_cannot_be_written_leaves_the_old_one(base, tmp_path):
    tasks = TaskMasks(base)
    with pytest.raises(FileNotFoundError, match="must be a file in a folder that exists"):
        tasks.save(tmp_path / "nowhere" / "a.tickets")
    tasks.save(tmp_path / "a.tickets")  # a pack of no tasks is one
    assert len(TaskMasks.load(tmp_path / "a.tickets", base)) == 0
    assert [file.name for file in tmp_path.iterdir()] == ["a.tickets"]


def two_of_one_name(manifest, sections):
    manifest["tasks"][1]["name"] = "birds"


def another_k(manifest, sections):
    manifest["tasks"][1]["k"][0] = 0.4


def other_inputs(manifest, sections):
    manifest["tasks"][1]["inputs"][0][0][1] = 16


def cut_ticket(manifest, sections):
    manifest["tasks"][1]["bytes"] -= 9


def long_ticket(manifest, sections):
    manifest["tasks"][1]["bytes"] += 9


def more_after(manifest, sections):
    return sections + b"more"


def exchanged(manifest, sections):
    manifest["tasks"].reverse()


def base_as_task(manifest, sections):
    """The base, which has no masks, where a task should be."""
    manifest["tasks"].insert(0, {"name": "base", **manifest["base"], "inputs": None, "k": []})
    manifest["base"] = {"name": "base", "bytes": 0}
    manifest["tasks"][0]["name"] = "base"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (two_of_one_name, "it has two tasks named 'birds'"),
        (another_k, r"task 'fish' has k = \[0.3, .*but the list of tasks says \[0.4"),
        (other_inputs, "task 'fish': its inputs are .*8, 8, 3.*but the list of tasks says .*16, 8, 3"),
        (cut_ticket, "task 'fish': it is .*cut off"),
        (long_ticket, "task 'fish' would end at byte"),
        (more_after, "its tickets end at byte"),
        (exchanged, "task 'fish'"),
        (base_as_task, "task 'base': it has no masks"),
        (lambda m, s: m.update(tasks=3), "its manifest has no valid `tasks`"),
        (lambda m, s: m["tasks"].insert(0, 3), "entry 0 of its tasks is not a JSON object"),
        (lambda m, s: m["tasks"][0].update(name=""), "task '': The name of a task must be a text"),
        (
            lambda m, s: m["tasks"][0].update(name="a" * 999),
            "task 'aaa.*must be a text of at most 200",
        ),
        (lambda m, s: m["tasks"][0].update(name="a\x1b"), "entry 0 of its tasks has no valid `name`"),
        (lambda m, s: m["tasks"][0].update(bytes=-1), "task 'birds' would end"),
        (lambda m, s: m.update(base=None), "its manifest has no valid `base`"),
        (lambda m, s: m["base"].update(bytes=True), "its base has no valid `bytes`"),
    ],
)
def test_wrong_packs_are_errors(packed, change, message, tmp_path):
    content = changed(packed[1], change)
    with pytest.raises(TicketError, match=message):
        load(tmp_path / "a.tickets", content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda c: b"", "not a pack of tickets"),
        (lambda c: c[:12], "cut off inside its header"),
        (lambda c: c[:-7], "it is damaged: it has .* bytes, and should have"),
        (lambda c: c + b"x", "it is damaged: it has .* bytes, and should have"),
        (lambda c: c[:8] + b"\x09" + c[9:], "it has version 9 of the format"),
        (lambda c: sealed(b"[" * 90_000, b"", magic=MAGIC), "nested too deeply|not a JSON"),
        (lambda c: sealed(b"3", b"", magic=MAGIC), "its manifest is not a JSON object"),
        (lambda c: sealed(b" " * (1 << 25), b"", magic=MAGIC), "its manifest has 33,554,432 bytes"),
    ],
)
def test_files_that_are_no_packs_are_errors(packed, content, message, tmp_path):
    with pytest.raises(TicketError, match=message):
        load(tmp_path / "a.tickets", content(packed[1]))


def test_packs_are_limited(packed, tmp_path):
    with pytest.raises(TicketError, match="more than max_bytes=1,000"):
        load(tmp_path / "a.tickets", packed[1], max_bytes=1000)
    with pytest.raises(ValueError, match="`max_bytes` must be an integer"):
        load(tmp_path / "a.tickets", packed[1], max_bytes=-1)


@pytest.mark.parametrize("seed", range(3))
def test_damaged_packs_are_errors(packed, base, seed, tmp_path):
    rng = random.Random(seed)
    for number in range(150):
        content = packed[number % 2]
        if (damaged := damage(content, rng)) != content:
            with pytest.raises(TicketError, match=r"Pack '.*a\.tickets' cannot be used: .+\.$"):
                load(tmp_path / "a.tickets", damaged, base)


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", range(3))
def test_hostile_packs_do_no_harm(packed, base, seed, tmp_path):
    """Whatever the manifests of the pack and of its tickets say: an error, or the same answers."""
    without, with_base, answers = packed
    rng = random.Random(seed)
    signal.signal(signal.SIGALRM, _hangs)
    loaded, messages = 0, []
    for number in range(60):
        content = (without, with_base)[number % 2]
        signal.alarm(120)
        try:
            tasks = load(tmp_path / "a.tickets", hostile(content, rng), base if number % 2 == 0 else None)
            loaded += 1
            for name in tasks:
                outputs = tasks[name].predict(X, verbose=0)
                assert any(np.array_equal(outputs, expected) for expected in answers.values())
        except TicketError as error:
            messages.append(str(error).replace("\n", " "))
        finally:
            signal.alarm(0)
    assert 0 < loaded < 50
    assert all(message.isprintable() for message in messages)
    assert [file.name for file in tmp_path.iterdir()] == ["a.tickets"]


def _hangs(*_):
    raise RuntimeError("loading takes too long")


def hostile(content, rng):
    """A pack with one odd value in its own manifest, or in that of one of its tickets."""

    def change(manifest, sections):
        which = rng.randrange(3)
        if which == 0 or not manifest["tasks"]:
            edit(manifest, rng)
            return sections
        begin = manifest["base"]["bytes"] + (manifest["tasks"][0]["bytes"] if which == 2 else 0)
        end = begin + manifest["tasks"][which - 1]["bytes"]
        ticket = sections[begin:end]
        *_, size, _ = HEADER.unpack(ticket[: HEADER.size])
        inner = json.loads(zlib.decompress(ticket[HEADER.size : HEADER.size + size], -15))
        edit(inner, rng)
        forged = sealed(inner, ticket[HEADER.size + size : -32])
        manifest["tasks"][which - 1]["bytes"] = len(forged)
        return sections[:begin] + forged + sections[end:]

    return changed(content, change)


def test_golden_pack_is_read():
    """A pack that an earlier version wrote gives the outputs that it gave then."""
    golden = Path(__file__).parents[1] / "golden"
    expected = json.loads((golden / "pack-v1.json").read_text())
    tasks = TaskMasks.load(golden / "pack-v1.tickets")
    assert list(tasks) == list(expected["outputs"]) == ["birds", "fish"]
    for name, outputs in expected["outputs"].items():
        found = tasks[name].predict(np.array(expected["inputs"], "float32"), verbose=0)
        np.testing.assert_allclose(found, outputs, rtol=1e-5, atol=1e-5)
