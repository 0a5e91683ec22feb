"""The plain model of a ticket: how it is serialized, and how it is built if the file is not trusted."""

import contextvars
import math
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_popup import _keras
from keras_popup.layers import is_graph, walk
from keras_popup.tickets import allowlist, file_format, mask_coding
from keras_popup.tickets.file_format import Asset, Tensor, TicketError

# The key with which Keras marks objects of a file that are the same object.
_SHARED = "shared_object_id"


def serialize_plain(model: keras.Model) -> dict[str, Any]:
    """Returns a plain model as Keras serializes it, without the parts that are not needed to build it.

    Raises:
        ValueError: if the model has a lambda or a layer that safe mode does not load.
    """

    def prune(value: Any, in_graph: bool = True) -> Any:
        if isinstance(value, dict):
            if value.get("class_name") in ("__lambda__", *allowlist.REFUSED):
                raise ValueError(
                    f"A ticket holds no code, but this model has a {value['class_name'].strip('_')}. Use a registered "
                    "function or layer instead: see keras.saving.register_keras_serializable."
                )
            # Only keys of a serialized layer: a user's own argument may have the same name.
            is_layer = {"module", "class_name", "config", "registered_name"} <= set(value)
            # In a Sequential or Functional model, calls build the layers. Elsewhere they may need their build_config.
            dropped = () if not is_layer else ("build_config", "compile_config") if in_graph else ("compile_config",)
            return {key: prune(item, key == "layers") for key, item in value.items() if key not in dropped}
        return [prune(item, in_graph) for item in value] if isinstance(value, (list, tuple)) else value

    with _keras.ObjectSharingScope():
        serialized = keras.saving.serialize_keras_object(model)
    pruned: dict[str, Any] = _number_shared(prune(serialized))
    if not is_graph(model):
        pruned["build_config"] = serialized.get("build_config")
    return pruned


