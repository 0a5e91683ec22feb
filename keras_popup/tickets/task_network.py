"""The network that several tasks share. It has no weights of its own: each call is given those of a task."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_popup import _keras
from keras_popup.layers import MASKED_LAYERS
from keras_popup.tickets import allowlist, architecture, file_format
from keras_popup.tickets.file_format import Ticket, TicketError

Key = tuple[str, str]
"""(path of a layer, key under which it saves a weight)."""

# The classes whose `load_own_variables` only gives the variables their values. Other layers compute more from them.
_PLAIN_LOADERS: set[Any] = {kind.load_own_variables for kind in (keras.layers.Layer, *MASKED_LAYERS)}


@dataclasses.dataclass(frozen=True)
class NetworkOrigin:
    """What a network is made of.

    Attributes:
        ticket: a ticket with the architecture.
        stores: the ticket's weights that are not masked kernels, by the path of the layer and the key.
        files: the files of its layers, by the path of the layer and the name.
        custom_objects, trust: as in `load_ticket`.
    """

    ticket: Ticket
    stores: dict[str, dict[str, Any]]
    files: dict[str, dict[str, bytes]]
    custom_objects: dict[str, Any] | None
    trust: Sequence[str]

    @functools.cached_property
    def checksum(self) -> str:
        """A checksum of all but the weights."""
        ticket = self.ticket
        unnamed = {**ticket.model, "config": {**ticket.model.get("config", {}), "name": ""}}
        contents = {
            path: {name: hashlib.sha256(content).hexdigest() for name, content in each.items()}
            for path, each in self.files.items()
        }
        own = {name: id(value) for name, value in (self.custom_objects or {}).items()}
        own |= {name: id(keras.saving.get_registered_object(name)) for name in _list_registered(ticket.model)}
        masked = sorted({record.layer for record in ticket.masks})
        model = _drop_what_no_output_depends_on(unnamed)
        text = json.dumps([model, contents, own, masked, sorted(self.trust)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


class TaskNetwork:
    """A network whose weights are arguments.

    Tickets of one architecture share it, and so its compiled function. A layer that computes something of its weights
    when it loads them, such as Normalization, or that has files, keeps its own weights: tasks share the network if
    these are the same.

    Args:
        origin: the first ticket that has it, with what else it is made of.
        max_bytes: as in `load_ticket`.

    Raises:
        TicketError: as in `load_ticket`.
    """

    def __init__(self, origin: NetworkOrigin, max_bytes: int) -> None:
        ticket, stores, files = origin.ticket, origin.stores, origin.files
        self._checksum = origin.checksum
        trusted = allowlist.import_trusted(origin.trust)
        self.model = architecture.build_plain(
            ticket, origin.custom_objects, max_bytes, trust=trusted, initialized=False
        )
        masked = {record.layer for record in ticket.masks}
        keys: dict[int, Key] = {}
        self._own: dict[Key, str] = {}  # the checksums of the weights that the network keeps
        self._variables: dict[Key, Any] = {}
        for path, layer in architecture.list_layers(self.model):
            with keras.StatelessScope():  # the code of a layer may assign to its variables, which have no values
                variables = architecture.collect_variables(layer)
            self._variables |= {(path, name): variable for name, variable in variables.items()}
            if path in files or not _loads_plainly(layer, variables):
                if path in masked:
                    raise TicketError(f"layer '{path}' is masked, but computes more than its kernel when it is loaded")
                for variable in _saved_variables(layer):
                    _keras.initialize(variable, lambda shape, dtype=None: tf.zeros(shape, dtype))
                store = {name: np.asarray(value) for name, value in stores.get(path, {}).items()}
                architecture.load(layer, path, store, files.get(path, {}))
                self._own |= {(path, name): file_format.checksum(value) for name, value in store.items()}
            else:
                keys |= {id(variable): (path, name) for name, variable in variables.items()}
        trainable, others = self.model.trainable_variables, self.model.non_trainable_variables
        self._count = len(trainable)
        self.keys: list[Key | None] = [keys.get(id(variable)) for variable in trainable + others]
        # No ticket lists the states of seed generators. They do not matter outside of training.
        self._fixed = [
            None if id(variable) in keys else tf.convert_to_tensor(variable.value) for variable in trainable + others
        ]
        self._function: Callable[..., Any] = tf.function(self._call, reduce_retracing=True)
        # One function for all kernels: an operation after the other would take twice the time for a ResNet50.
        self.apply_masks = tf.function(_apply_masks)

    def serves(self, origin: NetworkOrigin) -> bool:
        """Tells whether a ticket has this network."""
        stores = origin.stores
        return self._checksum == origin.checksum and all(
            name in stores.get(path, {}) and file_format.checksum(np.asarray(stores[path][name])) == check
            for (path, name), check in self._own.items()
        )

    def check_weights(self, ticket: Ticket) -> None:
        """Raises TicketError unless a ticket lists exactly the weights of this network, with their shapes."""
        architecture.check_shapes(ticket, self._variables)

    def run(self, weights: Sequence[Any], inputs: Any, mask: Any = None) -> Any:
        """Returns the outputs for some inputs, with their Keras masks.

        Args:
            weights: the weights in the order of `keys`. Those whose key is None are not used.
            inputs: tensors, as the model takes them.
            mask: their Keras masks in the same structure, or None.
        """
        given = [*map(_choose, self._fixed, weights)], inputs, mask
        try:
            outputs, masks = self._function(*given)
        except Exception:  # any kind: the code of some models runs in Python only
            if not tf.executing_eagerly():
                raise
            outputs, masks = self._call(*given)
            self._function = self._call
        for output, each in zip(keras.tree.flatten(outputs), masks, strict=True):
            _keras.set_mask(output, each)
        return outputs

    def _call(self, weights: list[tf.Tensor], inputs: Any, mask: Any) -> Any:
        trainable, others = weights[: self._count], weights[self._count :]
        arguments = _keras.without_training(self.model)
        if mask is not None and _keras.take_masks(self.model):
            arguments["mask"] = mask
        outputs, _ = self.model.stateless_call(trainable, others, inputs, **arguments)
        # A function gives back tensors, without what Python code has noted of them.
        return outputs, [_keras.get_mask(output) for output in keras.tree.flatten(outputs)]

    def describe_inputs(self) -> list[Any] | None:
        """Returns the shapes and dtypes of the inputs, as JSON; None if the model does not tell."""
        inputs = getattr(self.model, "inputs", None)
        return [[list(each.shape), str(each.dtype)] for each in inputs] if inputs else None


_BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).astype(bool)


def _apply_masks(
    kernels: list[tf.Tensor], packed: list[tf.Tensor], levels: list[tf.Tensor], factors: list[tf.Tensor]
) -> list[tf.Tensor]:
    """Returns kernel * mask * factor for each kernel; -0.0 becomes +0.0. As `MaskedKernel.baked` does.

    Args:
        kernels: tensors.
        packed: their masks: for each level the weights that have it, eight of them in a uint8.
        levels: int8 tensors of one axis.
        factors: float32 scalars.
    """
    bits, masked = tf.constant(_BITS), []
    for kernel, planes, values, factor in zip(kernels, packed, levels, factors, strict=True):
        zero = tf.zeros((), kernel.dtype)
        kept = tf.zeros_like(kernel)
        for number in range(planes.shape[0]):  # levels exclude each other
            flat = tf.reshape(tf.gather(bits, tf.cast(planes[number], tf.int32)), [-1])[: tf.size(kernel)]
            kept = tf.where(tf.reshape(flat, tf.shape(kernel)), kernel * tf.cast(values[number], kernel.dtype), kept)
        masked.append(kept * tf.cast(factor, kernel.dtype) + zero)
    return masked


def _choose(fixed: Any, given: Any) -> Any:
    return given if fixed is None else fixed


def _saved_variables(layer: Any) -> list[Any]:
    """Returns the variables that a layer saves: also those of a layer inside that it holds as its own, too."""
    stores = (_keras.TRAINABLE, _keras.NON_TRAINABLE)
    return [variable for store in stores for variable in _keras.own_variables(layer, store)]


def _loads_plainly(layer: Any, variables: dict[str, Any]) -> bool:
    """Tells whether the state of a layer is its variables, and nothing that it computes when it loads them."""
    own = {id(variable) for variable in _saved_variables(layer)}
    return type(layer).load_own_variables in _PLAIN_LOADERS and all(id(value) in own for value in variables.values())


def _list_registered(value: Any) -> set[str]:
    """Returns the names of the registered classes and functions in a serialized model."""
    if isinstance(value, dict):
        own = {value["registered_name"]} if isinstance(value.get("registered_name"), str) else set()
        return own.union(*map(_list_registered, value.values()))
    return set().union(*map(_list_registered, value)) if isinstance(value, list) else set()


def _drop_what_no_output_depends_on(value: Any) -> Any:
    """Returns a serialized model without the arguments that no output depends on once all weights are given.

    These are whether layers are trainable, and the initializers of Keras's own layers: they have other seeds in each
    task.
    """
    if isinstance(value, list):
        return [_drop_what_no_output_depends_on(item) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {key: _drop_what_no_output_depends_on(item) for key, item in value.items()}
    if value.get("module") in ("keras", "keras.layers") and isinstance(kept.get("config"), dict):
        arguments = kept["config"].items()
        kept["config"] = {k: v for k, v in arguments if k != "trainable" and not k.endswith("_initializer")}
    return kept
