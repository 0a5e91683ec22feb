"""Small XLA programs for what a selector does with scores, and doing it without one where it is done once."""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Hashable, Iterator
from typing import Any

import tensorflow as tf

_interpreting = contextvars.ContextVar("interpreting", default=False)


def compile_once(function: Callable[..., Any], *key: Hashable) -> Callable[..., Any]:
    """Returns `function` as a small XLA program, which may run inside a graph that is not compiled.

    Args:
        function: a function of tensors at the top of a module.
        key: what the program depends on, such as shapes: each gets its own. One tf.function for all would
            trace anew for every layer.
    """
    return function if _interpreting.get() else compile_always(function, *key)


@functools.cache
def compile_always(function: Callable[..., Any], *key: Hashable) -> Callable[..., Any]:
    """Returns `function` as `compiled` does, inside `interpreted` too."""
    # TensorFlow counts traces, to warn of many, by the code of the function; a partial object has none.
    return tf.function(functools.partial(function), jit_compile=True, autograph=False)


@contextlib.contextmanager
def without_compiling() -> Iterator[None]:
    """Has eager choices made without a program, of top-k by NumPy: slower in the long run, but nothing is compiled."""
    token = _interpreting.set(True)
    try:
        yield
    finally:
        _interpreting.reset(token)


def use_numpy() -> bool:
    """Tells whether to choose by NumPy, here and now."""
    return _interpreting.get() and tf.executing_eagerly()


def static_size(tensor: tf.Tensor) -> int:
    """Returns the static number of elements, which every weight of a layer has.

    Raises:
        ValueError: if the shape is not fully known, is empty or has 2**31 elements or more.
    """
    size = tensor.shape.num_elements()
    if size is None or not 0 < size < 2**31:
        raise ValueError(
            "Scores must have a fully known shape of 1 to 2**31 - 1 elements. "
            f"Received: shape={tensor.shape}. Split the layer or give its input shape."
        )
    return int(size)
