"""Tickets: what is packed comes back, whatever the model."""

import json
import logging
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import keras
import numpy as np
import pytest
from hostile_tickets import weights_of
from tables import LAYERS, MODELS, POLICIES, plain_model, small_model
from ticket_checks import disturb, round_trip, trained_names

import keras_popup
from keras_popup import load_ticket, mask_model, models, save_ticket, strip_masks, tickets
from keras_popup.layers import tree
from keras_popup.tickets import TicketError

SLOW = pytest.mark.slow  # of round trips, those that hardly differ from others
GOLDEN = Path(__file__).parents[1] / "golden"

# Small inputs: a smaller one than 32 x 32 leaves nothing of a ResNet's last stage.
LIBRARY = {name: (32, 32, 3) if "resnet" in name else (8, 8, 3) for name in models._MODELS} | {"conv8": (16, 16, 3)}


@pytest.mark.parametrize("k", [pytest.param(0.005, marks=SLOW), 0.3, pytest.param(1.0, marks=SLOW)])
@pytest.mark.parametrize("case", LAYERS)
def test_load_ticket_gives_every_layer_back(case, k, tmp_path):
    model = small_model(case, k=k)
    disturb(model)
    inputs = np.random.default_rng(0).random(case.input_shape).astype(np.float32) if k == 0.3 else None
    row = round_trip(model, inputs, tmp_path / "layer.ticket").layers[0]
    assert (row.weights, row.kept, row.k, row.kind) == (108, max(1, round(108 * k)), k, case.masked.__name__)


@pytest.mark.filterwarnings("ignore:`build.*` was called on layer:UserWarning")
@pytest.mark.parametrize("weights", ["random", pytest.param("keep", marks=SLOW)])
@pytest.mark.parametrize("case", MODELS, ids=lambda case: case.name)
def test_load_ticket_gives_every_model_back(case, weights, tmp_path):
    plain = case.make()
    model = mask_model(plain, k=0.5, seed=1, weights=weights)
    disturb(model)
    inputs = case.inputs(plain)
    info = round_trip(model, inputs if len(inputs) > 1 else inputs[0], tmp_path / "model.ticket")
    assert all((row.seed is None) == (weights == "keep") for row in info.layers)


@pytest.mark.integration
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=SLOW if name in ("resnet34", "resnet50", "resnet101", "wide_resnet50") else ())
        for name in LIBRARY
    ],
)
def test_load_ticket_gives_every_network_back(name, tmp_path):
    model = mask_model(models.get(name)(width=0.1, input_shape=LIBRARY[name]), k=0.3, seed=1)
    disturb(model)
    round_trip(model, None, tmp_path / "model.ticket")


@pytest.mark.parametrize("policy", [*POLICIES, "bfloat16", "float16", "float64"])
@pytest.mark.parametrize("weights", ["random", pytest.param("keep", marks=SLOW)])
def test_load_ticket_gives_every_dtype_back(policy, weights, tmp_path):
    keras.config.set_dtype_policy(policy)
    stack = [
        keras.Input((6, 6, 3)),
        keras.layers.Conv2D(4, 3),
        keras.layers.BatchNormalization(),
        keras.layers.Flatten(),
    ]
    model = mask_model(keras.Sequential([*stack, keras.layers.Dense(5)]), k=0.3, seed=1, weights=weights)
    disturb(model)
    round_trip(model, np.random.default_rng(0).random((2, 6, 6, 3)), tmp_path / "model.ticket")


