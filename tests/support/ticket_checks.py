"""What a ticket promises of a model, and weights that no initializer makes."""

import keras
import numpy as np

from keras_popup import load_ticket, save_ticket, strip_masks, tickets
from keras_popup.layers import tree


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


def disturb(model, seed=5):
    """Gives a model weights that no initializer makes, and masks that are not those of the start."""
    rng = np.random.default_rng(seed)
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
