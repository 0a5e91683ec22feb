"""Tickets relative to a base: what the base has is not in the file."""

import dataclasses
import json

import keras
import numpy as np
import pytest
from based_tasks import X, assert_equal, network, randomize, task_of
from command_line import run

import keras_popup
from keras_popup import TicketError
from keras_popup.tickets import file_format


@pytest.fixture(scope="module")
def base():
    return randomize(network("classes", 10))


@pytest.mark.parametrize("prefix", ["", "my_"], ids=["same_names", "other_names"])
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"scores_initializer": "magnitude", "k": 0.2},
        {"selector": "bernoulli"},
        {"selector": keras_popup.selectors.Bernoulli(rescale=True)},
        {"train_norms": True, "train_biases": True},
    ],
    ids=["top_k", "magnitude", "bernoulli", "rescaled", "trained_norms"],
)
def test_ticket_with_a_base_holds_what_differs(base, prefix, arguments, tmp_path):
    masked = task_of(base, prefix, **arguments)
    whole = keras_popup.save_ticket(masked, tmp_path / "whole.ticket")
    info = keras_popup.save_ticket(masked, tmp_path / "task.ticket", base=base)
    others = info.tensor_bytes + sum(row.other_bytes for row in info.layers)
    assert info.bytes <= info.limit_bytes + others + 2048
    assert info.bytes < whole.bytes / 5
    assert others < 4000  # the head, and statistics that have moved
    assert info.base == "base"
    assert keras_popup.ticket_info(tmp_path / "task.ticket").base == "base"
    assert " Needs the base: base\n" in str(info)
    assert "in the base" in str(info)
    base.save(tmp_path / "base.keras")
    plain = keras_popup.strip_masks(masked)
    for given in (base, tmp_path / "base.keras", str(tmp_path / "base.keras")):
        assert_equal(keras_popup.load_ticket(tmp_path / "task.ticket", base=given), plain)
    again = keras_popup.load_ticket(tmp_path / "task.ticket", masked=True, base=base)
    np.testing.assert_allclose(again(X), masked(X), rtol=1e-5, atol=1e-5)
    name = f"{prefix}hidden"
    np.testing.assert_array_equal(again.get_layer(name).frozen_kernel.numpy(), base.get_layer("hidden").kernel.numpy())
    keras_popup.verify_ticket(tmp_path / "task.ticket", base=base)


def test_ticket_with_a_base_of_the_same_start_is_smaller(base, tmp_path):
    """The mask that magnitude pruning gives takes hardly any bits: the reader has the weights."""
    task = network()
    for layer in task.layers[:-1]:
        if layer.weights:
            layer.set_weights(base.get_layer(layer.name).get_weights())
    arguments = {"weights": "keep", "k": 0.3, "exclude": "head", "scores_initializer": "magnitude", "seed": 1}
    info = keras_popup.save_ticket(keras_popup.mask_model(task, **arguments), tmp_path / "a.ticket", base=base)
    assert info.mask_bytes < 0.05 * info.limit_bytes


@pytest.mark.parametrize("load", [keras_popup.load_ticket, keras_popup.verify_ticket], ids=["load", "verify"])
def test_ticket_with_a_base_refuses_another(base, load, tmp_path):
    path = tmp_path / "task.ticket"
    keras_popup.save_ticket(task_of(base), path, base=base)
    with pytest.raises(TicketError, match="holds only what differs from a base model. Pass that model"):
        load(path)
    other = keras.models.clone_model(base)
    other.set_weights(base.get_weights())
    load(path, base=other)
    kernel = other.get_layer("hidden").kernel
    kernel.assign(np.where(np.arange(64) == 5, np.nextafter(kernel.numpy(), 9), kernel.numpy()))
    with pytest.raises(TicketError, match="the base 'base' is not the one.*the kernel of layer 'hidden' of shape"):
        load(path, base=other)
    with pytest.raises(ValueError, match="The base 'base' has masks"):
        load(path, base=keras_popup.mask_model(base, seed=1))
    with pytest.raises(TypeError, match="`base` must be a keras.Model or the path"):
        load(path, base=3)


def test_ticket_without_a_base_loads_with_one_too(base, tmp_path):
    masked = task_of(base)
    keras_popup.save_ticket(masked, tmp_path / "a.ticket")
    assert_equal(keras_popup.load_ticket(tmp_path / "a.ticket", base=base), keras_popup.strip_masks(masked))


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "float16"])
def test_ticket_with_a_base_of_other_dtypes(dtype, tmp_path):
    base = randomize(network("classes", 10, dtype=dtype))
    masked = keras_popup.mask_model(base, weights="keep", k=0.5, seed=1)
    info = keras_popup.save_ticket(masked, tmp_path / "a.ticket", base=base)
    assert info.bytes < 12_000
    assert_equal(keras_popup.load_ticket(tmp_path / "a.ticket", base=base), keras_popup.strip_masks(masked))


@pytest.mark.parametrize(
    "value",
    [
        3,
        {},
        {"name": 3, "tensors": []},
        {"name": "base"},
        {"name": "base", "tensors": [["conv", "1"]]},
        {"name": "base", "tensors": [["conv", "1", [-4], "float32", "00"]]},
        {"name": "base", "tensors": [["conv", "1", [4], "object", "00"]]},
        {"name": "base", "tensors": [["conv", "1", [2] * 50, "float32", "00"]]},
        {"name": "base", "tensors": [["conv\n", "1", [4], "float32", "00"]]},
        {"name": "base", "tensors": [["conv", "99", [4], "float32", "00"]]},
        {"name": "base", "tensors": []},
        {"name": "base", "tensors": [["conv", "1", [16], "float32", "0" * 16]]},
    ],
    ids=json.dumps,
)
def test_load_ticket_refuses_wrong_descriptions_of_a_base(base, value, tmp_path):
    path = tmp_path / "task.ticket"
    keras_popup.save_ticket(task_of(base), path, base=base)
    ticket = file_format.read(path, file_format.MAX_BYTES)

    class Wrong:
        def to_json(self):
            return value

    path.write_bytes(file_format.to_bytes(dataclasses.replace(ticket, base=Wrong())))
    with pytest.raises(TicketError):
        keras_popup.load_ticket(path, base=base)


def test_ticket_commands_take_a_base(base, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    masked = task_of(base)
    base.save("base.keras")
    masked.save("task.keras")
    status, out, err = run(capsys, "ticket", "pack", "task.keras", "--base", "base.keras")
    assert status == 0, err
    assert "Needs the base: base" in out
    assert run(capsys, "ticket", "verify", "task.ticket", "--base", "base.keras")[0] == 0
    status, _, err = run(capsys, "ticket", "verify", "task.ticket")
    assert status == 1
    assert "Pass that model, or its .keras file, as `base`" in err
    assert run(capsys, "ticket", "unpack", "task.ticket", "--base", "base.keras", "--out", "plain.keras")[0] == 0
    assert_equal(keras.models.load_model("plain.keras"), keras_popup.strip_masks(masked))
    status, _, err = run(capsys, "ticket", "pack", "task.keras", "--base", "nowhere.keras", "--overwrite")
    assert status == 2
    assert "--base must be a .keras file, or the folder of a finished run. Received: 'nowhere.keras'" in err
