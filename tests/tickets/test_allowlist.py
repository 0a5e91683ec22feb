"""Tickets of strangers: damaged files, hostile files, writing that is interrupted."""

import copy
import hashlib
import json
import os
import random
import resource
import signal
import struct
import subprocess
import sys
import textwrap
import time
import zlib

import keras
import numpy as np
import pytest
from keras.src.backend.common import global_state
from keras.src.saving.serialization_lib import in_safe_mode

from keras_popup import initializers, load_ticket, mask_model, save_ticket, strip_masks, tickets
from keras_popup.tickets import TicketError, file_format

HEADER = struct.Struct("<8sIQII")


def small_network():
    stack = [
        keras.Input((6, 6, 2)),
        keras.layers.Conv2D(40, 3, name="conv"),
        keras.layers.BatchNormalization(name="norm"),
        keras.layers.Flatten(name="flatten"),
        keras.layers.Dense(7, name="learned"),
        keras.layers.Dense(4, name="classes"),
    ]
    return mask_model(keras.Sequential(stack, name="small"), k=0.4, exclude="learned", seed=1)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """(bytes of a ticket, weights of its model)."""
    keras.utils.set_random_seed(1)
    model = small_network()
    path = tmp_path_factory.mktemp("original") / "small.ticket"
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if hasattr(layer, "scores"):
            layer.scores.assign_add(0.02 * rng.normal(size=layer.scores.shape))
    save_ticket(model, path)
    return path.read_bytes(), weights_of(strip_masks(model))


def weights_of(model):
    return [weight.numpy().tobytes() for weight in model.weights]


def opened(content):
    """(manifest, sections in order)."""
    *_, packed, _ = HEADER.unpack(content[: HEADER.size])
    return json.loads(zlib.decompress(content[HEADER.size : HEADER.size + packed], -15)), content[
        HEADER.size + packed : -32
    ]


def sealed(manifest, sections, version=1):
    """A ticket whose checksums are right, whatever is in it."""
    text = manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode()
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = compressor.compress(text) + compressor.flush()
    size = HEADER.size + len(packed) + len(sections) + 32
    content = HEADER.pack(b"\x89KPT\r\n\x1a\n", version, size, len(packed), len(text)) + packed + sections
    return content + hashlib.sha256(content).digest()


def damage(content, rng):
    """A file that is not what was written."""
    content = bytearray(content)
    how = rng.choice(["bit", "byte", "cut", "extend", "swap", "zero", "insert", "repeat"])
    at = rng.randrange(len(content))
    if how == "bit":
        content[at] ^= 1 << rng.randrange(8)
    elif how == "byte":
        content[at] = (content[at] + rng.randrange(1, 256)) % 256
    elif how == "cut":
        del content[at:]
    elif how == "extend":
        content += rng.randbytes(rng.randrange(1, 50))
    elif how == "swap":
        length = rng.randrange(1, 40)
        other = rng.randrange(len(content))
        content[at : at + length], content[other : other + length] = (
            content[other : other + length],
            content[at : at + length],
        )
    elif how == "zero":
        content[at : at + 16] = bytes(len(content[at : at + 16]))
    elif how == "insert":
        content[at:at] = rng.randbytes(rng.randrange(1, 9))
    else:
        content[at:at] = content[at : at + 30]
    return bytes(content)


NASTY = [
    *[None, True, False, 0, 1, -1, 2, 7, 10**4, 10**6, 2**31, 2**40, 2**63, 10**30, 0.5, -0.5, 1e308, float("nan")],
    *["", "x", "float32", "conv", "../../x", "\x1b[2J", "MaskedDense", "keras", "os", "system", "__lambda__", "1"],
    *[[], {}, [0], [1, 2, 3], [[1, 2]], {"a": 1}, {"class_name": "Dense", "config": {"units": 10**6}}],
]


