"""Keras's own tests of its layers, which are in its wheel, with masked layers in place of its layers.

A stand-in keeps all weights (k = 1) and has the defaults of the stock layer, so it must do what the stock layer does.
"""

import functools
import importlib.util
import inspect
from types import ModuleType
from typing import Any
from unittest import mock

import keras
import keras.src.testing
import pytest

from keras_popup import _keras
from keras_popup.layers import MASKED_LAYERS
from keras_popup.layers.composite import mask_layer, remember_parts
from keras_popup.layers.maskable import kernels_of
from keras_popup.layers.masked_kernel import KernelArguments
from keras_popup.layers.masked_layer import MaskArguments
from keras_popup.layers.tree import walk_parts

# Their cells, or the layers that they hold, are masked when they are built.
COMPOSITES = [
    *("Bidirectional", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D", "GRU", "GroupQueryAttention", "LSTM"),
    *("MultiHeadAttention", "RNN", "SimpleRNN", "StackedRNNCells", "TimeDistributed"),
]


_COUNTED = ("non_trainable_weights", "non_trainable_variables")


def make_constructed(masked: type) -> type:
    """Returns a class that makes masked layers with the defaults of the stock layer, and k = 1."""
    stock = next(plain for plain, other in MASKED_LAYERS.items() if other is masked)
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(stock.__init__).parameters.items()
        if name == "use_bias" or name.endswith("_initializer")
    }

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807  # of a class that is made below
        given = inspect.signature(stock.__init__).bind_partial(self, *args, **kwargs).arguments
        others = {name: default for name, default in defaults.items() if name not in {*given, *kwargs}}
        masked.__init__(self, *args, **{"k": 1.0, "seed": 1, **others, **kwargs})

    def set_weights(self: Any, weights: list[Any]) -> None:
        stock_weights = [kernel.kernel for kernel in self.masked_kernels.values()]
        stock_weights += [] if getattr(self, "bias", None) is None else [self.bias]
        if len(weights) != len(stock_weights):
            masked.set_weights(self, weights)
            return
        for variable, value in zip(stock_weights, weights, strict=True):  # what a stock layer has
            variable.assign(value)

    members: dict[str, Any] = {
        attribute: _make_variable_property(spec.name, getattr(masked, attribute))
        for spec in masked.kernel_specs
        for attribute in spec.attributes
    }
    members |= {"__init__": __init__, "set_weights": set_weights, "__module__": __name__}
    kind = type(stock.__name__, (masked,), members)
    return keras.saving.register_keras_serializable("keras_tests")(kind)


def _make_variable_property(name: str, of_kernel: Any) -> Any:
    """Returns an attribute that gives the variable of a kernel outside of calls, as Keras's tests write to it."""

    def read(self: Any) -> Any:
        kernel = self.masked_kernels.get(name)
        return of_kernel.fget(self) if kernel is None or _keras.call_context() is not None else kernel.kernel

    return type(of_kernel)(read, of_kernel.fset)


def make_composite(stock: Any) -> type:
    """Returns a class like a stock class, whose layers mask all that they hold when they are built."""

    @functools.wraps(stock.build)
    def build(self: Any, *args: Any, **kwargs: Any) -> None:
        stock.build(self, *args, **kwargs)
        for _, part in list(walk_parts(self)):
            if part.built and (specs := kernels_of(part)):
                arguments = KernelArguments.fill(1.0, 1, "top_k")
                mask_layer(part, MaskArguments({spec.name: arguments for spec in specs}))
        remember_parts(self)

    kind = type(stock.__name__, (stock,), {"build": build, "__module__": __name__})
    return keras.saving.register_keras_serializable("keras_tests")(kind)


class TestCase(keras.src.testing.TestCase):
    """Keras's test case. Where it counts weights, the frozen kernels and the `k` of masks do not count."""

    estimated: tuple[str, ...] = ()

    def run_layer_test(self, *args: Any, **kwargs: Any) -> None:
        # What a test does not expect, Keras counts in a layer: with the masks.
        messages = {f"Unexpected number of {name}": kwargs.get(f"expected_num_{name}") for name in _COUNTED}
        self.estimated = tuple(message for message, count in messages.items() if count is None)
        super().run_layer_test(*args, **kwargs)
        self.estimated = ()

    def assertLen(self, actual: Any, desired: int, msg: str | None = None) -> None:  # noqa: N802  # Keras's name
        of_masks = 0 if msg in self.estimated else 2 * sum(getattr(each, "name", "") == "k" for each in actual)
        assert len(actual) - of_masks == desired, msg


class Changed(ModuleType):
    """A module with other values for some of its names."""

    def __init__(self, module: ModuleType, **values: Any) -> None:
        super().__init__(module.__name__)
        self._module = module
        vars(self).update(values)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


@functools.cache
def stand_ins() -> dict[str, type]:
    """Returns the stand-ins by the names of Keras's layers."""
    constructed = {stock.__name__: make_constructed(masked) for stock, masked in MASKED_LAYERS.items()}
    return {**constructed, **{name: make_composite(getattr(keras.layers, name)) for name in COMPOSITES}}


def load_tests(name: str) -> list[type]:
    """Returns the test classes of a module of Keras's tests, such as "core.dense_test", with the stand-ins.

    Skips the tests where Keras came without its tests.
    """
    spec = importlib.util.find_spec(f"keras.src.layers.{name}")
    if spec is None or spec.loader is None:
        pytest.skip(f"this Keras ({keras.__version__}) came without keras.src.layers.{name}", allow_module_level=True)
    module = importlib.util.module_from_spec(spec)
    layers = Changed(keras.src.layers, **stand_ins())
    testing = Changed(keras.src.testing, TestCase=TestCase)
    with (
        mock.patch.object(keras.src, "layers", layers),
        mock.patch.object(keras.src, "testing", testing),
        mock.patch.object(keras.src.testing.test_case, "TestCase", TestCase),
    ):
        spec.loader.exec_module(module)
    cases = [each for each in vars(module).values() if isinstance(each, type) and issubclass(each, TestCase)]
    assert cases, f"no tests were found in {name}"
    return cases
