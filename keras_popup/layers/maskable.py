"""Which layer classes can be masked: the kernels of each, and its masked class."""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import keras

from keras_popup.layers.masked_kernel import KernelSpec
from keras_popup.layers.masked_layer import MaskedLayer, stock_of

# Which classes can be masked: the kernels of each, and its masked class where that is not made for the purpose.
_MASKABLE: dict[type, tuple[KernelSpec, ...]] = {}


_MASKED_CLASSES: dict[type, type] = {}


def define_maskable(stock: type, kernels: tuple[KernelSpec, ...], masked: type | None = None) -> None:
    """Adds a class to those that can be masked."""
    _MASKABLE[stock] = kernels
    if masked is not None:
        _MASKED_CLASSES[stock] = masked


def register_maskable(layer_class: type, kernels: Any, fans: Any = None) -> type:
    """Tells `mask_model` that a layer class of your own has kernels that can be masked.

    Its code is not changed: wherever it reads one of these attributes, it gets the masked kernel. Can be called again,
    to change what was said. Import the module that says it before you load a masked model.

    Args:
        layer_class: subclass of `keras.layers.Layer`.
        kernels: names of the attributes that hold the kernels, each one variable of a float type.
        fans: function of (attribute, shape) that returns (fan_in, fan_out) of a kernel, from which the initial
            scores and random kernels follow. None takes them from the shape as for a dense or convolution kernel.

    Returns:
        `layer_class`.

    Raises:
        TypeError: if `layer_class` is no class of layers.
        ValueError: if `kernels` is empty or holds something else than names.

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
        specs = [dataclasses.replace(spec, fans=_fans_of_name(fans, spec.name)) for spec in specs]
    define_maskable(layer_class, tuple(specs))
    masked_class.cache_clear()
    return layer_class


def _fans_of_name(fans: Any, name: str) -> Any:
    return lambda layer, shape: fans(name, shape)


def kernels_of(layer: Any) -> tuple[KernelSpec, ...]:
    """Returns the kernels of a plain layer that can be masked: none if it is left alone."""
    if isinstance(layer, MaskedLayer):
        return ()
    return tuple(spec for spec in _specs(stock_of(layer)) if spec.is_there(layer))


def _specs(kind: type) -> tuple[KernelSpec, ...]:
    base = next((base for base in kind.__mro__ if base in _MASKABLE), None)
    return () if base is None or overridden(kind, base) else _MASKABLE[base]


def maskable_base(kind: type) -> type | None:
    """Returns the nearest class of a class's own or its bases' that can be masked."""
    return next((base for base in kind.__mro__ if base in _MASKABLE), None)


def overridden(kind: type, base: type) -> list[str]:
    """Returns what a subclass overrides of what comes to the kernel in a class that can be masked."""
    attributes = {attribute for spec in _MASKABLE[base] for attribute in spec.attributes}
    reads = {"call", "build", "__call__", "add_weight", *attributes}
    for name, code in _functions(base.__mro__):
        if attributes & set(code.co_names):
            reads.add(name)
    own = kind.__mro__[: kind.__mro__.index(base)]
    return sorted({name for each in own for name in vars(each) if name in reads})


def _functions(classes: Any) -> Iterator[tuple[str, Any]]:
    for each in classes:
        if each is not object:
            for name, value in vars(each).items():
                function = value.fget if isinstance(value, property) else value
                if code := getattr(function, "__code__", None):
                    yield name, code


def is_constructed(kind: type) -> bool:
    """Tells whether a masked class has a constructor and a config of its own."""
    return kind in _MASKED_CLASSES.values()


@functools.cache
def masked_class(kind: type) -> type:
    """Returns the masked class of a class that can be masked, made for the purpose if there is none."""
    if kind in _MASKED_CLASSES:
        return _MASKED_CLASSES[kind]
    members = {"__module__": __name__, "__doc__": kind.__doc__, "kernel_specs": _specs(kind)}
    return type(f"Masked{kind.__name__}", (MaskedLayer, kind), members)
