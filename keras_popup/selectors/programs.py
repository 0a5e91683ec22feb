"""How a choice runs: by TensorFlow's operations, traced once; as an XLA program; or by NumPy, where it is done once."""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Hashable, Iterator
from typing import Any

import tensorflow as tf

from keras_popup import _keras

_interpreting = contextvars.ContextVar("interpreting", default=False)


def trace_once(function: Callable[..., Any], *static: Hashable) -> Callable[..., Any]:
    """Returns a function of flat tensors as it is best run here, traced once for all kernels.

    On a CPU these are TensorFlow's own operations, which need no compiling, in one trace for all sizes. On a GPU, where
    each operation would read and write all weights anew, it is one XLA program for each size. In a function that is
    compiled as a whole (`jit_compile=True`) it becomes a part of that.

    Args:
        function: a function at the top of a module, of `static` and of tensors of shape () or (n,).
        static: its first arguments, which are no tensors.
    """
    if _interpreting.get():
        return functools.partial(function, *static)

    def call(*tensors: tf.Tensor) -> Any:
        if is_compiling():
            return _compile(function, static, tensors[0].shape)(*tensors)
        specs = tuple(tf.TensorSpec([None] * tensor.shape.rank, tensor.dtype) for tensor in tensors)
        return _trace(function, static, specs)(*tensors)

    return call


def compile_always(function: Callable[..., Any], *static: Hashable) -> Callable[..., Any]:
    """Returns a function of tensors as an XLA program, which may run inside a graph that is not compiled."""
    return lambda *tensors: _compile(function, static, tensors[0].shape)(*tensors)


# As many as a large network has shapes of kernels, for selectors whose choice depends on the shape.
@functools.lru_cache(maxsize=256)
def _trace(function: Callable[..., Any], static: tuple[Hashable, ...], specs: tuple[tf.TensorSpec, ...]) -> Any:
    # Inlined, the operations of all kernels would be optimized one by one, which takes longer than all the rest.
    traced = tf.function(
        functools.partial(function, *static), autograph=False, experimental_attributes={"_noinline": True}
    )
    with tf.init_scope():
        return traced.get_concrete_function(*specs)


# As many as a large network has kernel sizes, for both directions. Those of networks that are gone leave.
@functools.lru_cache(maxsize=128)
def _compile(function: Callable[..., Any], static: tuple[Hashable, ...], shape: tf.TensorShape) -> Any:
    # One function for all shapes would trace anew for every layer. TensorFlow counts traces, to warn of many, by the
    # code of the function; a partial object has none.
    return tf.function(functools.partial(function, *static), jit_compile=True, autograph=False)


def uses_gpu() -> bool:
    """Tells whether TensorFlow has a GPU to run on."""
    return bool(tf.config.get_visible_devices("GPU"))


def is_compiling() -> bool:
    """Tells whether a function is being traced that XLA compiles as a whole: then shapes must be known."""
    return uses_gpu() or _keras.is_traced_for_xla()


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
