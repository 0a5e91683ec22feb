"""What Keras cannot train on several devices."""

import pytest
import tensorflow as tf

import keras_popup
import keras_popup.layers
from keras_popup.layers import strategy_checks


def test_check_strategy_refuses_devices_that_are_not_there():
    with (
        tf.distribute.MirroredStrategy(["CPU:0", "CPU:63"]).scope(),
        pytest.raises(ValueError, match="do not exist: CPU:63"),
    ):
        keras_popup.layers.MaskedDense(3, seed=1).build((None, 4))


def test_check_strategy_refuses_parameter_servers(monkeypatch):
    monkeypatch.setattr(tf.distribute, "get_strategy", lambda: object.__new__(tf.distribute.ParameterServerStrategy))
    with pytest.raises(ValueError, match="cannot train with parameter servers"):
        strategy_checks.check_strategy()