def edited(content, rng):
    """A ticket one value of whose manifest is another, sealed again."""
    manifest, sections = opened(content)
    here, key = {"": manifest}, ""
    while isinstance(here[key], (dict, list)) and here[key] and (rng.random() < 0.9 or here[key] is manifest):
        here = here[key]
        key = rng.choice(list(here) if isinstance(here, dict) else range(len(here)))
    how = rng.choice(["replace", "replace", "remove", "number"])
    if how == "remove":
        del here[key]
    elif how == "number" and type(here[key]) is int:
        here[key] = max(0, here[key] + rng.choice([-1, 1, 8, 2**20, here[key]]))
    else:
        here[key] = copy.deepcopy(rng.choice(NASTY))
    return sealed(manifest, sections)


@pytest.mark.parametrize("seed", range(6))
def test_damaged_files_are_errors(original, seed, tmp_path):
    content, _ = original
    rng, path = random.Random(seed), tmp_path / "damaged.ticket"
    for number in range(250):
        damaged = damage(content, rng)
        if damaged == content:
            continue
        path.write_bytes(damaged)
        for use in (load_ticket, tickets.verify_ticket, tickets.ticket_info) if number % 10 == 0 else (load_ticket,):
            with pytest.raises(TicketError, match=r"Ticket '.*damaged\.ticket' cannot be used: .+\.$"):
                use(path)


@pytest.mark.filterwarnings("ignore")  # Keras warns of much that is odd in a model
@pytest.mark.parametrize("seed", range(6))
def test_hostile_files_do_no_harm(original, seed, tmp_path):
    """Whatever the manifest says: an error, or the same weights. No crash, no hang, no memory."""
    content, weights = original
    rng, path = random.Random(seed), tmp_path / "hostile.ticket"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    loaded, messages = 0, []
    signal.signal(signal.SIGALRM, _hangs)
    for number in range(150):
        path.write_bytes(edited(content, rng))
        signal.alarm(120)
        try:
            model = load_ticket(path, masked=number % 3 == 0)
            loaded += 1
            if number % 3:
                assert weights_of(model) == weights
                tickets.verify_ticket(path)
            str(tickets.ticket_info(path))
        except TicketError as error:
            messages.append(str(error))
        finally:
            signal.alarm(0)
    assert all(message.replace("\n", " ").isprintable() for message in messages)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20  # KiB
    assert 0 < loaded < 100  # some edits change nothing that the weights depend on
    assert list(tmp_path.iterdir()) == [path]


def _hangs(*_):
    raise RuntimeError("loading takes too long")


def change(content, edit):
    manifest, sections = opened(content)
    text = edit(manifest)
    return sealed(text if isinstance(text, bytes) else manifest, sections)


def with_layer(class_name, **config):
    """An edit that puts a layer into the model."""

    def edit(manifest):
        layer = {"module": "keras.layers", "class_name": class_name, "config": {"name": "evil", **config}}
        manifest["model"]["config"]["layers"].insert(1, layer)

    return edit


def call(layer, arguments, name="evil"):
    """An edit that has a layer called on constants, while the model is read."""

    def edit(manifest):
        node = {"args": arguments, "kwargs": {}}
        manifest["model"] = {
            "module": "keras.src.models.functional",
            "class_name": "Functional",
            "registered_name": "Functional",
            "config": {
                "name": "evil",
                "layers": [{**layer, "name": name, "inbound_nodes": [node]}],
                "input_layers": [],
                "output_layers": [],
            },
        }

    return edit


def stock(class_name, module="keras.layers", **config):
    return {"module": module, "class_name": class_name, "config": {"name": "evil", **config}, "registered_name": None}


def function(module, name):
    return {"module": module, "class_name": "function", "config": name, "registered_name": name}


def constant(*values):
    return {"class_name": "__tensor__", "config": {"value": [*values], "dtype": "float32"}}


SYMBOL = {
    "class_name": "__keras_tensor__",
    "config": {"shape": [None, 6, 6, 2], "dtype": "float32", "keras_history": ["input_layer", 0, 0]},
}


