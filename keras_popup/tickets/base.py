"""The base of a ticket: a model whose weights the ticket does not repeat.

Weights are recognized by their values, shape and dtype, never by a name. So a base may have other layers, names and a
head of its own, and any other base is noticed.
"""

import os
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from keras_popup import conversion
from keras_popup.tickets import architecture, file_format
from keras_popup.tickets.file_format import BaseTensor, TicketError

LEAST_BYTES = 64
"""The size from which a weight is taken from a base. Smaller ones take less in a file than their checksums."""

_Key = tuple[tuple[int, ...], str, str]


def load_base(path: str | os.PathLike[str]) -> keras.Model:
    """Loads the .keras file of a base.

    Raises:
        OSError: if there is no such file.
        ValueError: if it is another file, or damaged.
    """
    with open(path, "rb") as file:
        good = zipfile.is_zipfile(file)
    if not good:
        raise ValueError(f"The base must be a .keras file. '{os.fspath(path)}' is none, or is damaged.")
    return keras.models.load_model(Path(path))


class Base:
    """The weights of a base model, by their shapes, dtypes and values.

    They are those that the model has now, also if it is trained later.

    Args:
        model: a plain, built `keras.Model`, or the path of a `.keras` file.

    Raises:
        TypeError: if `model` is neither.
        ValueError: if the model has masks or no weights, or if the file is not a .keras file.
    """

    def __init__(self, model: Any) -> None:
        if isinstance(model, (str, os.PathLike)):
            model = load_base(model)
        if not isinstance(model, keras.Model):
            raise TypeError(f"`base` must be a keras.Model or the path of a .keras file. Received: {model!r}.")
        if conversion.masked_layers(model):
            raise ValueError(f"The base '{model.name}' has masks. Pass the plain model: strip_masks, or the original.")
        if not model.weights:
            raise ValueError(f"The base '{model.name}' has no weights. Build it first: call it, or give it an Input.")
        self.name, self.model = str(model.name), model
        self._tensors: dict[_Key, tf.Tensor] = {}
        for _, layer in architecture.list_layers(model):
            for value in architecture.collect_variables(layer).values():
                array = np.asarray(value)
                if array.nbytes >= LEAST_BYTES and array.dtype.name in file_format.DTYPES:
                    key = tuple(array.shape), array.dtype.name, file_format.checksum(array)
                    # Shares the memory of the variable. When the variable is written to, it takes other memory.
                    self._tensors[key] = tf.convert_to_tensor(value)

    def find(self, array: NDArray[Any]) -> str | None:
        """Returns the checksum of an array that the base has, or None."""
        if array.nbytes < LEAST_BYTES:
            return None
        check = file_format.checksum(array)
        return check if (tuple(array.shape), array.dtype.name, check) in self._tensors else None

    def has_weights_of(self, other: "Base") -> bool:
        """Tells whether another base has no weights that this one does not have."""
        return other._tensors.keys() <= self._tensors.keys()

    def take(self, path: str, variables: dict[str, Any]) -> list[BaseTensor]:
        """Removes the weights that the base has from the variables of the layer at a path, and returns them."""
        taken = []
        for name, value in list(variables.items()):
            array = np.asarray(value)
            if check := self.find(array):
                taken.append(BaseTensor(path, name, tuple(array.shape), array.dtype.name, check))
                del variables[name]
        return taken

    def read(self, where: str, shape: tuple[int, ...], dtype: str, check: str) -> tf.Tensor:
        """Returns the weight of a checksum.

        Raises:
            TicketError: if the base does not have it. `where` names what it is.
        """
        if (key := (tuple(shape), dtype, check)) not in self._tensors:
            raise TicketError(
                f"the base '{self.name}' is not the one that it was saved with: {where} of shape {tuple(shape)} is not "
                "among its weights"
            )
        return self._tensors[key]

    def read_tensor(self, tensor: BaseTensor) -> tf.Tensor:
        """Returns a weight that a ticket takes from the base. Raises what `read` raises."""
        where = f"weight '{tensor.name}' of layer '{tensor.layer}'"
        return self.read(where, tensor.shape, tensor.dtype, tensor.check)
