"""The layer classes that can be masked, with their kernels and their masked classes."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator
from types import CodeType
from typing import Any

import keras

from keras_popup.layers.masked_kernel import KernelSpec
from keras_popup.layers.masked_layer import MaskedLayer, stock_of

# The kernels of each stock class that can be masked.
_MASKABLE: dict[type, tuple[KernelSpec, ...]] = {}

# The masked class of a stock class, if it is written out. `masked_class` creates the others.
_MASKED_CLASSES: dict[type, type] = {}


def define_maskable(stock: type, kernels: tuple[KernelSpec, ...], masked: type | None = None) -> None:
    """Registers a stock class that can be masked, its kernels, and its masked class if it has one."""
    _MASKABLE[stock] = kernels
    if masked is not None:
        _MASKED_CLASSES[stock] = masked


def register_maskable(layer_class: type, kernels: Any, fans: Any = None) -> type:
    """Tells `mask_model` that your own layer class has kernels that can be masked.

    The code of the class stays the same. When it reads one of these attributes of a masked layer, it gets the masked
    kernel. A second call replaces the first. Before you load a masked model, import the module that makes this call.

    Args:
        layer_class: subclass of `keras.layers.Layer`.
        kernels: names of the attributes that hold the kernels. Each kernel is a variable of a float dtype.
        fans: function that takes (attribute, shape) and returns (fan_in, fan_out) of a kernel. They scale the initial
            scores and random kernels. None computes them from the shape, as for a dense or convolution kernel.

    Returns:
        `layer_class`.

    Raises:
        TypeError: if `layer_class` is not a subclass of `keras.layers.Layer`.
        ValueError: if `kernels` is empty or has an item that is not a name.

    Example:

    >>> import keras, numpy as np, keras_popup
    >>> class Scale(keras.layers.Layer):
    ...     def build(self, shape):
    ...         self.w = self.add_weight(shape=(shape[-1], 3))
    ...     def call(self, x):
    ...         return x @ self.w
    >>> _ = keras_popup.register_maskable(Scale, kernels=("w",))
    >>> model = keras.Sequential([keras.Input((4,)), Scale()])
    >>> keras_popup.mask_model(model, k=0.5, seed=1).layers[0].masked_kernels["w"].kept
    6
    """
    if not (isinstance(layer_class, type) and issubclass(layer_class, keras.layers.Layer)):
        raise TypeError(f"`layer_class` must be a subclass of keras.layers.Layer. Received: {layer_class!r}.")
    names = (kernels,) if isinstance(kernels, str) else tuple(kernels)
    if not names or not all(isinstance(name, str) and name.isidentifier() for name in names):
        raise ValueError(f"`kernels` must be names of attributes, such as ('w',). Received: {kernels!r}.")
    specs = [KernelSpec(name) for name in names]
    if fans is not None:
        specs = [dataclasses.replace(spec, fans=_bind_name(fans, spec.name)) for spec in specs]
    define_maskable(layer_class, tuple(specs))
    masked_class.cache_clear()
    return layer_class


def _bind_name(fans: Any, name: str) -> Callable[[Any, tuple[int, ...]], tuple[int, int]]:
    """Returns a `fans` function of a `KernelSpec` from the `fans` of a user."""
    return lambda layer, shape: fans(name, shape)


def kernels_of(layer: Any) -> tuple[KernelSpec, ...]:
    """Returns the kernels of a plain layer that can be masked: none for a masked layer, or for other classes."""
    if isinstance(layer, MaskedLayer):
        return ()
    return tuple(spec for spec in _find_specs(stock_of(layer)) if spec.is_there(layer))


def _find_specs(kind: type) -> tuple[KernelSpec, ...]:
    base = maskable_base(kind)
    return () if base is None or overridden(kind, base) else _MASKABLE[base]


def maskable_base(kind: type) -> type | None:
    """Returns the first class in the method resolution order of `kind` that can be masked, or None."""
    return next((base for base in kind.__mro__ if base in _MASKABLE), None)


def overridden(kind: type, base: type) -> list[str]:
    """Returns the names that a subclass overrides and by which the maskable class `base` makes or reads a kernel."""
    attributes = {attribute for spec in _MASKABLE[base] for attribute in spec.attributes}
    kernel_names = {"call", "build", "__call__", "add_weight", *attributes}
    for name, code in _list_functions(base.__mro__):
        if attributes & set(code.co_names):
            kernel_names.add(name)
    subclasses = kind.__mro__[: kind.__mro__.index(base)]
    return sorted({name for subclass in subclasses for name in vars(subclass) if name in kernel_names})


def _list_functions(classes: Iterable[type]) -> Iterator[tuple[str, CodeType]]:
    """Yields (name, code) of the methods and properties that the classes define."""
    for kind in classes:
        if kind is not object:
            for name, value in vars(kind).items():
                function = value.fget if isinstance(value, property) else value
                if code := getattr(function, "__code__", None):
                    yield name, code


def is_constructed(kind: type) -> bool:
    """Tells whether a masked class is one of those that users can construct by hand."""
    return kind in _MASKED_CLASSES.values()


@functools.cache
def masked_class(kind: type) -> type:
    """Returns the masked class of a stock class. Creates it if it is not written out."""
    if kind in _MASKED_CLASSES:
        return _MASKED_CLASSES[kind]
    members = {"__module__": __name__, "__doc__": kind.__doc__, "kernel_specs": _find_specs(kind)}
    return type(f"Masked{kind.__name__}", (MaskedLayer, kind), members)
