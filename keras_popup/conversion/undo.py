"""All or nothing: if a change in place of one layer fails, all layers get their old state back."""

import contextlib
from collections.abc import Iterator
from typing import Any

from keras_popup import _keras


@contextlib.contextmanager
def undo_on_failure(layers: list[Any], values: bool = True) -> Iterator[None]:
    """Restores layers if the code inside raises: their classes, attributes and variables.

    Args:
        layers: the layers to restore.
        values: bool, whether the values of the variables are restored too.
    """
    snapshots = [_keras.LayerState(layer, values) for layer in layers]
    try:
        yield
    except BaseException:
        for snapshot in snapshots:
            snapshot.restore()
        raise
