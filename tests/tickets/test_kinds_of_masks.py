"""Tickets of every selector and of kernels that were drawn anew: what comes back, what it costs, what is refused."""

import keras
import numpy as np
import pytest
from hostile_tickets import change
from tables import CHOOSING
from ticket_checks import disturb

import keras_popup
from keras_popup import load_ticket, mask_model, save_ticket
from keras_popup.callbacks import IterativeRandomization, Recycle
from keras_popup.tickets import TicketError, redraws

KERNELS = {"seed": "signed_constant", "normal": "kaiming_normal", "keras": keras.initializers.RandomNormal()}


def _network(selector, kernel_initializer="signed_constant"):
    stack = [
        keras.Input((6, 6, 4)),
        keras.layers.Conv2D(8, 3, name="conv"),
        keras.layers.Flatten(name="flatten"),
        keras.layers.Dense(12, name="classes"),
    ]
    model = mask_model(
        keras.Sequential(stack, name="small"), k=0.5, selector=selector, kernel_initializer=kernel_initializer, seed=1
    )
    disturb(model)
    return model


def _predict(model):
    return model.predict(np.random.default_rng(0).random((3, 6, 6, 4)).astype(np.float32), verbose=0)


@pytest.mark.parametrize("name", CHOOSING)
@pytest.mark.parametrize("kernels", KERNELS)
def test_ticket_of_every_selector_comes_back(name, kernels, tmp_path):
    model = _network(name, KERNELS[kernels])
    info = save_ticket(model, tmp_path / "a.ticket")
    assert all((row.seed is None) == (kernels == "keras") for row in info.layers)
    masked = load_ticket(tmp_path / "a.ticket", masked=True)
    for loaded in (load_ticket(tmp_path / "a.ticket"), masked):
        np.testing.assert_allclose(_predict(loaded), _predict(model), rtol=1e-6, atol=1e-6)
    for first, second in zip(keras_popup.masked_layers(model), keras_popup.masked_layers(masked), strict=True):
        np.testing.assert_array_equal(first.mask(), second.mask())
        assert (
            second.masked_kernels["kernel"].selector.get_config()
            == first.masked_kernels["kernel"].selector.get_config()
        )
    again = save_ticket(masked, tmp_path / "b.ticket")
    assert [row.mask_bytes for row in again.layers] == [row.mask_bytes for row in info.layers]


@pytest.mark.parametrize("name", CHOOSING)
def test_mask_summary_has_the_limit_of_every_selector(name, tmp_path):
    model = _network(name)
    summary = keras_popup.mask_summary(model, print_fn=lambda text: None)
    info = save_ticket(model, tmp_path / "a.ticket")
    # Of the planes of a small kernel the counts are known, which the selector cannot know.
    limit = sum(row.limit_bytes for row in info.layers)
    assert 0.95 * limit - 4 <= summary.entropy_bytes
    if name != "signed":  # whose signs here are mostly the same
        assert summary.entropy_bytes <= 1.05 * limit + 4
    assert summary.kept == sum(row.kept for row in info.layers)


@pytest.mark.parametrize("kernels", ["signed_constant", "kaiming_normal"])
def test_ticket_holds_what_was_recycled(kernels, tmp_path):
    model = _network("top_k", kernels)
    before = [layer.kernel.numpy() for layer in keras_popup.masked_layers(model)]
    _train(model, Recycle(every=2, rate=0.3))
    info = save_ticket(model, tmp_path / "a.ticket")
    for layer, old in zip(keras_popup.masked_layers(model), before, strict=True):
        assert (layer.kernel.numpy() != old).any()
    if kernels == "signed_constant":  # a turned sign takes at most one bit
        for row in info.layers:
            assert row.seed is not None
            assert 8 * (row.other_bytes - 8) <= row.kept * 1.1 + 8 * 60
    for loaded in (load_ticket(tmp_path / "a.ticket"), load_ticket(tmp_path / "a.ticket", masked=True)):
        np.testing.assert_array_equal(_predict(loaded), _predict(model))


