"""Workarounds for bugs in other packages. Each one says what is wrong, where it was reported and when it can go."""

import functools
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from keras_popup import _keras


def replace_erfc(path: Path) -> None:
    """Replaces erfc(x) in an ONNX file by 1 - erf(x).

    Since version 2.18, TensorFlow computes an exact GELU with erfc. tf2onnx 1.17 copies that operation into the file,
    but ONNX has no erfc.
    Reported: https://github.com/onnx/tensorflow-onnx/pull/2463. Remove this when tf2onnx writes GELU without Erfc.
    """
    import onnx

    content = onnx.load(path)
    nodes = []
    for node in content.graph.node:
        if node.op_type != "Erfc":
            nodes.append(node)
            continue
        erf, one = f"{node.output[0]}_erf", f"{node.output[0]}_one"
        tensor = onnx.helper.make_tensor("one", onnx.TensorProto.FLOAT, (), [1.0])
        nodes.append(onnx.helper.make_node("Erf", node.input, [erf]))
        nodes.append(onnx.helper.make_node("Constant", [], [one], value=tensor))
        nodes.append(onnx.helper.make_node("Sub", [one, erf], node.output))
    if len(nodes) > len(content.graph.node):
        del content.graph.node[:]
        content.graph.node.extend(nodes)
        onnx.save(content, path)


def inline_convolution(layer: keras.layers.Layer) -> None:
    """Makes a convolution in groups a single operation of the graph, not a function that XLA compiles.

    TensorFlow runs convolutions in groups on CPUs by XLA only, so Keras puts them into functions for XLA. tf2onnx 1.17
    copies the call of such a function into the file, but ONNX has none. The convolution itself it can write.
    We know no report of this bug. Remove this when Conv2D(groups=2) can be exported to ONNX.
    """
    call = layer.call

    def call_inline(*args: Any, **kwargs: Any) -> Any:
        eagerly = tf.config.functions_run_eagerly()
        # In a graph, a function that "runs eagerly" adds its operations to the graph. Outside, XLA has to run them.
        tf.config.run_functions_eagerly(eagerly or not tf.executing_eagerly())
        try:
            return call(*args, **kwargs)
        finally:
            tf.config.run_functions_eagerly(eagerly)

    object.__setattr__(layer, "call", call_inline)


def take_every_other_pixel(x: Any, strides: int, name: str) -> Any:
    """Returns every `strides`-th pixel, so that a 1x1 convolution of stride 1 can replace one of this stride.

    On CPUs, oneDNN in TensorFlow 2.21 crashes on strided 1x1 convolutions with few channels. We know no report of this
    bug. Remove this when narrow ResNets (`ResNet50(width=0.1)`) train with strided convolutions.
    """
    return keras.layers.MaxPooling2D(1, strides, name=name)(x)


def rematerialize_with_keywords(rematerialize: Callable[..., Any], fn: Any, kwargs: dict[str, Any]) -> Any:
    """Rematerializes a function that is called with keyword arguments.

    `tf.recompute_grad` refuses keyword arguments in graphs, but Keras passes them to it inside a `keras.RematScope`.
    Reported: https://github.com/keras-team/keras/issues/21207. Remove this when a plain Dense layer trains in a
    RematScope by `fit`.
    """
    rematerialized = rematerialize(lambda *tensors: fn(*tensors, **kwargs))
    return lambda *tensors, **_: rematerialized(*tensors)


def let_graph_go(graph: tf.Graph) -> None:
    """Lets a graph be freed when nobody uses it any more, though operations with a custom gradient are in it.

    TensorFlow registers the gradient function of each such operation for ever, and the function holds the graph with
    all its variables. Every model that Keras trains has such operations. Here the graph holds the function, and the
    register has a weak reference. A graph that is still being made has its later functions moved by the next call.
    Reported: https://github.com/tensorflow/tensorflow/issues/97697. Remove this when gradient functions of TensorFlow's
    own operations and of `TopK` hold no tensors.
    """
    if hasattr(graph, "_popup_gradients"):
        return
    graph._popup_gradients = []
    for entry in list(_keras.GRADIENTS.values()):
        function = entry["type"]
        holder = getattr(_keras.find_graph_of_gradient(function), "_popup_gradients", None)
        if holder is not None:
            holder.append(function)
            entry["type"] = functools.partial(_call_weakly, weakref.ref(function))


def _call_weakly(reference: Any, *arguments: Any) -> Any:
    return reference()(*arguments)
