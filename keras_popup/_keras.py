"""The private classes, functions and attributes of Keras that this library uses. A test checks each of them.

Keras's `Tracker` lists the variables and sublayers of a layer. A built layer locks its tracker. `Layer.quantize` and
`Layer.enable_lora` change a layer in place, as masking does, and unlock the tracker in the same way.
"""

import contextlib
import inspect
from collections.abc import Callable, Hashable, Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras.src.backend.common import global_state
from keras.src.layers.rnn.conv_lstm import ConvLSTMCell
from keras.src.models.functional import Functional, functional_like_constructor
from keras.src.ops import nn as nn_operations
from keras.src.ops import numpy as numpy_operations
from keras.src.saving.serialization_lib import ObjectSharingScope, SafeModeScope
from tensorflow.python.eager import record
from tensorflow.python.framework import ops
from tensorflow.python.framework.func_graph import FuncGraph
from tensorflow.python.ops import control_flow_util
from tensorflow.python.ops.control_flow_v2_func_graphs import ControlFlowFuncGraph

__all__ = ["ConvLSTMCell", "Functional", "ObjectSharingScope", "SafeModeScope", "functional_like_constructor"]

# The attributes in which TensorFlow tracks the other attributes of a layer.
TRACKING_OF_TENSORFLOW = {
    "_self_name_based_restores",
    "_self_saveable_object_factories",
    "_self_setattr_tracking",
    "_self_tracked_trackables",
    "_self_unconditional_checkpoint_dependencies",
    "_self_unconditional_deferred_dependencies",
    "_self_unconditional_dependency_names",
    "_self_update_uid",
}


def require_tensorflow(what: str) -> None:
    """Raises RuntimeError if Keras's backend is not TensorFlow. `what` begins the message: what needs it."""
    if keras.backend.backend() != "tensorflow":
        raise RuntimeError(
            f"{what} needs Keras's TensorFlow backend. Received: {keras.backend.backend()!r}. Set the environment "
            "variable KERAS_BACKEND=tensorflow (or `backend` in ~/.keras/keras.json) before importing keras. Plain "
            "models, which `load_ticket` and `pretrained.load` give, work under every backend."
        )


TRAINABLE, NON_TRAINABLE = "trainable_variables", "non_trainable_variables"


def own_variables(layer: Any, store: str) -> list[Any]:
    """Returns the list of a layer's own variables, without those of sublayers. Changing the list changes the layer."""
    variables: list[Any] = layer._tracker.config[store][1]
    return variables


@contextlib.contextmanager
def unlocked(layer: Any) -> Iterator[None]:
    """Allows variables to be added to a built layer, and removed from it."""
    locked = layer._tracker.locked
    layer._tracker.unlock()
    try:
        yield
    finally:
        if locked:
            layer._tracker.lock()


def track(layer: Any, store: str, variable: Any, position: int | None = None) -> None:
    """Adds a variable to a store of a layer, at a position or at the end. Removes it from the other store first."""
    untrack(layer, variable)
    variables = own_variables(layer, store)
    variables.insert(len(variables) if position is None else position, variable)
    layer._tracker.stored_ids[store].add(id(variable))


def untrack(layer: Any, variable: Any) -> tuple[str, int] | None:
    """Removes a variable from a layer. Returns its store and position, or None if the layer does not have it."""
    for store in (TRAINABLE, NON_TRAINABLE):
        variables = own_variables(layer, store)
        for position, other in enumerate(variables):
            if other is variable:
                del variables[position]
                layer._tracker.stored_ids[store].discard(id(variable))
                return store, position
    return None


def without_sharing(value: Any) -> Any:
    """Returns a serialized object without its `shared_object_id`s, by which Keras marks one object in several places.

    Keras derives them from `id(object)`. Python may reuse the id of an object that is made only to be serialized.
    """
    if isinstance(value, dict):
        return {key: without_sharing(item) for key, item in value.items() if key != "shared_object_id"}
    return [without_sharing(item) for item in value] if isinstance(value, list) else value


