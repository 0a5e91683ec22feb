"""Masked layers made by hand: their arguments and their help."""

import inspect

import pytest

import keras_popup
from keras_popup import layers


def test_constructed_refuses_quantized_dtypes():
    with pytest.raises(ValueError, match="LoRA and quantized dtypes"):
        layers.MaskedDense(3, dtype="int8_from_float32")


def test_constructed_leaves_the_help_of_a_subclass_alone():
    class Mine(layers.MaskedDense):
        def __init__(self, size, **kwargs):
            super().__init__(size, **kwargs)

    assert list(inspect.signature(Mine).parameters) == ["size", "kwargs"]
    assert Mine(3, k=0.2).k == 0.2


def test_constructed_takes_stock_arguments_by_position():
    layer = layers.MaskedDense(3, "relu", True, "kaiming_normal", k=0.3)
    assert layer.use_bias
    assert isinstance(layer.kernel_initializer, keras_popup.initializers.KaimingNormal)
    with pytest.raises(TypeError, match="multiple values"):
        layers.MaskedDense(3, units=4)
    with pytest.raises(ValueError, match="unknown"):
        layers.MaskedDense(3, unknown=4)


@pytest.mark.parametrize("masked", layers.MASKED_LAYERS.values(), ids=lambda c: c.__name__)
def test_constructed_shows_all_arguments_in_its_help(masked):
    parameters = inspect.signature(masked).parameters
    assert {"k", "selector", "scores_initializer", "scores_regularizer", "seed"} <= parameters.keys()
    assert parameters[f"{masked.kernel_specs[0].argument}_initializer"].default == "signed_constant"
    assert "fraction of the kernel's weights" in masked.__doc__
