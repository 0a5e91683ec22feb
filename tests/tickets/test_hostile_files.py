"""Tickets of strangers, read by all of the code: damaged files, hostile files."""

import random
import signal

import keras
import pytest
from damage import damage
from hostile_tickets import change, edited, weights_of
from keras.src.backend.common import global_state
from keras.src.saving.serialization_lib import in_safe_mode
from peak_memory import measure_peak_memory

from keras_popup import load_ticket, tickets
from keras_popup.tickets import TicketError


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
    before = measure_peak_memory()
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
    assert measure_peak_memory() - before < 1 << 30
    assert 0 < loaded < 100  # some edits change nothing that the weights depend on
    assert list(tmp_path.iterdir()) == [path]


def _hangs(*_):
    raise RuntimeError("loading takes too long")


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


def many_connections(manifest):
    nodes = [{"args": [[SYMBOL] * 20_000], "kwargs": {}}]
    call(stock("Concatenate"), [])(manifest)
    manifest["model"]["config"]["layers"][0]["inbound_nodes"] = nodes


def many_planes(manifest):
    manifest["masks"][0]["shape"] = [2**13, 2**13]
    manifest["masks"][0]["arguments"]["coding"] = {"planes": [[0, 0, 0, 0]] * 600}


def many_calls(manifest):
    call(stock("Flatten"), [SYMBOL])(manifest)
    nodes = manifest["model"]["config"]["layers"][0]["inbound_nodes"]
    manifest["model"]["config"]["layers"][0]["inbound_nodes"] = nodes * 2_049


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
        (first_mask(shape=[3, 3, 2, 2**40]), "would take .* bytes unpacked, more than max_bytes=4,294,967,296"),
        (first_mask(shape=[2**15, 2**14]), "take some .* bytes at the peak, more than max_bytes=4,294,967,296"),
        (many_planes, "take 40,332,.* steps, more than the 4,294,967,296"),
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
        (wide_normalization, "'evil' would take 137,438,953,472 bytes, more than max_bytes=4,294,967,296"),
        # The format of earlier versions of Keras, in which it looks for other classes than those named.
        (without_module("Lambda", "keras_popup>TopK"), "names a class 'Lambda' without its module"),
        (without_module("keras_popup>MaskedDense", "keras_popup>TopK"), "without its module"),
        (many_connections, "more than the 8,192 connections that max_bytes=4,294,967,296 allows"),
        (many_calls, "more than the 2,048 calls of layers that max_bytes=4,294,967,296 allows"),
        (with_layer("Dropout", rate=0.5, seed=[2**70, -1]), "cannot be made|cannot be built"),
        (with_layer("Dropout", rate=0.5, seed=[1, 2]), "cannot be made|cannot be built"),
        (many_layers, "more than the 2,048 layers that max_bytes=4,294,967,296 allows"),
        (nested, "nested too deeply"),
        (lambda m: b"{}", "no valid `model`"),
        (lambda m: b"[]", "not a JSON object"),
        (lambda m: b"\xff\xfe", "cannot be used"),
        (lambda m: b" " * 5_000_000, "its manifest has 5,000,000 bytes"),
    ],
)
def test_hostile_files_are_refused(original, edit, match, tmp_path):
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
def test_hostile_arguments_of_masked_layers_are_refused(original, arguments, tmp_path):
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
def test_hostile_selectors_are_refused(original, change_of, tmp_path):
    path = tmp_path / "hostile.ticket"
    edit = lambda manifest: manifest["masks"][0]["arguments"]["selector"].update(change_of)  # noqa: E731
    path.write_bytes(change(original[0], edit))
    for masked in (False, True):
        with pytest.raises(TicketError, match="its selector is"):
            load_ticket(path, masked=masked)


def test_hostile_files_are_refused_though_keras_allows_them(original, tmp_path):
    """`keras.config.enable_unsafe_deserialization` is for files of one's own."""
    path = tmp_path / "hostile.ticket"
    path.write_bytes(change(original[0], with_layer("Lambda", function=REGULARIZER)))
    try:
        keras.config.enable_unsafe_deserialization()
        with pytest.raises(TicketError, match="cannot be built"):
            load_ticket(path)
    finally:
        global_state.set_global_attribute("safe_mode_saving", None)
