"""Tickets: what is packed comes back, whatever the model."""

import json
import logging
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import keras
import numpy as np
import pytest
import ticket_reader
from keras.src.applications.convnext import LayerScale
from tables import INITIALIZERS, LAYERS, MODELS, POLICIES, SELECTORS, plain_model, small_model

import keras_popup
from keras_popup import load_ticket, mask_model, models, save_ticket, strip_masks, tickets
from keras_popup.layers import tree

SLOW = pytest.mark.slow  # of round trips, those that hardly differ from others
GOLDEN = Path(__file__).parents[1] / "golden"

# Small inputs: a smaller one than 32 x 32 leaves nothing of a ResNet's last stage.
LIBRARY = {name: (32, 32, 3) if "resnet" in name else (8, 8, 3) for name in models._MODELS} | {"conv8": (16, 16, 3)}


def all_weights(model):
    """(path, name, bytes) of all weights, in the model's order."""
    return [
        (path, weight.name, np.asarray(weight.numpy()).tobytes())
        for path, layer in [("", model), *tree.walk(model)]
        for weight in tree.own_weights(layer)
    ]


def trained_names(model):
    return sorted(
        (path, weight.name)
        for path, layer in [("", model), *tree.walk(model)]
        for weight in tree.own_weights(layer)
        if weight.trainable
    )


def disturb(model):
    """Gives a model weights that no initializer makes, and masks that are not those of the start."""
    rng = np.random.default_rng(5)
    for _, layer in tree.walk(model):
        for weight in tree.own_weights(layer):
            if weight.name in ("scores", "bias", "gamma", "beta", "moving_mean", "moving_variance"):
                weight.assign(weight + rng.uniform(0.01, 0.3, weight.shape))


def round_trip(model, inputs, path):
    """Checks all that a ticket promises of a masked model. Returns what `save_ticket` says of it."""
    plain = strip_masks(model)
    info = save_ticket(model, path)
    assert tickets.verify_ticket(path) == tickets.ticket_info(path) == info
    assert info.bytes == path.stat().st_size
    for row in info.layers:
        assert row.mask_bytes <= row.limit_bytes * 1.0005 + 16

    loaded = load_ticket(path)
    assert type(loaded) is type(plain)
    assert all_weights(loaded) == all_weights(plain)
    masked = load_ticket(path, masked=True)
    assert [type(layer) for layer in model.layers] == [type(layer) for layer in masked.layers]
    assert trained_names(masked) == trained_names(model)
    if inputs is not None:
        outputs = [keras.tree.flatten(each(inputs)) for each in (plain, loaded, model, masked)]
        for expected, got in zip([*outputs[0], *outputs[2]], [*outputs[1], *outputs[3]], strict=True):
            np.testing.assert_array_equal(expected, got)
    return info


@pytest.mark.parametrize("k", [pytest.param(0.005, marks=SLOW), 0.3, pytest.param(1.0, marks=SLOW)])
@pytest.mark.parametrize("case", LAYERS)
def test_layers(case, k, tmp_path):
    model = small_model(case, k=k)
    disturb(model)
    inputs = np.random.default_rng(0).random(case.input_shape).astype(np.float32) if k == 0.3 else None
    row = round_trip(model, inputs, tmp_path / "layer.ticket").layers[0]
    assert (row.weights, row.kept, row.k, row.kind) == (108, max(1, round(108 * k)), k, case.masked.__name__)


@pytest.mark.filterwarnings("ignore:`build.*` was called on layer:UserWarning")
@pytest.mark.parametrize("weights", ["random", pytest.param("keep", marks=SLOW)])
@pytest.mark.parametrize("case", MODELS, ids=lambda case: case.name)
def test_models(case, weights, tmp_path):
    plain = case.make()
    model = mask_model(plain, k=0.5, seed=1, weights=weights)
    disturb(model)
    inputs = case.inputs(plain)
    info = round_trip(model, inputs if len(inputs) > 1 else inputs[0], tmp_path / "model.ticket")
    assert all((row.seed is None) == (weights == "keep") for row in info.layers)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=SLOW if name in ("resnet34", "resnet50", "resnet101", "wide_resnet50") else ())
        for name in LIBRARY
    ],
)
def test_models_of_the_library(name, tmp_path):
    model = mask_model(models.get(name)(width=0.1, input_shape=LIBRARY[name]), k=0.3, seed=1)
    disturb(model)
    round_trip(model, None, tmp_path / "model.ticket")