def many_layers(manifest):
    layers = manifest["model"]["config"]["layers"]
    layers += [stock("Activation", activation="relu")] * 3000


def wide_normalization(manifest):
    with_layer("Normalization", mean=0.0, variance=1.0)(manifest)
    with_layer("Dense", units=2**34)(manifest)
    manifest["model"]["config"]["layers"][1]["config"]["name"] = "wide"


def without_module(class_name, registered_name):
    layer = {"class_name": class_name, "registered_name": registered_name, "config": {"name": "evil"}}
    return lambda manifest: manifest["model"]["config"]["layers"].insert(1, layer)


def first_mask(**values):
    return lambda manifest: manifest["masks"][0].update(values)


def nested(manifest):
    return b"[" * 100_000


REGULARIZER = {"module": "builtins", "class_name": "__lambda__", "config": {"code": "4wEA", "defaults": None}}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("edit", "match"),
    [
        (first_mask(kept=0), "does not|keeps"),
        (first_mask(kept=721), "keeps 721 of 720 weights"),
        (first_mask(shape=[3, 3, 2, 2**40]), "would take .* bytes unpacked, more than max_bytes=1,073,741,824"),
        (first_mask(shape=[3, 3, 40, 2]), r"weight .0. of layer .conv. is .*\(3, 3, 40, 2\) in its list"),
        (first_mask(shape=[1] * 40), "40 axes"),
        (first_mask(shape=[3, 3, 0, 40]), "has no weights"),
        (first_mask(dtype="object"), "type 'object' is not one of"),
        (first_mask(dtype="float16"), "weight '0' of layer 'conv'"),
        (first_mask(fans=[0, 1]), "fans"),
        (first_mask(kernel_check="0" * 16), "kernel of layer 'conv' is not the one that was saved"),
        (first_mask(mask_check="0" * 16), "mask of layer 'conv' is not the one that was saved"),
        (first_mask(layer="nowhere"), "weight '0' of layer 'conv' is absent in its list"),
        (first_mask(layer="\x1b[2J"), "no valid `layer`"),
        (first_mask(initializer={"registered_name": "keras_popup>SignedConstant"}), "no.* seed"),
        (
            first_mask(initializer={"registered_name": "os>system", "config": {"seed": 1, "scaled": False, "k": None}}),
            "not an initializer with a seed",
        ),
        (lambda m: m["masks"].append(m["masks"][0]), "does not match its checksum"),
        (lambda m: m["masks"].reverse(), "does not match its checksum"),
        (lambda m: m["tensors"].pop(), "its sections end at byte|absent"),
        (lambda m: m.pop("model"), "no valid `model`"),
        (lambda m: m["model"].update(class_name="Dense"), "its model cannot be built"),
        (with_layer("Dense", units=10**6), "weight '.*' of layer 'evil' is absent in its list"),
        (with_layer("Lambda", function=REGULARIZER), "its model cannot be built"),
        (with_layer("TFSMLayer", filepath="/tmp/evil", call_endpoint="serve"), "its model cannot be built"),
        (with_layer("StringLookup", vocabulary="/etc/passwd"), "its model cannot be built|absent|does not"),
        (first_mask(dtype="int8"), "a kernel of dtype int8 cannot be masked"),
        (first_mask(initializer={"registered_name": ["x"], "config": {"seed": 1}}), "not an initializer with a seed"),
        (first_mask(arguments={}), "its k is"),
        (lambda m: m["model"].update(config=[1]), "its model has no valid `config`"),
        (lambda m: m["model"]["config"].update(name="m\x1b[2J"), "its model has the name"),
        (lambda m: m.update(masks=[], tensors=[]), "it has no masks"),
        # What Keras's safe mode lets pass: functions of its own called on constants as the file is read.
        (call(stock("Resizing", height=60_000, width=60_000), [constant([[1.0]])]), "called on constants"),
        (call(stock("RepeatVector", n=2**30), [constant([1.0])]), "called on constants"),
        (
            call(
                stock("Tile", "keras.src.ops.numpy", repeats=[2 * 10**9]),
                [{"class_name": "__tensor__", "config": {"value": [1.0], "dtype": "float32", "x": SYMBOL}}],
            ),
            "called on constants|holds an array that is not valid",
        ),
        (call(stock("Flatten"), [constant([1.0]), {"class_name": "__keras_tensor__", "config": {}}]), "on constants"),
        (
            call(stock("Flatten"), [SYMBOL, {"class_name": "__numpy__", "config": {"value": ["a"], "dtype": "S9"}}]),
            "holds an array that is not valid",
        ),
        (call(stock("Flatten"), [SYMBOL, constant("a")]), "items that are not numbers"),
        (
            call(stock("Split", "keras.src.ops.numpy", indices_or_sections=10**8, axis=1), [SYMBOL]),
            "an operation Split of more than 4,096 outputs",
        ),
        (with_layer("Activation", activation=function("keras.utils", "clear_session")), "may not name"),
        (call(stock("Switch", "keras.src.ops.core"), [0, [function("keras.config", "set_floatx")]]), "may not name"),
        (with_layer("Lambda", function=function("keras.visualization", "plot_image_gallery")), "may not name"),
        (with_layer("Activation", activation=function("keras.datasets.mnist", "load_data")), "may not name"),
        (with_layer("Activation", activation=function("builtins", "get")), "may not name"),
        (with_layer("JaxLayer", call_fn=function("keras.ops", "add")), "may not name"),
        (with_layer("Dense", units=3, kernel_initializer=stock("get_file", "keras.utils")), "may not name"),
        (with_layer("Dense", units=3, dtype={"module": "os", "class_name": "system", "config": {}}), "may not name"),
        (
            with_layer("Dense", units=3, activation={"module": None, "class_name": "__typespec__", "config": {}}),
            "may not name",
        ),
        # What Keras makes at once, however large, while shapes only are wanted.
        (with_layer("Dense", units=10**5, lora_rank=1), "layer 'evil' has lora_rank=1"),
        (with_layer("LSTM", units=10**10, stateful=True), "layer 'evil' has stateful=True"),
        (wide_normalization, "'evil' would take 137,438,953,472 bytes, more than max_bytes=1,073,741,824"),
        # The format of earlier versions of Keras, in which it looks for other classes than those named.
        (without_module("Lambda", "keras_popup>TopK"), "names a class 'Lambda' without its module"),
        (without_module("keras_popup>MaskedDense", "keras_popup>TopK"), "without its module"),
        (many_layers, "more than the 2,048 layers that max_bytes=1,073,741,824 allows"),
        (nested, "nested too deeply"),
        (lambda m: b"{}", "no valid `model`"),
        (lambda m: b"[]", "not a JSON object"),
        (lambda m: b"\xff\xfe", "cannot be used"),
        (lambda m: b" " * 5_000_000, "its manifest has 5,000,000 bytes"),
    ],
)
def test_hostile_files(original, edit, match, tmp_path):
    path = tmp_path / "hostile.ticket"
    path.write_bytes(change(original[0], edit))
    global_state.set_global_attribute("uninitialized_variables", [])
    with pytest.raises(TicketError, match=match):
        load_ticket(path)
    # Keras would initialize these on another occasion, large as they may be.
    assert global_state.get_global_attribute("uninitialized_variables") == []
    assert in_safe_mode() is None
    assert not keras.src.backend.common.stateless_scope.in_stateless_scope()


