"""A masked kernel in a ticket: its seed, or its weights."""

import numpy as np
import pytest
from hostile_tickets import change
from supermasks import trained
from tables import INITIALIZERS, plain_model
from ticket_checks import disturb, round_trip

import keras_popup
from keras_popup import initializers, load_ticket, mask_model, models, tickets
from keras_popup.tickets import TicketError


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("name", INITIALIZERS)
def test_encode_kernel_of_every_initializer(name, scaled, tmp_path):
    initializer = keras_popup.initializers.get_filled(name, scaled=scaled)
    scores = keras_popup.initializers.get(name)
    model = mask_model(
        plain_model("time_distributed"), k=0.4, seed=3, kernel_initializer=initializer, scores_initializer=scores
    )
    assert round_trip(model, None, tmp_path / "model.ticket").layers[0].seed is not None


@pytest.mark.parametrize("kind", ["kernel_initializer", "scores_initializer"])
def test_encode_kernel_stores_values_without_a_seed(kind, tmp_path):
    model = mask_model(plain_model("time_distributed"), k=0.4, seed=3, **{kind: "glorot_uniform"})
    disturb(model)
    row = round_trip(model, None, tmp_path / "model.ticket").layers[0]
    assert (row.seed is None) == (kind == "kernel_initializer")
    assert row.other_bytes >= 4 * row.kept * (kind == "kernel_initializer")


def test_encode_kernel_stores_what_was_changed_by_hand(tmp_path):
    model = mask_model(models.FullyConnected(width=0.05, input_shape=(5, 5, 1)), k=0.5, seed=1)
    layer = model.get_layer("dense1")
    layer.frozen_kernel.assign(layer.frozen_kernel * 1.5)
    info = round_trip(model, np.ones((1, 5, 5, 1)), tmp_path / "model.ticket")
    assert [row.seed is None for row in info.layers] == [True, False, False]


def test_to_mask_arguments_refuses_a_k_that_keeps_nothing(original, tmp_path):
    path = tmp_path / "x.ticket"
    path.write_bytes(change(original[0], lambda manifest: manifest["masks"][0]["arguments"].update(k=1e-9)))
    with pytest.raises(TicketError, match="its masked layers cannot be made: k=1e-09 keeps none"):
        load_ticket(path, masked=True)


@pytest.mark.parametrize("kind", ["SignedConstant", "ScoreUniform"])
def test_decode_kernel_notices_a_changed_generator(original, kind, tmp_path, monkeypatch):
    path = tmp_path / "x.ticket"
    path.write_bytes(original[0])
    drawn = getattr(initializers, kind).values
    monkeypatch.setattr(getattr(initializers, kind), "values", lambda *arguments: drawn(*arguments)[::-1].copy())
    for use in (load_ticket, tickets.verify_ticket):
        with pytest.raises(TicketError, match=r"layer 'conv'.*numbers drawn from a seed have changed|mask of layer"):
            use(path)


@pytest.mark.parametrize("rescale", [False, True])
def test_encode_kernel_of_supermasks(tmp_path, rescale):
    """The file holds no weights, also if they are multiplied by n / kept; that comes back bit for bit."""
    model, inputs = trained(rescale)
    for layer in model.layers:
        assert not layer.frozen_kernel.trainable
    info = keras_popup.save_ticket(model, tmp_path / "a.ticket")
    assert [row.seed for row in info.layers] == [layer.seed for layer in model.layers]
    assert sum(row.other_bytes for row in info.layers) == 0
    plain = keras_popup.load_ticket(tmp_path / "a.ticket")
    stripped = keras_popup.strip_masks(model)
    assert all(map(np.array_equal, plain.get_weights(), stripped.get_weights()))
    assert np.array_equal(plain(inputs), model(inputs))
    masked = keras_popup.load_ticket(tmp_path / "a.ticket", masked=True)
    assert masked.layers[0].selector.rescale == rescale
    assert np.array_equal(masked(inputs), model(inputs))