@pytest.mark.parametrize("policy", [*POLICIES, "bfloat16", "float16", "float64"])
@pytest.mark.parametrize("weights", ["random", pytest.param("keep", marks=SLOW)])
def test_dtypes(policy, weights, tmp_path):
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


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("name", INITIALIZERS)
def test_initializers(name, scaled, tmp_path):
    initializer = keras_popup.initializers.get_filled(name, scaled=scaled)
    scores = keras_popup.initializers.get(name)
    model = mask_model(
        plain_model("time_distributed"), k=0.4, seed=3, kernel_initializer=initializer, scores_initializer=scores
    )
    assert round_trip(model, None, tmp_path / "model.ticket").layers[0].seed is not None


@pytest.mark.parametrize("kind", ["kernel_initializer", "scores_initializer"])
def test_values_that_have_no_seed_are_stored(kind, tmp_path):
    model = mask_model(plain_model("time_distributed"), k=0.4, seed=3, **{kind: "glorot_uniform"})
    disturb(model)
    row = round_trip(model, None, tmp_path / "model.ticket").layers[0]
    assert (row.seed is None) == (kind == "kernel_initializer")
    assert row.other_bytes >= 4 * row.kept * (kind == "kernel_initializer")


def test_kernels_changed_by_hand_are_stored(tmp_path):
    model = mask_model(models.FullyConnected(width=0.05, input_shape=(5, 5, 1)), k=0.5, seed=1)
    layer = model.get_layer("dense1")
    layer.frozen_kernel.assign(layer.frozen_kernel * 1.5)
    info = round_trip(model, np.ones((1, 5, 5, 1)), tmp_path / "model.ticket")
    assert [row.seed is None for row in info.layers] == [True, False, False]


def test_trained_and_loaded_models(tmp_path):
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


def test_frozen_weights_stay_frozen(tmp_path):
    plain = plain_model("block_of_blocks")
    model = mask_model(plain, k=0.5, seed=1, weights="keep", train_norms=True, exclude="*query*")
    save_ticket(model, tmp_path / "model.ticket")
    loaded = load_ticket(tmp_path / "model.ticket", masked=True)
    assert [(path, layer.trainable) for path, layer in tree.walk(loaded)] == [
        (path, layer.trainable) for path, layer in tree.walk(model)
    ]


def test_trainable_flags(tmp_path):
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


@keras.saving.register_keras_serializable("tests")
class Gain(keras.layers.Layer):
    """Its argument has the name of something that Keras puts into serialized layers."""

    def __init__(self, options, **kwargs):
        super().__init__(**kwargs)
        self.options = options

    def call(self, inputs):
        return inputs * self.options["build_config"]["gain"]

    def get_config(self):
        return {**super().get_config(), "options": {"build_config": {"gain": self.options["build_config"]["gain"]}}}


def test_arguments_of_layers_are_kept_as_they_are(tmp_path):
    inputs = keras.Input((4,))
    outputs = keras.layers.Dense(3)(Gain({"build_config": {"gain": 5.0}})(inputs))
    model = mask_model(keras.Model(inputs, outputs), k=0.5, seed=1)
    round_trip(model, np.ones((2, 4), np.float32), tmp_path / "gain.ticket")


def test_operations_between_layers(tmp_path):
    inputs = keras.Input((4,))
    x = keras.ops.concatenate([inputs * 2.0, keras.ops.relu(inputs - 0.5)], axis=-1)
    x = keras.ops.cast(keras.ops.expand_dims(x, 1)[:, 0], "float32")
    outputs = keras.layers.Dense(3, activation=keras.activations.silu)(keras.ops.softmax(x))
    model = mask_model(keras.Model(inputs, outputs), k=0.5, seed=1)
    round_trip(model, np.random.default_rng(0).random((2, 4)), tmp_path / "operations.ticket")


@keras.saving.register_keras_serializable("tests")
def doubled(x):
    return x * 2.0


@pytest.mark.parametrize("activation", [doubled, "relu", keras.activations.gelu])
def test_functions(activation, tmp_path):
    stack = [keras.Input((4,)), keras.layers.Activation(activation), keras.layers.Dense(3, activation=activation)]
    model = mask_model(keras.Sequential(stack), k=0.5, seed=1)
    round_trip(model, np.ones((2, 4), np.float32), tmp_path / "function.ticket")


def test_functions_that_are_not_registered_are_given(tmp_path):
    with keras.saving.custom_object_scope({"loud": loud}):
        model = mask_model(keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation=loud)]), k=0.5, seed=1)
        save_ticket(model, tmp_path / "x.ticket")
    with pytest.raises(tickets.TicketError, match=r"builtins\.loud, which a ticket may not name\. Your own"):
        load_ticket(tmp_path / "x.ticket")
    loaded = load_ticket(tmp_path / "x.ticket", custom_objects={"loud": loud})
    np.testing.assert_array_equal(loaded(np.ones((1, 4))), model(np.ones((1, 4))))


