"""The plain model of a ticket: what is kept of it, and how it is built without trust."""

import contextvars
import math
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_popup import _keras
from keras_popup.layers import is_graph, walk
from keras_popup.tickets import allowlist, file_format, mask_coding
from keras_popup.tickets.file_format import Asset, Tensor, TicketError

# Where Keras writes which objects of a file are one.
_SHARED = "shared_object_id"


def serialize_plain(model: keras.Model) -> dict[str, Any]:
    """Returns a plain model as Keras serializes it, without what is not needed to build it.

    Raises:
        ValueError: if it holds a lambda, which safe mode does not load.
    """

    def without(value: Any, in_graph: bool = True) -> Any:
        if isinstance(value, dict):
            if value.get("class_name") in ("__lambda__", *allowlist.REFUSED):
                raise ValueError(
                    f"A ticket holds no code, and this model has a {value['class_name'].strip('_')}. Use a registered "
                    "function or layer instead: keras.saving.register_keras_serializable."
                )
            # Of a serialized layer only: a user's own argument may have such a name.
            whole = {"module", "class_name", "config", "registered_name"} <= set(value)
            # Layers of graphs are built as they are called; those which others hold need not be.
            dropped = () if not whole else ("build_config", "compile_config") if in_graph else ("compile_config",)
            return {key: without(each, key == "layers") for key, each in value.items() if key not in dropped}
        return [without(each, in_graph) for each in value] if isinstance(value, (list, tuple)) else value

    with _keras.ObjectSharingScope():
        whole = keras.saving.serialize_keras_object(model)
    pruned: dict[str, Any] = _number_shared(without(whole))
    if not is_graph(model):  # layers of graphs are built as they are called
        pruned["build_config"] = whole.get("build_config")
    return pruned


