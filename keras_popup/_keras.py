"""All of Keras that is not public and that this library relies on: each name here has a test of what it does.

`Tracker` is Keras's bookkeeping of the variables and sublayers of a layer. A built layer locks it. `Layer.quantize` and
`Layer.enable_lora`, which change a layer in place as masking does, unlock it in the same way.
"""

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any

from keras.src.backend.common import global_state
from keras.src.layers.rnn.conv_lstm import ConvLSTMCell
from keras.src.models.functional import Functional, functional_like_constructor
from keras.src.saving.serialization_lib import ObjectSharingScope, SafeModeScope

__all__ = ["ConvLSTMCell", "Functional", "ObjectSharingScope", "SafeModeScope", "functional_like_constructor"]

# Where TensorFlow keeps, in a layer, what it knows of the layer's attributes.
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

TRAINABLE, NON_TRAINABLE = "trainable_variables", "non_trainable_variables"


def own_variables(layer: Any, store: str) -> list[Any]:
    """Returns the list of the variables that a layer has itself: a live one."""
    variables: list[Any] = layer._tracker.config[store][1]
    return variables


@contextlib.contextmanager
def unlocked(layer: Any) -> Iterator[None]:
    """Lets variables be added to a layer that is built, and taken away."""
    locked = layer._tracker.locked
    layer._tracker.unlock()
    try:
        yield
    finally:
        if locked:
            layer._tracker.lock()


def track(layer: Any, store: str, variable: Any, place: int | None = None) -> None:
    """Makes a variable one of a layer's, at a place in the order of these; taken from where else the layer has it."""
    untrack(layer, variable)
    variables = own_variables(layer, store)
    variables.insert(len(variables) if place is None else place, variable)
    layer._tracker.stored_ids[store].add(id(variable))


def untrack(layer: Any, variable: Any) -> tuple[str, int] | None:
    """Takes a variable away from a layer. Returns the store and the place that it had, None if it had none."""
    for store in (TRAINABLE, NON_TRAINABLE):
        variables = own_variables(layer, store)
        for place, other in enumerate(variables):
            if other is variable:
                del variables[place]
                layer._tracker.stored_ids[store].discard(id(variable))
                return store, place
    return None


def without_sharing(value: Any) -> Any:
    """Returns a serialized object without what says that it is one with others of the file.

    Keras tells objects apart by their ids. Those of objects that are made only to be serialized are soon others' ids.
    """
    if isinstance(value, dict):
        return {key: without_sharing(each) for key, each in value.items() if key != "shared_object_id"}
    return [without_sharing(each) for each in value] if isinstance(value, list) else value


def set_trainable(layer: Any, value: bool) -> None:
    """Sets `trainable` of a layer, of all it holds and of their variables.

    `layer.trainable = value` does nothing where the layer has this value already, though its variables may not.
    """
    type(layer).trainable.fset(layer, value)
    for part in layer._layers:
        set_trainable(part, value)


def set_path(variable: Any, path: str) -> None:
    """Gives a variable the path that it would have, had the layer's `build` made it."""
    variable._path = path


def exchange_sublayer(layer: Any, before: Any, after: Any) -> None:
    """Has a layer track another sublayer in the place of one."""
    if layer._tracker.is_in_store("layers", after):
        layer._tracker.untrack(before)
    else:
        layer._tracker.replace_tracked_value("layers", before, after)


def refresh_call_signature(layer: Any) -> None:
    """Has Keras look at the `call` of a layer again, after its class was changed."""
    signature = inspect.signature(layer.call)
    names = [parameter.name for parameter in signature.parameters.values()]
    layer._call_signature, layer.call_signature_parameters = signature, names
    layer._call_has_training_arg, layer._call_has_mask_arg = "training" in names, "mask" in names
    layer._call_has_context_arg = {name: name in names for name in layer._call_context_args}


def call_context() -> Any:
    """Returns what Keras knows of the outermost call that is going on in this thread, None if there is none."""
    return global_state.get_global_attribute("current_call_ctx")


def autocast_dtype() -> str | None:
    """Returns the type that Keras casts the variables to which are read now, None if it casts none."""
    scope = global_state.get_global_attribute("autocast_scope")
    return None if scope is None or scope.dtype is None else str(scope.dtype)


def drop_compiled_functions(model: Any) -> None:
    """Has a model trace its functions again, and asks for a new `compile` where its optimizer knows other variables."""
    for name in ("train_function", "test_function", "predict_function"):
        if getattr(model, name, None) is not None:
            setattr(model, name, None)
    optimizer = getattr(model, "optimizer", None)
    if getattr(model, "compiled", False) and optimizer is not None and getattr(optimizer, "built", False):
        model.compiled = False


@contextlib.contextmanager
def deferred_variables() -> Iterator[list[Any]]:
    """Collects the variables that are made in a `keras.StatelessScope` and have no values, hence no memory, yet.

    There is no public way to know the size of a model before it takes memory.
    """
    before = global_state.get_global_attribute("uninitialized_variables")
    pending: list[Any] = []
    global_state.set_global_attribute("uninitialized_variables", pending)
    try:
        yield pending
    finally:
        global_state.set_global_attribute("uninitialized_variables", before)


def initialize(variable: Any, initializer: Any = None) -> None:
    """Gives a variable of `deferred_variables` its values, by another initializer if one is given."""
    if initializer is not None:
        variable._initializer = initializer
    variable._deferred_initialize()