@pytest.mark.parametrize(
    "arguments",
    [
        {"scores_regularizer": REGULARIZER},
        {"selector": REGULARIZER},
        {"k": 0.1},
        {"seed": -1},
        {"unknown": 1},
        {"filters": 10**10},
    ],
    ids=str,
)
def test_hostile_arguments_of_masked_layers(original, arguments, tmp_path):
    path = tmp_path / "hostile.ticket"
    path.write_bytes(change(original[0], lambda manifest: manifest["masks"][0]["arguments"].update(arguments)))
    with pytest.raises(TicketError, match="'conv'"):
        load_ticket(path, masked=True)


@pytest.mark.parametrize(
    "change_of",
    [
        {"config": {"rescale": True}},
        {"class_name": "__lambda__"},
        {"registered_name": "keras_popup>Bernoulli", "class_name": "Bernoulli", "config": {"rescale": "no"}},
        {"registered_name": "keras_popup>Selector", "class_name": "Selector"},
    ],
    ids=str,
)
def test_hostile_selectors(original, change_of, tmp_path):
    path = tmp_path / "hostile.ticket"
    edit = lambda manifest: manifest["masks"][0]["arguments"]["selector"].update(change_of)  # noqa: E731
    path.write_bytes(change(original[0], edit))
    for masked in (False, True):
        with pytest.raises(TicketError, match="its selector is"):
            load_ticket(path, masked=masked)