class LayerState:
    """All that masking changes in a layer: its class, its attributes, and the lists and flags of its own variables.

    Args:
        layer: a layer.
        values: bool, whether to keep the values of the variables too.
    """

    def __init__(self, layer: Any, values: bool) -> None:
        self._layer, self._class, self._attributes = layer, type(layer), dict(vars(layer))
        self._stores = {
            store: (list(own_variables(layer, store)), set(layer._tracker.stored_ids[store]))
            for store in (TRAINABLE, NON_TRAINABLE)
        }
        self._variables = [
            (variable, variable.trainable, variable._autocast, variable.numpy() if values else None)
            for variables, _ in self._stores.values()
            for variable in variables
        ]

    def restore(self) -> None:
        """Gives the layer its state back."""
        self._layer.__class__ = self._class
        vars(self._layer).clear()
        vars(self._layer).update(self._attributes)
        for store, (variables, ids) in self._stores.items():
            own_variables(self._layer, store)[:] = variables
            self._layer._tracker.stored_ids[store] = ids
        for variable, trainable, autocast, value in self._variables:
            variable.trainable, variable._autocast = trainable, autocast
            if value is not None:
                variable.assign(value)


def set_autocast(variable: Any, value: bool) -> bool:
    """Sets whether a read of a variable is cast to the compute dtype. Returns what it was before."""
    before: bool = variable._autocast
    variable._autocast = value
    return before


def list_sublayers(layer: Any) -> list[Any]:
    """Returns the layers that a layer tracks, without those inside of them."""
    return list(layer._layers)


def list_seed_states(layer: Any) -> list[Any]:
    """Returns the state variables of a layer's seed generators, which are not among its variables."""
    return [generator.state for generator in layer._seed_generators]


def is_rematerialized(layer: Any) -> bool:
    """Tells whether a layer was made in a `keras.RematScope`."""
    return bool(layer._remat_mode)


def copy_flags(layer: Any, twin: Any) -> None:
    """Gives a layer the flags of another one that no config holds. The flags of its variables stay as they are."""
    twin._trainable, twin._remat_mode = layer.trainable, layer._remat_mode


def find_operation(tensor: Any) -> Any:
    """Returns the layer or operation that a symbolic tensor comes from."""
    return tensor._keras_history.operation


def find_inputs(tensor: Any) -> list[Any]:
    """Returns the symbolic tensors that the call took which a symbolic tensor comes from."""
    history = tensor._keras_history
    return list(history.operation._inbound_nodes[history.node_index].input_tensors)


def run_graph(model: Any, inputs: list[Any], replace: Callable[[Any], Any] = lambda operation: operation) -> Any:
    """Returns the outputs of a Functional model's layers for other inputs; symbolic inputs make it part of a new model.

    Calling the model would do that too, but adds operations of its own around the layers.

    Args:
        model: a Functional model.
        inputs: the tensors, in the order of `model.inputs`.
        replace: function from a layer or operation of the model to the one that is called in its place.
    """
    return model._run_through_graph(inputs, operation_fn=replace)


class Call(NamedTuple):
    """A call of a layer or operation in a Functional or Sequential model, with its symbolic tensors."""

    operation: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    inputs: list[Any]
    outputs: list[Any]


def list_calls(graph: Any) -> list[Call]:
    """Returns the calls in a built Functional or Sequential model, each after those whose outputs it takes."""
    function = graph._functional if isinstance(graph, keras.Sequential) else graph
    by_depth = function._nodes_by_depth
    return [
        Call(node.operation, node.arguments.args, node.arguments.kwargs, node.input_tensors, node.outputs)
        for depth in sorted(by_depth, reverse=True)
        for node in by_depth[depth]
        if not node.is_input
    ]


ELEMENTWISE_OPERATIONS: frozenset[type] = frozenset(
    getattr(module, name)
    for module, names in (
        (nn_operations, "Relu Relu6 Sigmoid Softplus Silu LeakyRelu HardSigmoid HardSilu Elu Selu Gelu"),
        (numpy_operations, "Add Subtract Multiply Divide TrueDivide Negative Maximum Minimum Tanh"),
    )
    for name in names.split()
)
"""What `keras.ops.relu(x)`, `x + y` and the like leave in a graph: functions of each number by itself."""

