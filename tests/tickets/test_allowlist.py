"""What the architecture of a ticket may name."""

import keras
import numpy as np
import pytest
from hostile_tickets import change
from keras.src.applications.convnext import LayerScale

from keras_popup import load_ticket, mask_model, save_ticket, tickets
from keras_popup.tickets import TicketError


def test_check_asks_for_functions_that_are_not_registered(tmp_path):
    with keras.saving.custom_object_scope({"loud": loud}):
        model = mask_model(keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation=loud)]), k=0.5, seed=1)
        save_ticket(model, tmp_path / "x.ticket")
    with pytest.raises(tickets.TicketError, match=r"builtins\.loud, which a ticket may not name\. Your own"):
        load_ticket(tmp_path / "x.ticket")
    loaded = load_ticket(tmp_path / "x.ticket", custom_objects={"loud": loud})
    np.testing.assert_array_equal(loaded(np.ones((1, 4))), model(np.ones((1, 4))))


def loud(x):
    return x * 3.0


def test_check_allows_layers_that_keras_has_for_itself(tmp_path):
    inputs = keras.Input((4,))
    small = keras.Model(inputs, keras.layers.Dense(3)(LayerScale(0.5, 4)(inputs)))
    save_ticket(mask_model(small, k=0.5, seed=1), tmp_path / "x.ticket")
    load_ticket(tmp_path / "x.ticket")


def test_check_refuses_layers_of_this_library(original, tmp_path):
    layer = {"module": None, "class_name": "MaskedDense", "registered_name": "keras_popup>MaskedDense", "config": {}}
    path = tmp_path / "x.ticket"
    path.write_bytes(change(original[0], lambda manifest: manifest["model"]["config"]["layers"].insert(1, layer)))
    with pytest.raises(TicketError, match="names None.MaskedDense, which a ticket may not name"):
        load_ticket(path)