def test_layers_of_this_library_are_not_for_plain_models(original, tmp_path):
    layer = {"module": None, "class_name": "MaskedDense", "registered_name": "keras_popup>MaskedDense", "config": {}}
    path = tmp_path / "x.ticket"
    path.write_bytes(change(original[0], lambda manifest: manifest["model"]["config"]["layers"].insert(1, layer)))
    with pytest.raises(TicketError, match="names None.MaskedDense, which a ticket may not name"):
        load_ticket(path)


def test_k_that_keeps_nothing(original, tmp_path):
    path = tmp_path / "x.ticket"
    path.write_bytes(change(original[0], lambda manifest: manifest["masks"][0]["arguments"].update(k=1e-9)))
    with pytest.raises(TicketError, match="its masked layers cannot be made: k=1e-09 keeps none"):
        load_ticket(path, masked=True)


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "..", "a/b", "a\\b", ""])
def test_files_stay_in_their_folder(original, name, tmp_path):
    manifest, sections = opened(original[0])
    data = b"\x03\x00"
    manifest["assets"] = [{"layer": "conv", "name": name, "size": 0, "sections": [[len(data), zlib.crc32(data)]]}]
    (tmp_path / "x.ticket").write_bytes(sealed(manifest, sections + data))
    with pytest.raises(TicketError, match="its name is not a valid file name"):
        load_ticket(tmp_path / "x.ticket")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "wrong magic bytes b''"),
        (b"PK\x03\x04" + bytes(100), "it is a ZIP archive, like .keras files"),
        (b"\x89KPT\r\n\x1a\n", "cut off inside its header"),
        (b"\x89KPT\n\x1a\n" + bytes(100), "wrong magic bytes"),
    ],
)
def test_other_files(content, match, tmp_path):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(TicketError, match=match):
        tickets.ticket_info(tmp_path / "x")
    with pytest.raises(OSError, match=r"[Nn]o such|directory"):
        load_ticket(tmp_path / "missing")
    with pytest.raises(OSError, match=r"[Dd]irectory"):
        load_ticket(tmp_path)


def test_the_error_names_the_place(original, tmp_path):
    """Of what is damaged, the layer; of what is cut off, where and how much."""
    content, _ = original
    manifest, sections = opened(content)
    path, start = tmp_path / "x.ticket", len(content) - 32 - len(sections)
    for group, what in (("masks", "the mask of layer '{layer}'"), ("tensors", "weight '{name}' of layer '{layer}'")):
        for entry in manifest[group]:
            for length, _ in entry["sections"]:
                if length:
                    where = what.format(**entry)
                    path.write_bytes(content[:start] + bytes([content[start] ^ 1]) + content[start + 1 :])
                    with pytest.raises(TicketError, match=f"{where} does not match its checksum"):
                        load_ticket(path)
                    path.write_bytes(content[: start + length - 1])
                    with pytest.raises(TicketError, match=f"{where} .*cut off: it has .* of {len(content):,} bytes"):
                        load_ticket(path)
                start += length
    path.write_bytes(content + b"\0")
    with pytest.raises(TicketError, match="the last 1 do not belong to it"):
        load_ticket(path)
    path.write_bytes(sealed(manifest, sections, version=2))
    with pytest.raises(TicketError, match=r"version 2 of the format, and this keras_popup reads version 1.*upgrade"):
        load_ticket(path)