@pytest.mark.parametrize("selector", ["top_k", "signed"])
@pytest.mark.parametrize("kernels", ["signed_constant", "kaiming_normal"])
def test_ticket_holds_what_was_drawn_anew(selector, kernels, tmp_path):
    model = _network(selector, kernels)
    before = [layer.kernel.numpy() for layer in keras_popup.masked_layers(model)]
    _train(model, IterativeRandomization(every=2, rate=0.5))
    info = save_ticket(model, tmp_path / "a.ticket")
    for layer, old in zip(keras_popup.masked_layers(model), before, strict=True):
        kernel = layer.masked_kernels["kernel"]
        assert 0.1 < np.mean(kernel.kernel.numpy() != old) < 0.9
    # A turned sign takes at most one bit; a number of a redraw more. Floats would take 16 times as much.
    for row in info.layers:
        assert row.seed is not None
        assert 8 * (row.other_bytes - 8) <= row.kept * (1.1 if kernels == "signed_constant" else 3) + 8 * 60
    masked = load_ticket(tmp_path / "a.ticket", masked=True)
    for loaded in (load_ticket(tmp_path / "a.ticket"), masked):
        np.testing.assert_array_equal(_predict(loaded), _predict(model))
    save_ticket(masked, tmp_path / "b.ticket")
    np.testing.assert_array_equal(_predict(load_ticket(tmp_path / "b.ticket")), _predict(model))


def _train(model, callback, epochs=3):
    rng = np.random.default_rng(1)
    model.compile(keras.optimizers.SGD(2.0), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x, y = rng.random((32, 6, 6, 4)).astype(np.float32), rng.integers(0, 12, 32)
    model.fit(x, y, batch_size=8, epochs=epochs, verbose=0, shuffle=False, callbacks=[callback])


def test_redraws_find_nothing_in_other_weights():
    initializer = keras_popup.initializers.KaimingNormal(seed=1)
    drawn = initializer.values((20, 30), (20, 30))
    other = np.random.default_rng(0).normal(size=(20, 30)).astype(np.float32)
    assert redraws.encode(initializer, drawn, other, np.ones((20, 30), bool), (20, 30)) is None


def _edit_coding(edit):
    def change_manifest(manifest):
        edit(manifest["masks"][0]["arguments"])

    return change_manifest


HOSTILE = {
    "levels": ("signed", lambda a: a["coding"].update(levels=["a"])),
    "many levels": ("signed", lambda a: a["coding"].update(levels=list(range(200)))),
    "other levels": ("signed", lambda a: a["coding"].update(levels=[-3, 0, 1])),
    "planes": ("signed", lambda a: a["coding"].update(planes=[[1, 2]])),
    "fewer planes": ("signed", lambda a: a["coding"]["planes"].pop()),
    "more planes": ("signed", lambda a: a["coding"]["planes"].append([0, 0, 0, 0])),
    "sizes": ("signed", lambda a: a["coding"]["planes"][0].__setitem__(0, 5)),
    "huge": ("signed", lambda a: a["coding"]["planes"][0].__setitem__(3, 2**62)),
    "unknown": ("signed", lambda a: a["coding"].update(rings=3)),
    "no planes": ("signed", lambda a: a.update(coding=[])),
    "axes": ("n_m", lambda a: a["coding"].update(axes=[[0], [9]])),
    "m": ("n_m", lambda a: a["coding"].update(m=0)),
    "n": ("n_m", lambda a: a["coding"].update(n=1)),
    "text": ("n_m", lambda a: a["coding"].update(m="4")),
    "block": ("block", lambda a: a["coding"].update(block=10**9)),
    "fixed": ("top_k:pruned=0.3:locked=0.25", lambda a: a["coding"].update(pruned=2)),
    "seed": ("top_k:pruned=0.3:locked=0.25", lambda a: a["coding"].update(seed=-1)),
    "other seed": ("top_k:pruned=0.3:locked=0.25", lambda a: a["coding"].update(seed=6)),
    "selector": ("multicoat", lambda a: a["selector"]["config"].update(coats=10**9)),
    "no selector": ("multicoat", lambda a: a.update(selector={})),
    "redraws": ("top_k", lambda a: a.update(redraws={"turned": True, "planes": [[3, 1, 0, 0]]})),
    "redraw numbers": ("top_k", lambda a: a.update(redraws={"numbers": [10**12], "planes": [[3, 1, 0, 0]]})),
    "redraws again": ("top_k", lambda a: a.update(redraws={"numbers": [1, 1], "planes": [[3, 1, 0, 0]] * 2})),
    "redraw text": ("top_k", lambda a: a.update(redraws="all")),
}


@pytest.mark.parametrize("case", HOSTILE)
@pytest.mark.parametrize("masked", [False, True])
def test_wrong_kinds_of_masks_are_errors(case, masked, tmp_path):
    name, edit = HOSTILE[case]
    path = tmp_path / "a.ticket"
    save_ticket(_network(name), path)
    path.write_bytes(change(path.read_bytes(), _edit_coding(edit)))
    with pytest.raises(TicketError):
        load_ticket(path, masked=masked)