MULTIPLY = numpy_operations.Multiply
"""What `x * y` leaves in a graph."""


def list_arguments(graph: Any) -> list[Any]:
    """Returns the arguments of all calls of layers and operations in a Functional model."""
    nodes = (node for operation in graph.operations for node in operation._inbound_nodes)
    return [value for node in nodes for value in keras.tree.flatten((node.arguments.args, node.arguments.kwargs))]


def pack_inputs(model: Any, batch: list[Any]) -> Any:
    """Returns a flat batch in the structure that a call of the model takes."""
    structure = getattr(model, "_inputs_struct", None)
    return keras.tree.pack_sequence_as(structure, batch) if structure is not None else batch[0]


def build_metrics(model: Any, batch: Any) -> None:
    """Creates the variables of a compiled model's metrics, for a batch of `tf.TensorSpec`s."""
    model._symbolic_build(data_batch=batch)


def without_training(layer: Any) -> dict[str, bool]:
    """Returns the keyword argument with which a layer is called for inference, or {} if its `call` does not take it."""
    return {"training": False} if layer._call_has_training_arg else {}


def take_masks(layer: Any) -> bool:
    """Tells whether the `call` of a layer takes a Keras mask of its inputs."""
    return bool(layer._call_has_mask_arg)


def get_mask(tensor: Any) -> Any:
    """Returns the Keras mask that a tensor has, such as that of an Embedding with `mask_zero`, or None."""
    return getattr(tensor, "_keras_mask", None)


def set_mask(tensor: Any, mask: Any) -> None:
    """Gives a tensor its Keras mask, if there is one."""
    if mask is not None:
        tensor._keras_mask = mask


def set_trainable(layer: Any, value: bool) -> None:
    """Sets `trainable` of a layer, of all its sublayers and of their variables.

    `layer.trainable = value` does nothing if the layer has this value already, even if its variables have another one.
    """
    type(layer).trainable.fset(layer, value)
    for part in list_sublayers(layer):
        set_trainable(part, value)


def set_path(variable: Any, path: str) -> None:
    """Sets the path of a variable, to the one that it would have if the layer's `build` had made it."""
    variable._path = path


def exchange_sublayer(layer: Any, before: Any, after: Any) -> None:
    """Makes a layer track the sublayer `after` instead of `before`."""
    if layer._tracker.is_in_store("layers", after):
        layer._tracker.untrack(before)
    else:
        layer._tracker.replace_tracked_value("layers", before, after)


def refresh_call_signature(layer: Any) -> None:
    """Makes Keras inspect the `call` of a layer again, after the class of the layer has changed."""
    signature = inspect.signature(layer.call)
    names = [parameter.name for parameter in signature.parameters.values()]
    layer._call_signature, layer.call_signature_parameters = signature, names
    layer._call_has_training_arg, layer._call_has_mask_arg = "training" in names, "mask" in names
    layer._call_has_context_arg = {name: name in names for name in layer._call_context_args}


def call_context() -> Any:
    """Returns Keras's record of the outermost call that is running in this thread, or None outside of calls."""
    return global_state.get_global_attribute("current_call_ctx")


def autocast_dtype() -> str | None:
    """Returns the dtype to which Keras casts variables that are read now, or None if it casts none."""
    scope = global_state.get_global_attribute("autocast_scope")
    return None if scope is None or scope.dtype is None else str(scope.dtype)


def drop_compiled_functions(model: Any) -> None:
    """Makes a model trace its functions again, and ask for a new `compile` if its optimizer is built already."""
    for name in ("train_function", "test_function", "predict_function"):
        if getattr(model, name, None) is not None:
            setattr(model, name, None)
    optimizer = getattr(model, "optimizer", None)
    if getattr(model, "compiled", False) and optimizer is not None and getattr(optimizer, "built", False):
        model.compiled = False


@contextlib.contextmanager
def deferred_variables() -> Iterator[list[Any]]:
    """Collects the variables that are made inside. In a `keras.StatelessScope` they have no values and no memory yet.

    Keras has no public way to find out the size of a model before it takes memory.
    """
    before = global_state.get_global_attribute("uninitialized_variables")
    pending: list[Any] = []
    global_state.set_global_attribute("uninitialized_variables", pending)
    try:
        yield pending
    finally:
        global_state.set_global_attribute("uninitialized_variables", before)