def test_the_limit_can_be_raised(original, tmp_path):
    path = tmp_path / "x.ticket"
    path.write_bytes(original[0])
    for use in (load_ticket, tickets.verify_ticket, tickets.ticket_info):
        with pytest.raises(TicketError, match="max_bytes=1,000"):
            use(path, max_bytes=1_000)
    with pytest.raises(ValueError, match=r"must be an integer, a number of bytes. Received: '1GB'"):
        load_ticket(path, max_bytes="1GB")
    assert weights_of(load_ticket(path, max_bytes=1 << 15)) == original[1]


@pytest.mark.parametrize("kind", ["SignedConstant", "ScoreUniform"])
def test_a_changed_generator_is_noticed(original, kind, tmp_path, monkeypatch):
    path = tmp_path / "x.ticket"
    path.write_bytes(original[0])
    drawn = getattr(initializers, kind).values
    monkeypatch.setattr(getattr(initializers, kind), "values", lambda *arguments: drawn(*arguments)[::-1].copy())
    for use in (load_ticket, tickets.verify_ticket):
        with pytest.raises(TicketError, match=r"layer 'conv'.*numbers drawn from a seed have changed|mask of layer"):
            use(path)


WRITER = """
    import itertools, sys
    from pathlib import Path
    from keras_popup.tickets import file_format
    path = Path(sys.argv[1])
    ticket = file_format.read(path, 1 << 30)
    print("ready", flush=True)
    for number in itertools.count():
        ticket.made["notes"] = [number, "x" * 3_000_000]
        file_format.write(path, file_format.to_bytes(ticket))
"""


def test_killed_while_writing(original, tmp_path):
    path = tmp_path / "x.ticket"
    path.write_bytes(original[0])
    numbers = []
    for delay in np.linspace(0.0, 0.12, 8):
        writer = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(WRITER), str(path)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout.readline() == "ready\n"
        time.sleep(0.05 + delay)
        writer.send_signal(signal.SIGKILL)
        writer.communicate(timeout=60)
        notes = file_format.read(path, 1 << 30).made.get("notes", [-1])
        numbers.append(notes[0])
    assert max(numbers) >= 0  # something was written in between


@pytest.mark.parametrize("before", [b"", b"what was there"])
def test_a_full_disk(before, tmp_path):
    path = tmp_path / "x.ticket"
    if before:
        path.write_bytes(before)
    code = """
        import resource, signal, sys
        import keras, keras_popup
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        inputs = keras.Input((4,))
        model = keras_popup.mask_model(keras.Model(inputs, keras.layers.Dense(3)(inputs)), seed=1)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))
        try:
            keras_popup.save_ticket(model, sys.argv[1])
        except OSError as error:
            sys.exit(17)
    """
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(path)], env=environment, capture_output=True, timeout=120
    )
    assert run.returncode == 17, run.stderr[-2000:]
    assert list(tmp_path.iterdir()) == ([path] if before else [])
    assert not before or path.read_bytes() == before


def test_the_global_switch_of_keras_makes_nothing_unsafe(original, tmp_path):
    """`keras.config.enable_unsafe_deserialization` is for files of one's own."""
    path = tmp_path / "hostile.ticket"
    path.write_bytes(change(original[0], with_layer("Lambda", function=REGULARIZER)))
    try:
        keras.config.enable_unsafe_deserialization()
        with pytest.raises(TicketError, match="cannot be built"):
            load_ticket(path)
    finally:
        global_state.set_global_attribute("safe_mode_saving", None)
