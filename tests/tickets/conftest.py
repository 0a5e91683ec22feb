"""A ticket to read, damage and change."""

import keras
import numpy as np
import pytest
from hostile_tickets import small_network, weights_of

from keras_popup import save_ticket, strip_masks


@pytest.fixture(scope="session")
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
