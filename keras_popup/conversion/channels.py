"""Follows the channels of a network through its graph, to find those that can leave.

A slot (see `channel_rules`) stays if it reaches an input or output of the model, or a layer that is not understood
here, or if a slot that stays reads it by a weight that is not zero. The exception is a value that the reader's bias can
take over. So every channel that stays has what it had.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_popup import _keras
from keras_popup.conversion.channel_rules import Array, Channels, Slots, find_rule
from keras_popup.layers import get_parts, is_graph, walk_parts

_PADDED = "zero padding beside a value that is not zero"
_JOINED = "joined with channels that differ from place to place"
_LAST = "a layer needs one channel"


class ChannelGraph:
    """The channels of a built Functional or Sequential model.

    Args:
        graph: a model for which `is_graph` is true.
        path: str, where it is in the whole model, with a "/" at the end; empty for the whole model.
        shared: ids of the layers that several layers or models hold.
    """

    def __init__(self, graph: Any, path: str, shared: set[int]) -> None:
        self.graph, self.path = graph, path
        self.calls = _keras.list_calls(graph)
        times = Counter(id(call.operation) for call in self.calls)
        self._shared = shared | {key for key, number in times.items() if number > 1}
        self._slots = Slots()
        self._tensors: dict[int, Channels] = {}
        for x in graph.inputs:
            self._begin(x, "an input of the model")
        for call in self.calls:
            self._follow(call)
        for x in graph.outputs:
            self._pin(x, "an output of the model")
        self._roots = self._slots.find_roots()
        self._kept = self._find_kept()

    @property
    def producers(self) -> list[tuple[Any, Channels]]:
        """The layers with a kernel that can get smaller, each with the channels that it gives."""
        return self._slots.producers

    def channels_of(self, tensor: Any) -> Channels | None:
        """Returns the channels of a symbolic tensor of the model. None if it has no last axis of known size."""
        return self._tensors.get(id(tensor))

    def is_kept(self, channels: Channels) -> Array:
        """Returns a bool array: which of the channels stay."""
        kept: Array = self._kept[self._roots[channels.slots]]
        return kept

    def count_reasons(self, channels: Channels) -> dict[str, int]:
        """Returns how many channels stay though they have a value, by the reasons why."""
        pinned = {int(self._roots[slot]): reason for slot, reason in reversed(self._slots.pinned.items())}
        padded = {int(self._roots[slot]) for slot in self._slots.padded}
        dead = self.is_kept(channels) & ~np.isnan(channels.values)
        roots = self._roots[channels.slots[dead]].tolist()
        return Counter(pinned.get(root, _PADDED if root in padded else _JOINED) for root in roots)

    def _begin(self, tensor: Any, reason: str) -> None:
        """Gives a tensor channels that all stay."""
        if len(tensor.shape) > 1 and isinstance(tensor.shape[-1], int):
            size = tensor.shape[-1]
            self._tensors[id(tensor)] = Channels(self._slots.new(size), np.full(size, np.nan))
            self._pin(tensor, reason)

    def _pin(self, tensor: Any, reason: str) -> None:
        if (channels := self.channels_of(tensor)) is not None:
            self._slots.pin(channels.slots, reason)

    def _follow(self, call: _keras.Call) -> None:
        """Finds out the channels that a call gives. If that is not possible, all channels around it stay."""
        layer, rule = call.operation, find_rule(call.operation)
        inputs = [channels for x in call.inputs if (channels := self.channels_of(x)) is not None]
        if rule is not None and len(inputs) == len(call.inputs) and self._is_usual(call):
            outputs = rule(self._slots, call, inputs)
            if outputs is not None:
                self._tensors[id(call.outputs[0])] = outputs
                return
        for x in call.inputs:
            self._pin(x, f"read by '{layer.name}' ({type(layer).__name__})")
        for x in call.outputs:
            self._begin(x, f"given by '{layer.name}' ({type(layer).__name__})")

    def _is_usual(self, call: _keras.Call) -> bool:
        """Tells whether a layer is used in the way that the rules describe: once, and not as if in training."""
        layer = call.operation
        if not call.inputs or any(_keras.get_mask(x) is not None for x in call.inputs):
            return False
        if not isinstance(layer, keras.layers.Layer):
            values = [*call.args, *call.kwargs.values()]
            return all(value is None or isinstance(value, (keras.KerasTensor, int, float, str)) for value in values)
        return not (
            (id(layer) in self._shared and (layer.weights or isinstance(layer, keras.layers.Reshape)))
            or getattr(layer, "data_format", "channels_last") != "channels_last"
            or getattr(layer, "lora_enabled", False)
            or getattr(layer, "quantization_mode", None)
            or _has_arguments(call)
        )

    def _find_kept(self) -> Array:
        """Returns a bool array: which slots stay, by the numbers that stand for them."""
        kept = np.zeros(len(self._roots), bool)
        kept[self._roots[list(self._slots.pinned)]] = True
        self._spread(kept)
        for channels in reversed(self._tensors.values()):
            if not kept[self._roots[channels.slots]].any():
                last = channels.slots[np.argmax(~np.isnan(channels.values))]  # a constant one, if any: it needs nothing
                self._slots.pin(np.array([last]), _LAST)
                kept[self._roots[last]] = True
                self._spread(kept)
        return kept

    def _spread(self, kept: Array) -> None:
        """Marks what the slots that stay need, until nothing is new."""
        before = -1
        while (number := int(kept.sum())) != before:
            before = number
            for inputs, outputs, weights, foldable in reversed(self._slots.reads):
                needed = weights[:, kept[self._roots[outputs.slots]]].any(axis=1) & ~foldable
                self._slots.note_padding(inputs.slots, needed & ~np.isnan(inputs.values))
                kept[self._roots[inputs.slots[needed]]] = True


def follow_channels(model: Any) -> list[ChannelGraph]:
    """Returns the channels of a built model, and of the models inside of it, at any depth.

    Nothing is known of models with code of their own: for them the list is empty.
    """
    everything = [model, *(layer for _, layer in walk_parts(model))]
    holders = Counter(id(part) for layer in everything for part in get_parts(layer).values())
    shared = {key for key, number in holders.items() if number > 1}
    return list(_follow_graphs(model, "", shared)) if is_graph(model) else []


def _follow_graphs(graph: Any, path: str, shared: set[int]) -> Iterator[ChannelGraph]:
    found = ChannelGraph(graph, path, shared)
    yield found
    as_in_training = {id(call.operation) for call in found.calls if _has_arguments(call)}
    for part in get_parts(graph).values():
        if is_graph(part) and part.built and id(part) not in shared | as_in_training:
            yield from _follow_graphs(part, f"{path}{part.name}/", shared)


def _has_arguments(call: _keras.Call) -> bool:
    """Tells whether a layer is called with more than tensors, such as `training=True`, which normalizes otherwise."""
    values = keras.tree.flatten((call.args, call.kwargs))
    return not all(value is None or value is False or isinstance(value, keras.KerasTensor) for value in values)