def _number_shared(serialized: Any) -> Any:
    """Returns a serialized model whose shared objects have the numbers 0, 1, ..., instead of ids of this process."""
    ids: list[Any] = []

    def collect(value: Any) -> None:
        if isinstance(value, dict):
            ids.extend([value[_SHARED]] if _SHARED in value else [])
            value = list(value.values())
        if isinstance(value, (list, tuple)):
            for item in value:
                collect(item)

    def number(value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return [number(item) for item in value]
        if not isinstance(value, dict):
            return value
        changed = {key: number(item) for key, item in value.items() if key != _SHARED}
        if value.get(_SHARED) in repeated:
            changed[_SHARED] = repeated.index(value[_SHARED])
        return changed

    collect(serialized)
    repeated = [object_id for object_id in dict.fromkeys(ids) if ids.count(object_id) > 1]
    return number(serialized)


def list_layers(model: Any) -> list[tuple[str, Any]]:
    """Returns (path, layer) for a model, with the path "", and for all layers that it holds.

    Raises:
        ValueError: if two layers have the same path.
    """
    layers = [("", model), *walk(model)]
    if len(dict(layers)) != len(layers):
        raise ValueError(f"Model '{model.name}' holds two layers with the same path. Give its layers different names.")
    return layers


def collect_variables(layer: Any) -> dict[str, Any]:
    """Returns the variables or arrays that a layer saves, by their keys."""
    store: dict[str, Any] = {}
    _find_saving_class(layer).save_own_variables(layer, store)
    return store


def _find_saving_class(layer: Any) -> Any:
    """Returns the class whose methods save and load a layer: its own class if that saves all variables."""
    store: dict[str, Any] = {}
    layer.save_own_variables(store)
    count = sum(len(_keras.own_variables(layer, name)) for name in (_keras.TRAINABLE, _keras.NON_TRAINABLE))
    return type(layer) if len(store) >= count else keras.layers.Layer


def find_key(variables: dict[str, Any], variable: Any) -> str:
    """Returns the key under which a layer saves a variable.

    Args:
        variables: the result of `collect_variables`.
        variable: a variable of the layer.

    Raises:
        ValueError: if the layer does not save the variable.
    """
    for key, value in variables.items():
        if value is variable:
            return key
    values = variable.numpy()
    for key, value in variables.items():  # some layers save arrays instead of variables
        array = np.asarray(value)
        if array.dtype == values.dtype and array.shape == values.shape and array.tobytes() == values.tobytes():
            return key
    raise ValueError(
        f"A ticket cannot hold weight '{variable.path}', because `save_own_variables` of its layer does not save it."
    )


def collect_tensors(path: str, variables: dict[str, Any]) -> Iterable[Tensor]:
    """Yields the records of the variables that the layer at a path saves."""
    for name, value in variables.items():
        array = value.numpy() if hasattr(value, "numpy") else value
        yield Tensor(path, name, array.shape, array.dtype.name, file_format.pack(array))


def collect_assets(path: str, layer: Any) -> list[Asset]:
    """Returns the records of the files that the layer at a path saves."""
    if not hasattr(layer, "save_assets"):
        return []
    with tempfile.TemporaryDirectory() as folder:
        layer.save_assets(folder)
        files = {file.name: file.read_bytes() for file in sorted(Path(folder).iterdir())}
    return [Asset(path, name, len(content), mask_coding.deflate(content)) for name, content in files.items()]


def find_user_classes(model: keras.Model) -> dict[str, Any]:
    """Returns the classes of a model's layers that are not from Keras or this library, by name."""
    kinds = [type(layer) for _, layer in list_layers(model)]
    return {kind.__name__: kind for kind in kinds if kind.__module__.partition(".")[0] not in ("keras", "keras_popup")}


def build_plain(
    ticket: file_format.Ticket,
    custom_objects: dict[str, Any] | None,
    max_bytes: int,
    *,
    trust: Sequence[str] = (),
    initialized: bool = True,
) -> keras.Model:
    """Returns the plain model of a ticket, with weights that are 0.

    No weight takes memory before all weights are known to have the shapes that the ticket lists.

    Args:
        ticket: the ticket.
        custom_objects: as in `load_ticket`.
        max_bytes: as in `load_ticket`.
        trust: packages whose classes the model may have.
        initialized: bool. False leaves all weights without values and memory, to check only whether the model can
            be built.

    Raises:
        TicketError: if the model cannot be built, or if its weights have other shapes.
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
                    # The user's own code may make a variable from an array, which a stateless scope forbids.
                    if "stateless scope" not in str(error):
                        raise
                    if not allowlist.names_own_code(ticket.model, custom_objects):
                        raise
                    model, variables = _build(ticket, custom_objects)
            except Exception as error:  # any kind: the file chooses what is called
                raise TicketError(f"its model cannot be built: {_shorten(error)}") from error
            check_shapes(ticket, variables)
            size = sum(file_format.bytes_of(tuple(variable.shape), variable.dtype) for variable in pending)
            if size > max_bytes:
                raise TicketError(f"its model would take {size:,} bytes, more than max_bytes={max_bytes:,}")
            listed = {id(variable) for variable in variables.values()}
            try:
                for variable in pending if initialized else ():
                    # Variables that will be overwritten start at 0, so that initializers of the file do not run.
                    _keras.initialize(variable, _make_zeros if id(variable) in listed else None)
            except Exception as error:  # any kind: the file has the seeds of generators
                raise TicketError(f"a weight of its model cannot be made: {_shorten(error)}") from error
    finally:
        _LIMIT.reset(limit)
    return model


_LIMIT: contextvars.ContextVar[int] = contextvars.ContextVar("_LIMIT")


# Layers of this class become Normalizations when the model is built. A change of Keras's own method instead would also
# affect other threads.
@keras.saving.register_keras_serializable("keras_popup")
class BoundedNormalization(keras.layers.Normalization):
    """A Normalization with a memory limit, used while a ticket is read. Its `build` makes arrays, at once."""

    def build(self, input_shape: Any) -> None:
        size = 8 * math.prod(input_shape[axis] or 1 for axis in self.axis) if input_shape else 0
        if size > (limit := _LIMIT.get()):
            raise ValueError(f"Layer '{self.name}' would take {size:,} bytes, more than max_bytes={limit:,}.")
        super().build(input_shape)


def _bound_normalizations(value: Any) -> Any:
    """Returns a serialized model with `BoundedNormalization`s instead of Normalizations."""
    if isinstance(value, list):
        return [_bound_normalizations(item) for item in value]
    if not isinstance(value, dict):
        return value
    changed = {key: _bound_normalizations(item) for key, item in value.items()}
    if value.get("module") == "keras.layers" and value.get("class_name") == "Normalization":
        changed |= {"class_name": "BoundedNormalization", "registered_name": "keras_popup>BoundedNormalization"}
    return changed


def _build(
    ticket: file_format.Ticket, custom_objects: dict[str, Any] | None
) -> tuple[keras.Model, dict[tuple[str, str], Any]]:
    """Returns the model of a ticket, and its variables by (path of the layer, key)."""
    with _keras.SafeModeScope(True), _keras.ObjectSharingScope():
        serialized = _bound_normalizations(ticket.model)
        model = keras.saving.deserialize_keras_object(serialized, custom_objects, safe_mode=True)
    if not isinstance(model, keras.Model):
        raise TypeError(f"It is a {type(model).__name__}, not a keras.Model.")
    for _, layer in list_layers(model):
        if type(layer) is BoundedNormalization:
            layer.__class__ = keras.layers.Normalization
    return model, {
        (path, key): variable
        for path, layer in list_layers(model)
        for key, variable in collect_variables(layer).items()
    }


def _shorten(error: Exception) -> str:
    """Returns the message of an error. Long messages, which repeat configs, keep their beginning and end only."""
    text = str(error).rstrip(".")
    return text if len(text) < 1000 else f"{text[:300]} [...] {text[-600:]}"


def _make_zeros(shape: Any, dtype: Any = None) -> Any:
    return keras.ops.zeros(shape, dtype)


def check_shapes(ticket: file_format.Ticket, variables: dict[tuple[str, str], Any]) -> None:
    """Raises TicketError unless a model has exactly the weights that its ticket lists.

    Args:
        ticket: the ticket.
        variables: the variables, or arrays, of the model by (path of the layer, key).
    """
    listed: dict[tuple[str, str], Any] = {}
    kernels = [((mask.layer, mask.key), mask.shape, mask.dtype) for mask in ticket.masks]
    others = [((tensor.layer, tensor.name), tensor.shape, tensor.dtype) for tensor in ticket.tensors]
    of_base = ticket.base.tensors if ticket.base else ()
    others += [((tensor.layer, tensor.name), tensor.shape, tensor.dtype) for tensor in of_base]
    for key, shape, dtype in kernels + others:
        if key in listed:
            raise TicketError(f"it lists weight '{key[1]}' of layer '{key[0]}' twice")
        listed[key] = (shape, dtype)
    built = {
        key: (tuple(variable.shape), keras.backend.standardize_dtype(variable.dtype))
        for key, variable in variables.items()
    }
    for key in {**built, **listed}:
        if built.get(key) != listed.get(key):
            raise TicketError(
                f"weight '{key[1]}' of layer '{key[0]}' is {_describe(listed.get(key))} in its list of weights, but "
                f"{_describe(built.get(key))} in the model"
            )


def _describe(array: tuple[Any, str] | None) -> str:
    return "absent" if array is None else f"{array[1]} of shape {array[0]}"


def load(layer: Any, path: str, store: dict[str, Any], files: dict[str, bytes]) -> None:
    """Makes a layer load its variables and files.

    Args:
        layer: the layer.
        path: str, the path of the layer.
        store: arrays by key.
        files: contents of files by name.

    Raises:
        TicketError: if the layer cannot load them.
    """

    try:
        if store:
            _find_saving_class(layer).load_own_variables(layer, store)
        if files:
            with tempfile.TemporaryDirectory() as folder:
                for name, content in files.items():
                    Path(folder, name).write_bytes(content)
                layer.load_assets(folder)
    except Exception as error:  # any kind: the code may be the user's
        raise TicketError(f"layer '{path}' cannot load what it has saved: {_shorten(error)}") from error