def _number_shared(serialized: Any) -> Any:
    """Returns a serialized model in which objects that are one have numbers, the same for the same model."""
    found: list[Any] = []

    def collect(value: Any) -> None:
        if isinstance(value, dict):
            found.extend([value[_SHARED]] if _SHARED in value else [])
            value = list(value.values())
        if isinstance(value, (list, tuple)):
            for each in value:
                collect(each)

    def number(value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return [number(each) for each in value]
        if not isinstance(value, dict):
            return value
        changed = {key: number(each) for key, each in value.items() if key != _SHARED}
        if value.get(_SHARED) in several:
            changed[_SHARED] = several.index(value[_SHARED])
        return changed

    collect(serialized)
    several = [each for each in dict.fromkeys(found) if found.count(each) > 1]
    return number(serialized)


def list_places(model: Any) -> list[tuple[str, Any]]:
    """Returns (path, layer) for a model, whose path is "", and all it holds."""
    found = [("", model), *walk(model)]
    if len(dict(found)) != len(found):
        raise ValueError(f"Model '{model.name}' holds two layers of one path. Give its layers names of their own.")
    return found


def own_variables(layer: Any) -> dict[str, Any]:
    """Returns what a layer saves, by name."""
    store: dict[str, Any] = {}
    _saving_class(layer).save_own_variables(layer, store)
    return store


def _saving_class(layer: Any) -> Any:
    """Returns the class whose methods save and load a layer: its own, if that saves all that the layer has."""
    store: dict[str, Any] = {}
    layer.save_own_variables(store)
    own = [v for name in (_keras.TRAINABLE, _keras.NON_TRAINABLE) for v in _keras.own_variables(layer, name)]
    return type(layer) if len(store) >= len(own) else keras.layers.Layer


def key_of(variables: dict[str, Any], variable: Any) -> str:
    """Returns the key under which a layer saves a variable.

    Raises:
        ValueError: if it does not save it.
    """
    for key, value in variables.items():
        if value is variable:
            return key
    values = variable.numpy()
    for key, value in variables.items():  # of layers that save arrays
        array = np.asarray(value)
        if array.dtype == values.dtype and array.shape == values.shape and array.tobytes() == values.tobytes():
            return key
    raise ValueError(f"A layer does not save its weight '{variable.path}', so no ticket can hold it.")


def collect_tensors(where: str, variables: dict[str, Any]) -> Iterable[Tensor]:
    """Yields the records of what a layer saves."""
    for name, value in variables.items():
        array = value.numpy() if hasattr(value, "numpy") else value
        yield Tensor(where, name, array.shape, array.dtype.name, file_format.pack(array))


def collect_assets(where: str, layer: Any) -> list[Asset]:
    """Returns the records of the files that a layer saves."""
    if not hasattr(layer, "save_assets"):
        return []
    with tempfile.TemporaryDirectory() as folder:
        layer.save_assets(folder)
        files = {file.name: file.read_bytes() for file in sorted(Path(folder).iterdir())}
    return [Asset(where, name, len(content), mask_coding.deflate(content)) for name, content in files.items()]


def find_own_classes(model: keras.Model) -> dict[str, Any]:
    """Returns the classes of a model's layers that are neither Keras's nor this library's, by name."""
    kinds = [type(layer) for _, layer in list_places(model)]
    return {kind.__name__: kind for kind in kinds if kind.__module__.partition(".")[0] not in ("keras", "keras_popup")}


def build_plain(
    ticket: file_format.Ticket,
    custom_objects: Any,
    max_bytes: int,
    *,
    trust: Sequence[str] = (),
    initialized: bool = True,
) -> keras.Model:
    """Returns the plain model of a ticket, its weights 0.

    No weight takes memory before all are known to be of the shapes that the ticket lists. Without `initialized`,
    none takes any: only whether the model can be built is of interest.

    Raises:
        TicketError: if the model cannot be built, or is not of these shapes.
    """
    limit = _LIMIT.set(max_bytes)
    try:
        with _keras.deferred_variables() as pending:
            try:
                allowlist.check(ticket.model, custom_objects, max_bytes, trust)
                try:
                    with keras.StatelessScope(initialize_variables=False):
                        model, variables = _build(ticket, custom_objects)
                except (TypeError, ValueError) as error:
                    # Code of the user's own may make a variable of an array, which takes its memory at once.
                    if "stateless scope" not in str(error):
                        raise
                    if not allowlist.names_own_code(ticket.model, custom_objects):
                        raise
                    model, variables = _build(ticket, custom_objects)
            except Exception as error:  # any kind: what is called is chosen by the file
                raise TicketError(f"its model cannot be built: {_shortened(error)}") from error
            _check_shapes(ticket, variables)
            size = sum(file_format.bytes_of(tuple(variable.shape), variable.dtype) for variable in pending)
            if size > max_bytes:
                raise TicketError(f"its model would take {size:,} bytes, and max_bytes={max_bytes:,}")
            listed = {id(variable) for variable in variables.values()}
            for variable in pending if initialized else ():
                # Of one to be overwritten, what the file wants done for its initial value is not done.
                _keras.initialize(variable, _zeros if id(variable) in listed else None)
    finally:
        _LIMIT.reset(limit)
    return model


_LIMIT: contextvars.ContextVar[int] = contextvars.ContextVar("_LIMIT")


# A class of our own, which becomes Keras's once the file is read.
# To change Keras's method would change it for other threads too.
@keras.saving.register_keras_serializable("keras_popup")
class BoundedNormalization(keras.layers.Normalization):
    """A Normalization while a ticket is read: it makes arrays, not variables, of as many numbers as the file says."""

    def build(self, input_shape: Any) -> None:
        size = 8 * math.prod(input_shape[axis] or 1 for axis in self.axis) if input_shape else 0
        if size > (limit := _LIMIT.get()):
            raise ValueError(f"Layer '{self.name}' would take {size:,} bytes, and max_bytes={limit:,}.")
        super().build(input_shape)


def _bounded(value: Any) -> Any:
    """Returns a serialized model whose Normalizations are `BoundedNormalization`s."""
    if isinstance(value, list):
        return [_bounded(each) for each in value]
    if not isinstance(value, dict):
        return value
    changed = {key: _bounded(each) for key, each in value.items()}
    if value.get("module") == "keras.layers" and value.get("class_name") == "Normalization":
        changed |= {"class_name": "BoundedNormalization", "registered_name": "keras_popup>BoundedNormalization"}
    return changed


def _build(ticket: file_format.Ticket, custom_objects: Any) -> tuple[keras.Model, dict[tuple[str, str], Any]]:
    """Returns the model of a ticket, and its variables by layer and name."""
    with _keras.SafeModeScope(True), _keras.ObjectSharingScope():
        model = keras.saving.deserialize_keras_object(_bounded(ticket.model), custom_objects, safe_mode=True)
    if not isinstance(model, keras.Model):
        raise TypeError(f"It is a {type(model).__name__}, no keras.Model.")
    for _, layer in list_places(model):
        if type(layer) is BoundedNormalization:
            layer.__class__ = keras.layers.Normalization
    return model, {
        (where, name): variable
        for where, layer in list_places(model)
        for name, variable in own_variables(layer).items()
    }


def _shortened(error: Exception) -> str:
    """Returns what an error says: of long ones, which repeat configurations, the beginning and the end."""
    text = str(error).rstrip(".")
    return text if len(text) < 1000 else f"{text[:300]} [...] {text[-600:]}"


def _zeros(shape: Any, dtype: Any = None) -> Any:
    return tf.zeros(shape, dtype)


def _check_shapes(ticket: file_format.Ticket, variables: dict[tuple[str, str], Any]) -> None:
    """Checks that a model has the weights that its ticket lists, and no others."""
    listed: dict[tuple[str, str], Any] = {}
    kernels = [((mask.layer, mask.key), mask.shape, mask.dtype) for mask in ticket.masks]
    others = [((tensor.layer, tensor.name), tensor.shape, tensor.dtype) for tensor in ticket.tensors]
    for key, shape, dtype in kernels + others:
        if key in listed:
            raise TicketError(f"it lists weight '{key[1]}' of layer '{key[0]}' twice")
        listed[key] = (shape, dtype)
    found = {
        key: (tuple(variable.shape), keras.backend.standardize_dtype(variable.dtype))
        for key, variable in variables.items()
    }
    for key in {**found, **listed}:
        if found.get(key) != listed.get(key):
            raise TicketError(
                f"weight '{key[1]}' of layer '{key[0]}' is {_described(listed.get(key))} in its list of weights, and "
                f"{_described(found.get(key))} in the model"
            )


def _described(array: Any) -> str:
    return "absent" if array is None else f"{array[1]} of shape {array[0]}"


def load(layer: Any, where: str, store: dict[str, Any], files: dict[str, bytes]) -> None:
    """Gives a layer what it has saved.

    Raises:
        TicketError: if it does not take it.
    """

    try:
        if store:
            _saving_class(layer).load_own_variables(layer, store)
        if files:
            with tempfile.TemporaryDirectory() as folder:
                for name, content in files.items():
                    Path(folder, name).write_bytes(content)
                layer.load_assets(folder)
    except Exception as error:  # any kind, as above
        raise TicketError(f"layer '{where}' does not take what it has saved: {_shortened(error)}") from error
