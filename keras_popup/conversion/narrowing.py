"""Makes a network anew with fewer channels. What stays has the values that it had, up to rounding."""

from typing import Any

import keras
import numpy as np

from keras_popup import _keras
from keras_popup.conversion.channel_rules import (
    DEPTHWISE,
    READERS,
    TRANSPOSED,
    Array,
    Channels,
    read_bias,
    read_kernel,
)
from keras_popup.conversion.channels import ChannelGraph
from keras_popup.conversion.copying import make_from_config


def narrow(graphs: list[ChannelGraph]) -> Any:
    """Returns a model without the channels that can leave.

    Args:
        graphs: the model of `follow_channels` and those inside of it.

    Returns:
        A `keras.Model` of the same class. Layers that stay as they are belong to both models afterwards.
    """
    replaced: dict[int, Any] = {}
    for graph in reversed(graphs):  # the models inside of a model come after it
        _narrow_graph(graph, replaced)
    whole = graphs[0].graph
    return replaced.get(id(whole), whole)


def _narrow_graph(graph: ChannelGraph, replaced: dict[int, Any]) -> None:
    """Adds to a dict the new layers of a model, and the new model, by the ids of those that they replace."""
    changed: list[tuple[Any, Channels, Array, Array]] = []
    for call in graph.calls:
        layer = call.operation
        if not isinstance(layer, (*READERS, *DEPTHWISE, keras.layers.BatchNormalization, keras.layers.Reshape)):
            continue  # it has no sizes, or is not understood and keeps all channels
        taken, given = graph.channels_of(call.inputs[0]), graph.channels_of(call.outputs[0])
        if taken is None or given is None:
            continue
        stays_in, stays_out = graph.is_kept(taken), graph.is_kept(given)
        if not (stays_in.all() and stays_out.all()):
            replaced[id(layer)] = _make_smaller(layer, call, taken, stays_in, stays_out)
            changed.append((layer, taken, stays_in, stays_out))
    if any(id(part) in replaced for part in graph.graph.layers):
        replaced[id(graph.graph)] = _rebuild(graph.graph, replaced)
        for layer, taken, stays_in, stays_out in changed:
            _fill(layer, replaced[id(layer)], taken, stays_in, stays_out)


def _make_smaller(layer: Any, call: _keras.Call, taken: Channels, stays_in: Array, stays_out: Array) -> Any:
    """Returns a layer like another one for fewer channels, not built yet."""
    size = int(stays_out.sum())
    changes: dict[str, Any] = {}
    if isinstance(layer, READERS):
        changes["units" if isinstance(layer, keras.layers.Dense) else "filters"] = size
        changes["use_bias"] = layer.bias is not None or bool(_fold(layer, taken, stays_in)[stays_out].any())
    if isinstance(layer, keras.layers.Reshape):
        changes["target_shape"] = (*(-1 if n is None else n for n in call.outputs[0].shape[1:-1]), size)
    with _keras.SafeModeScope(False):  # the layer is a live object, not from a file
        return make_from_config(layer, change=lambda config: config | changes)


def _fold(layer: Any, taken: Channels, stays_in: Array) -> Array:
    """Returns for each output of a layer the sum that it loses with the channels that leave."""
    _, sums = read_kernel(layer)
    lost: Array = np.where(stays_in, 0.0, np.nan_to_num(taken.values)) @ sums
    return lost


def _rebuild(graph: Any, replaced: dict[int, Any]) -> Any:
    begins = [_keras.find_operation(x) for x in graph.inputs]
    inputs = [type(begin).from_config(begin.get_config()).output for begin in begins]
    if isinstance(graph, keras.Sequential):
        smaller = type(graph)([*inputs, *(replaced.get(id(layer), layer) for layer in graph.layers)], name=graph.name)
    else:
        outputs = _keras.run_graph(graph, inputs, lambda operation: replaced.get(id(operation), operation))
        smaller = type(graph)(_keras.pack_inputs(graph, inputs), outputs, name=graph.name)
    _keras.copy_flags(graph, smaller)
    return smaller


def _fill(layer: Any, smaller: Any, taken: Channels, stays_in: Array, stays_out: Array) -> None:
    """Gives a smaller layer its weights, and the flags of the layer."""
    if isinstance(layer, keras.layers.BatchNormalization):
        smaller.set_weights([weight[stays_out] for weight in layer.get_weights()])
    elif isinstance(layer, DEPTHWISE):
        smaller.kernel.assign(np.asarray(layer.kernel)[..., stays_in, :])
    elif isinstance(layer, READERS):
        sides = (stays_out, stays_in) if isinstance(layer, TRANSPOSED) else (stays_in, stays_out)
        smaller.kernel.assign(np.asarray(layer.kernel)[..., sides[0], :][..., sides[1]])
    if isinstance(layer, (*READERS, *DEPTHWISE)) and smaller.bias is not None:
        lost = _fold(layer, taken, stays_in) if isinstance(layer, READERS) else 0.0
        smaller.bias.assign((lost + read_bias(layer) * np.ones(len(stays_out)))[stays_out])
    _keras.copy_flags(layer, smaller)
    of_layer = {variable.name: variable for variable in layer.variables}
    for variable in smaller.variables:
        if variable.name in of_layer:
            variable.trainable = of_layer[variable.name].trainable