def loud(x):
    return x * 3.0


def test_layers_that_keras_has_for_itself(tmp_path):
    inputs = keras.Input((4,))
    small = keras.Model(inputs, keras.layers.Dense(3)(LayerScale(0.5, 4)(inputs)))
    save_ticket(mask_model(small, k=0.5, seed=1), tmp_path / "x.ticket")
    load_ticket(tmp_path / "x.ticket")


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
def test_what_nobody_could_load_is_not_written(make, match, tmp_path):
    with pytest.raises(
        ValueError, match=f"cannot be saved as a ticket, because load_ticket would refuse it: .*{match}"
    ):
        save_ticket(mask_model(make(), k=0.5, seed=1), tmp_path / "x.ticket")
    assert list(tmp_path.iterdir()) == []


def test_it_says_that_a_ticket_is_large(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("keras_popup.tickets.api.MAX_BYTES", 10_000)
    save_ticket(mask_model(models.Conv2(width=0.1, input_shape=(8, 8, 3)), k=0.5, seed=1), tmp_path / "x.ticket")
    assert "pass max_bytes of more than 10,000 to load_ticket" in caplog.text


def test_scores_are_new_and_it_says_so(tmp_path, caplog):
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


def test_layers_with_files_of_their_own(tmp_path):
    text = keras.Input((), dtype="string", name="text")
    words = keras.layers.TextVectorization(max_tokens=9, output_sequence_length=4, name="words")
    words.adapt(np.array(["a ticket holds a seed", "and a mask"]))
    numbers = keras.layers.Embedding(9, 4, name="embedding")(words(text))
    outputs = keras.layers.Dense(3, name="classes")(keras.layers.Flatten()(numbers))
    model = mask_model(keras.Model(text, outputs), k=0.5, seed=1)
    save_ticket(model, tmp_path / "text.ticket")
    inputs = keras.ops.convert_to_tensor(["a mask", "a seed and more"])
    np.testing.assert_array_equal(load_ticket(tmp_path / "text.ticket")(inputs), model(inputs))


def test_normalization_statistics(tmp_path):
    norm = keras.layers.Normalization(name="norm")
    norm.adapt(np.random.default_rng(0).normal(3.0, 2.0, (64, 5)))
    model = mask_model(keras.Sequential([keras.Input((5,)), norm, keras.layers.Dense(4)]), k=0.5, seed=1)
    round_trip(model, np.ones((2, 5), np.float32), tmp_path / "norm.ticket")


def test_custom_classes(tmp_path):
    """Classes that are not registered are given, as Keras has it."""
    inner = keras.Input((4,))
    model = keras.Model(inner, keras.layers.Dense(3)(Doubled(name="doubled")(inner)))
    save_ticket(mask_model(model, k=0.5, seed=1), tmp_path / "custom.ticket")
    with pytest.raises(tickets.TicketError, match="be passed to load_ticket in custom_objects"):
        load_ticket(tmp_path / "custom.ticket")
    loaded = load_ticket(tmp_path / "custom.ticket", custom_objects={"Doubled": Doubled}, masked=True)
    assert type(loaded.get_layer("doubled")) is Doubled


class Projected(keras.layers.Layer):
    """A block with a layer to mask."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.dense = keras.layers.Dense(units)

    def build(self, shape):
        self.dense.build(shape)

    def call(self, inputs):
        return self.dense(inputs)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def test_custom_classes_inside_of_others_are_masked_again(tmp_path):
    plain = keras.Sequential([keras.Input((2, 4)), keras.layers.TimeDistributed(Projected(3))])
    own = {"Projected": Projected}
    with keras.saving.custom_object_scope(own):
        save_ticket(mask_model(plain, k=0.5, seed=1), tmp_path / "custom.ticket")
    loaded = load_ticket(tmp_path / "custom.ticket", custom_objects=own, masked=True)
    assert len(keras_popup.conversion.masked_layers(loaded)) == 1


class Doubled(keras.layers.Layer):
    def call(self, inputs):
        return inputs * 2.0


def test_what_the_ticket_says_of_itself(tmp_path):
    model = mask_model(models.Conv2(width=0.1, input_shape=(8, 8, 3)), k={"conv1a": 0.3, "*": 0.5}, seed=1)
    path = tmp_path / "conv2.ticket"
    info = save_ticket(model, path, dataset="digits", metrics={"accuracy": np.float64(0.8765)}, notes={"by": ["me"]})
    assert info.made["dataset"] == "digits"
    assert info.made["notes"] == {"by": ["me"]}
    assert set(info.made["versions"]) >= {"keras-popup", "keras", "tensorflow", "numpy", "constriction"}
    text = str(info)
    row = info.layers[0]
    assert re.search(rf"conv1a +MaskedConv2D +{row.weights} +{row.kept} +0\.3 +{row.seed} ", text)
    assert f"File: {path.stat().st_size:,} bytes" in text
    assert "Metrics: accuracy 0.8765" in text
    assert info.weights == sum(row.weights for row in info.layers)
    assert f"{info.mask_bytes / info.limit_bytes:.1%}" in text


def test_same_model_same_bytes(tmp_path):
    for name in ("a", "b"):
        model = mask_model(models.Conv2(width=0.1, input_shape=(8, 8, 3)), k=0.5, seed=1)
        save_ticket(model, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_conv6_is_within_its_size(tmp_path):
    """Of masks of which nothing is known but k: trained ones take less."""
    model = mask_model(models.Conv6(), k=0.5, seed=1)
    rng = np.random.default_rng(1)
    for layer in model.layers:
        if hasattr(layer, "scores"):
            layer.scores.assign(rng.random(layer.scores.shape))
    info = save_ticket(model, tmp_path / "conv6.ticket")
    assert round(info.limit_bytes) == 282_639
    assert info.bytes < 282_639 + 3_000


def test_read_in_a_process_of_its_own(tmp_path):
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


def test_golden_ticket():
    """A file of version 1, written when that was new. If this fails, tickets that people have shared are lost."""
    expected = json.loads((GOLDEN / "digits-v1.json").read_text())
    info = tickets.verify_ticket(GOLDEN / "digits-v1.ticket")
    assert {row.path: row.kept for row in info.layers} == expected["kept"]
    from golden.make import weights_digest

    assert weights_digest(load_ticket(GOLDEN / "digits-v1.ticket")) == expected["weights"]


def test_a_reader_written_from_the_documentation():
    manifest, kernels = ticket_reader.read(GOLDEN / "digits-v1.ticket")
    model = load_ticket(GOLDEN / "digits-v1.ticket")
    assert [layer["config"]["name"] for layer in manifest["model"]["config"]["layers"][1:]] == [
        layer.name for layer in model.layers
    ]
    for name, kernel in kernels.items():
        np.testing.assert_array_equal(model.get_layer(name).kernel.numpy().ravel(), np.float32(kernel))
    for entry in manifest["tensors"]:
        store = {}
        model.get_layer(entry["layer"]).save_own_variables(store)
        values = ticket_reader.tensor(entry["data"], int(np.prod(entry["shape"])), entry["dtype"])
        np.testing.assert_array_equal(store[entry["name"]].numpy().ravel(), np.float32(values))


def test_the_documented_reader_reads_what_is_written_now(tmp_path):
    model = mask_model(models.Conv2(width=0.1, input_shape=(8, 8, 3)), k=0.3, seed=1)
    disturb(model)
    plain = strip_masks(model)
    save_ticket(model, tmp_path / "a.ticket")
    for name, kernel in ticket_reader.read(tmp_path / "a.ticket")[1].items():
        np.testing.assert_array_equal(plain.get_layer(name).kernel.numpy().ravel(), np.float32(kernel))


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
def test_wrong_arguments(argument, arguments, error, match, tmp_path):
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


def test_a_selector_must_know_its_scores(tmp_path):
    class First(keras_popup.selectors.Selector):
        def __call__(self, scores, k, training=False):
            return keras.ops.cast(keras.ops.arange(keras.ops.size(scores)) < 3, "float32")

    with pytest.raises(NotImplementedError, match="First must implement scores_for"):
        First().scores_for(np.zeros(3), np.zeros(3))


@pytest.mark.parametrize("name", SELECTORS)
@pytest.mark.parametrize("start", ["uniform", "zeros", "constant", "negative zeros"])
@pytest.mark.parametrize("kept", [1, 5, 96, 97])
def test_selectors_choose_a_mask_again(name, start, kept):
    rng = np.random.default_rng(kept)
    starts = {
        "uniform": rng.uniform(-0.1, 0.1, 97),
        "zeros": np.zeros(97),
        "constant": np.full(97, 0.1),
        "negative zeros": -np.zeros(97),
    }[start].astype(np.float32)
    mask = rng.permutation(np.arange(97) < kept).astype(np.uint8)
    selector = keras_popup.selectors.get(name)
    scores = selector.scores_for(mask, starts)
    assert scores.dtype == np.float32
    np.testing.assert_array_equal(selector(scores, kept / 97), mask)
