"""The masked kernel at inference: chosen once, and again only when scores, kernel or k have changed."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from keras_popup import _keras


class _Kept(NamedTuple):
    values: tuple[tf.Tensor, ...]  # held, so that the addresses mean something
    addresses: tuple[int, ...]
    masked: tf.Tensor


class RememberedKernel:
    """A masked kernel that is kept between calls at inference.

    Whether it is still right is seen from the memory of the variables it was made from. So it does not matter who
    changes them: an optimizer, `set_weights`, or an operation on the variable itself.

    Args:
        make: function that takes a dtype and returns the masked kernel, from the values that the variables have now.
        variables: the Keras variables that the masked kernel depends on.

    Attributes:
        list_more: function that returns more such variables, which may not be there yet.
    """

    def __init__(self, make: Callable[[str], tf.Tensor], variables: list[Any]) -> None:
        self._make, self._variables = make, variables
        self._shape = tuple(variables[0].shape)
        self._kept: dict[str, _Kept] = {}
        self.list_more: Callable[[], list[Any]] = list

    def read(self, dtype: str) -> tf.Tensor | None:
        """Returns the masked kernel for inference, or None where it must be chosen in the call itself.

        That is so if a gradient may be wanted, on several devices, on a GPU, and in functions that TensorFlow may store
        or call without Python.
        """
        if tf.distribute.has_strategy() or _keras.is_stateless() or _keras.is_recorded() or not self._is_on_cpu:
            return None
        if tf.executing_eagerly():
            return self._refresh(dtype)
        spec = tf.TensorSpec(self._shape, dtype)
        return _keras.read_at_each_call(lambda: self._refresh(dtype), spec, key=(id(self), dtype))

    def forget(self) -> None:
        """Gives the memory back."""
        self._kept.clear()

    @functools.cached_property
    def _is_on_cpu(self) -> bool:
        return "CPU" in str(self._variables[0].value.device)

    def _refresh(self, dtype: str) -> tf.Tensor:
        values, addresses = zip(*map(_keras.read_memory, [*self._variables, *self.list_more()]), strict=True)
        if (kept := self._kept.get(dtype)) is not None and kept.addresses == addresses:
            return kept.masked
        masked = self._make(dtype)
        self._kept[dtype] = _Kept(values, addresses, masked)
        return masked