@pytest.mark.integration
def test_save_ticket_of_trained_and_loaded_models(tmp_path):
    model = mask_model(models.FullyConnected(width=0.3, input_shape=(8, 8, 1)), k=0.3, seed=1)
    rng = np.random.default_rng(0)
    x = rng.random((256, 8, 8, 1))
    y = np.argmax(x.reshape(256, 64)[:, :10], axis=1)
    model.compile(keras.optimizers.SGD(0.5, momentum=0.9), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(x, y, epochs=3, verbose=0)
    info = round_trip(model, x[:4], tmp_path / "model.ticket")
    assert info.mask_bytes < 0.8 * info.limit_bytes  # most scores are near where they began
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    save_ticket(again, tmp_path / "again.ticket")
    assert (tmp_path / "again.ticket").read_bytes() == (tmp_path / "model.ticket").read_bytes()
    # For further training, with all that comes with it.
    further = load_ticket(tmp_path / "model.ticket", masked=True)
    further.compile(keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = further.evaluate(x, y, verbose=0)
    further.fit(x, y, epochs=3, verbose=0)
    assert further.evaluate(x, y, verbose=0) < before
    round_trip(further, x[:4], tmp_path / "further.ticket")


def test_load_ticket_leaves_frozen_weights_frozen(tmp_path):
    plain = plain_model("block_of_blocks")
    model = mask_model(plain, k=0.5, seed=1, weights="keep", train_norms=True, exclude="*query*")
    save_ticket(model, tmp_path / "model.ticket")
    loaded = load_ticket(tmp_path / "model.ticket", masked=True)
    assert [(path, layer.trainable) for path, layer in tree.walk(loaded)] == [
        (path, layer.trainable) for path, layer in tree.walk(model)
    ]


@pytest.mark.integration
def test_load_ticket_keeps_trainable_flags(tmp_path):
    """Of single weights of masked layers, and of layers that other layers' code makes."""
    model = mask_model(plain_model("block_of_blocks"), k=0.5, seed=1, train_biases=True)
    masked = [layer for _, layer in tree.walk(model) if hasattr(layer, "scores")]
    masked[0].scores.trainable = False
    masked[1].bias.trainable = False
    masked[2].trainable = False
    model.get_layer("encoder").attention.trainable = False
    save_ticket(model, tmp_path / "model.ticket")
    assert trained_names(load_ticket(tmp_path / "model.ticket", masked=True)) == trained_names(model)
    assert trained_names(load_ticket(tmp_path / "model.ticket")) == trained_names(strip_masks(model))


def shared_by_two():
    shared = keras.layers.Dense(4, name="shared")
    inputs = keras.Input((4,))
    return keras.Model(inputs, shared(keras.Sequential([keras.Input((4,)), shared], name="inner")(inputs)))


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (shared_by_two, "'shared'"),
        (lambda: keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="a\tb")]), "no valid `layer`"),
    ],
    ids=["shared", "name"],
)
def test_save_ticket_refuses_what_nobody_could_load(make, match, tmp_path):
    with pytest.raises(
        ValueError, match=f"cannot be saved as a ticket, because load_ticket would refuse it: .*{match}"
    ):
        save_ticket(mask_model(make(), k=0.5, seed=1), tmp_path / "x.ticket")
    assert list(tmp_path.iterdir()) == []


