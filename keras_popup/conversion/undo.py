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
    snapshots = [_Snapshot(layer, values) for layer in layers]
    try:
        yield
    except BaseException:
        for snapshot in snapshots:
            snapshot.restore()
        raise


class _Snapshot:
    def __init__(self, layer: Any, values: bool) -> None:
        self.layer, self.kind, self.attributes = layer, type(layer), dict(vars(layer))
        self.stores = {
            store: (list(_keras.own_variables(layer, store)), set(layer._tracker.stored_ids[store]))
            for store in (_keras.TRAINABLE, _keras.NON_TRAINABLE)
        }
        self.variables = [
            (variable, variable.trainable, variable._autocast, variable.numpy() if values else None)
            for variables, _ in self.stores.values()
            for variable in variables
        ]

    def restore(self) -> None:
        self.layer.__class__ = self.kind
        vars(self.layer).clear()
        vars(self.layer).update(self.attributes)
        for store, (variables, ids) in self.stores.items():
            _keras.own_variables(self.layer, store)[:] = variables
            self.layer._tracker.stored_ids[store] = ids
        for variable, trainable, autocast, value in self.variables:
            variable.trainable, variable._autocast = trainable, autocast
            if value is not None:
                variable.assign(value)