def initialize(variable: Any, initializer: Any = None) -> None:
    """Sets the initial values of a variable of `deferred_variables`, with `initializer` instead of its own if given.

    A variable to which the code of its layer has given values keeps them.
    """
    if variable._value is not None:
        return
    if initializer is not None:
        variable._initializer = initializer
    variable._deferred_initialize()


def is_traced_for_xla() -> bool:
    """Tells whether TensorFlow is tracing a function that is compiled as a whole, by `jit_compile=True`."""
    if tf.executing_eagerly():
        return False
    return bool(control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph()))


# The functions that Keras's `predict` and KerasHub's `generate` call from Python, once for each batch. They train
# nothing.
_INFERENCE_FUNCTIONS = {"one_step_on_data_distributed", "multi_step_on_data", "generate_step"}


def read_at_each_call(read: Callable[[], tf.Tensor], spec: tf.TensorSpec, key: Hashable) -> tf.Tensor | None:
    """Returns a tensor of the function being traced. At each call of the function, it has the value of `read()`.

    Args:
        read: called in Python, eagerly, whenever the function is called.
        spec: the shape and dtype of its value.
        key: the same for all reads of the same value, so that one function reads it once.

    Returns:
        None outside of the functions of `predict` and `generate`. Other functions may be stored, or may run in a
        dataset, where TensorFlow would call `read` only once.
    """
    graph = tf.compat.v1.get_default_graph()
    while isinstance(graph, ControlFlowFuncGraph):
        graph = graph.outer_graph
    if not isinstance(graph, FuncGraph):
        return None
    outermost = graph
    while isinstance(outermost.outer_graph, FuncGraph):
        outermost = outermost.outer_graph
    if outermost.name not in _INFERENCE_FUNCTIONS:
        return None
    with graph.as_default():
        return graph.capture_call_time_value(read, spec, key=key)


def is_recorded() -> bool:
    """Tells whether a `tf.GradientTape` may be recording now."""
    return bool(record.could_possibly_record())


def is_stateless() -> bool:
    """Tells whether the code runs in a `keras.StatelessScope`, where variables have other values."""
    return global_state.get_global_attribute("stateless_scope") is not None


def read_memory(variable: Any) -> tuple[tf.Tensor, Any]:
    """Returns the value of a Keras variable on the CPU, and the address of its memory; of a scalar, its number twice.

    The value shares the memory of the variable. Operations write to a variable in place only if nobody else shares its
    memory; otherwise the variable gets new memory. So while the value is held, the variable has this address until
    something writes to it. Works eagerly only.
    """
    value = variable._value
    # Not through the methods of the variable, which take three times as long.
    read = tf.raw_ops.ReadVariableOp(resource=value.handle, dtype=value.dtype)
    array = read._numpy_internal()  # not a copy, as of `numpy()`
    return read, array.__array_interface__["data"][0] if isinstance(array, np.ndarray) else array


GRADIENTS: dict[str, dict[str, Any]] = ops.gradient_registry._registry
"""The gradient functions of all operations by name. The function is the value of "type"."""


def find_graph_of_gradient(function: Any) -> tf.Graph | None:
    """Returns the graph that a gradient function of `tf.custom_gradient` holds; None for other functions."""
    if getattr(function, "__name__", "") != "internal_grad_fn":
        return None
    held = _find_closure(_find_closure(function).get("tape_grad_fn")).get("result")
    tensors = [tensor for tensor in tf.nest.flatten(held) if isinstance(tensor, tf.Tensor)]
    return tensors[0].graph if tensors and hasattr(tensors[0], "graph") else None


def _find_closure(function: Any) -> dict[str, Any]:
    code = getattr(function, "__code__", None)
    cells = getattr(function, "__closure__", None) or ()
    return {} if code is None else {n: cell.cell_contents for n, cell in zip(code.co_freevars, cells, strict=True)}