def test_save_ticket_says_that_a_ticket_is_large(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("keras_popup.tickets.api.MAX_BYTES", 10_000)
    save_ticket(mask_model(models.Conv2(width=0.1, input_shape=(8, 8, 3)), k=0.5, seed=1), tmp_path / "x.ticket")
    assert "pass max_bytes of more than 10,000 to load_ticket" in caplog.text


def test_load_ticket_says_that_scores_are_new(tmp_path, caplog):
    model = mask_model(models.FullyConnected(width=0.3, input_shape=(8, 8, 1)), k=0.3, seed=1)
    disturb(model)
    save_ticket(model, tmp_path / "model.ticket")
    with caplog.at_level(logging.WARNING, "keras_popup"):
        loaded = load_ticket(tmp_path / "model.ticket", masked=True)
    assert "are not those of its training" in caplog.text
    for layer, other in zip(model.layers, loaded.layers, strict=True):
        if hasattr(layer, "scores"):
            np.testing.assert_array_equal(layer.frozen_kernel, other.frozen_kernel)
            scores, fan_in = other.scores.numpy(), layer.scores.shape[0]
            # Spread over the range of initial scores.
            assert 0.8 < np.abs(scores).max() * np.sqrt(fan_in) <= 1.0
            assert 0.9 < scores.std() * np.sqrt(3 * fan_in) < 1.1


def test_save_ticket_writes_the_same_bytes_again(tmp_path):
    for name in ("a", "b"):
        model = mask_model(models.Conv2(width=0.1, input_shape=(8, 8, 3)), k=0.5, seed=1)
        save_ticket(model, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_save_ticket_of_conv6_is_within_its_size(tmp_path):
    """Of masks of which nothing is known but k: trained ones take less."""
    model = mask_model(models.Conv6(), k=0.5, seed=1)
    rng = np.random.default_rng(1)
    for layer in model.layers:
        if hasattr(layer, "scores"):
            layer.scores.assign(rng.random(layer.scores.shape))
    info = save_ticket(model, tmp_path / "conv6.ticket")
    assert round(info.limit_bytes) == 282_639
    assert info.bytes < 282_639 + 3_000


@pytest.mark.rare  # an example does this too
def test_load_ticket_in_a_process_of_its_own(tmp_path):
    """What the ticket gives is a plain model: its file needs no keras_popup."""
    model = mask_model(models.Conv2(width=0.1, input_shape=(8, 8, 3)), k=0.5, seed=1)
    disturb(model)
    save_ticket(model, tmp_path / "model.ticket")
    x = np.random.default_rng(0).random((4, 8, 8, 3)).astype(np.float32)
    np.savez(tmp_path / "expected.npz", x=x, y=model(x))
    code = """
        import sys, numpy as np, keras_popup
        keras_popup.load_ticket("model.ticket").save("plain.keras")
    """
    other = """
        import sys, keras, numpy as np
        expected = np.load("expected.npz")
        np.testing.assert_array_equal(keras.models.load_model("plain.keras")(expected["x"]), expected["y"])
        assert "keras_popup" not in sys.modules
    """
    for each in (code, other):
        subprocess.run([sys.executable, "-c", textwrap.dedent(each)], cwd=tmp_path, check=True, capture_output=True)


@pytest.mark.parametrize("name", ["digits-v1", "kinds-v1"])
def test_load_ticket_of_the_first_version(name):
    """Files of version 1, written when that was new. If this fails, tickets that people have shared are lost."""
    expected = json.loads((GOLDEN / f"{name}.json").read_text())
    info = tickets.verify_ticket(GOLDEN / f"{name}.ticket")
    assert {row.path: row.kept for row in info.layers} == expected["kept"]
    from golden.make import weights_digest

    assert weights_digest(load_ticket(GOLDEN / f"{name}.ticket")) == expected["weights"]


@pytest.mark.parametrize(
    ("argument", "arguments", "error", "match"),
    [
        ("plain", {}, ValueError, "has no masked layer. Mask it with"),
        ("no model", {}, TypeError, "save_ticket takes a keras.Model. Received: str"),
        ("unbuilt", {}, ValueError, "is not built"),
        ("masked", {"notes": {1, 2}}, TypeError, "not JSON serializable"),
        ("masked", {"metrics": 0.5}, TypeError, "`metrics` must be a dict of numbers by name. Received: 0.5"),
        ("masked", {"folder": "nowhere"}, FileNotFoundError, "file in a folder that exists"),
        ("lambda", {}, ValueError, "A ticket holds no code, but this model has a Lambda"),
    ],
)
def test_save_ticket_refuses_wrong_arguments(argument, arguments, error, match, tmp_path):
    dense = keras.layers.Dense(3)
    model = {
        "plain": lambda: keras.Sequential([keras.Input((4,)), dense]),
        "no model": lambda: "model",
        "unbuilt": lambda: keras.Sequential([keras_popup.layers.MaskedDense(3)]),
        "masked": lambda: mask_model(keras.Sequential([keras.Input((4,)), dense]), seed=1),
        "lambda": lambda: mask_model(
            keras.Sequential([keras.Input((4,)), keras.layers.Lambda(lambda x: x + 1), dense]), seed=1
        ),
    }[argument]()
    folder = tmp_path / arguments.pop("folder", "")
    with pytest.raises(error, match=match):
        save_ticket(model, folder / "x.ticket", **arguments)
    assert list(tmp_path.iterdir()) == []


def test_load_ticket_with_another_limit(original, tmp_path):
    path = tmp_path / "x.ticket"
    path.write_bytes(original[0])
    for use in (load_ticket, tickets.verify_ticket, tickets.ticket_info):
        with pytest.raises(TicketError, match="max_bytes=1,000"):
            use(path, max_bytes=1_000)
    with pytest.raises(ValueError, match=r"must be an integer, a number of bytes. Received: '1GB'"):
        load_ticket(path, max_bytes="1GB")
    assert weights_of(load_ticket(path, max_bytes=1 << 16)) == original[1]


@pytest.mark.integration
@pytest.mark.parametrize("before", [b"", b"what was there"])
def test_save_ticket_on_a_full_disk(before, tmp_path):
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
