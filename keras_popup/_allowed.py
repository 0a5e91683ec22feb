"""What a stranger's architecture may name.

Keras's safe mode bars lambdas, and little else: an architecture may have any function of Keras called, on constants
of its own, while it is read. Here it may name layers and operations, initializers and the like, by a list, and
what the user has registered or given.
"""

import inspect
import sys
from collections.abc import Iterator
from typing import Any

import keras

from keras_popup.selectors import Selector

_BASES = {
    "keras": (keras.Model, keras.dtype_policies.DTypePolicy),
    "keras.layers": (keras.layers.Layer,),
    "keras.initializers": (keras.initializers.Initializer,),
    "keras.regularizers": (keras.regularizers.Regularizer,),
    "keras.constraints": (keras.constraints.Constraint,),
    "keras.random": (keras.random.SeedGenerator,),
    "keras.src.models.functional": (keras.Model,),
    "keras.src.models.sequential": (keras.Model,),
    **dict.fromkeys(
        [f"keras.src.ops.{name}" for name in ("core", "image", "linalg", "math", "nn", "numpy")], (keras.Operation,)
    ),
}

REFUSED = {"FlaxLayer", "JaxLayer", "Lambda", "TFSMLayer", "TorchModuleWrapper"}
"""Layers that call what they are given, or read files."""

# The operations of `core` that call no function.
_CORE = {"Cast", "SaturateCast", "Scatter", "ScatterUpdate", "Slice", "SliceUpdate", "StopGradient", "Unstack"}

_ACTIVATIONS = {name for name, each in vars(keras.activations).items() if inspect.isfunction(each)}
_ACTIVATIONS -= {"deserialize", "get", "serialize"}

# Values that Keras writes as objects: literals, all of them in the file.
_LITERALS = {"__bytes__", "__complex__", "__ellipsis__", "__keras_tensor__", "__numpy__", "__slice__", "__tensor__"}

_LAYERS_SHARE = 1 << 19  # one over how many layers a model may have per byte of memory allowed: Keras is slow with them


def check(model: Any, custom_objects: Any, max_bytes: int) -> None:
    """Checks all that a serialized model names.

    Raises:
        ValueError: naming what it may not.
    """
    layers = 0
    for value in _dicts(model):
        if "class_name" in value:
            _check_class(value, custom_objects)
        listed = value.get("layers")
        layers += len(listed) if isinstance(listed, list) else 0
        if layers > max_bytes // _LAYERS_SHARE:
            raise ValueError(f"it has more than the {max_bytes // _LAYERS_SHARE:,} layers that max_bytes allows")
        nodes = value.get("inbound_nodes", [])
        if not isinstance(nodes, list):
            raise ValueError("the calls of a layer are no list")
        for node in nodes:
            # What is called on constants alone would be run as it is read, rather than become a part of the model.
            if not isinstance(node, dict) or all(each.get("class_name") != "__keras_tensor__" for each in _dicts(node)):
                raise ValueError(f"layer {str(value.get('name'))[:60]!r} is called on constants")


def _dicts(value: Any) -> Iterator[dict[str, Any]]:
    """Yields all objects in JSON, the outer ones first."""
    pending = [value]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            yield value
            pending += value.values()
        elif isinstance(value, list):
            pending += value


def _check_class(value: dict[str, Any], custom_objects: Any) -> None:
    name, module = value["class_name"], value.get("module")
    registered = value.get("registered_name") or name
    if not all(isinstance(text, str) for text in (name, registered, module or "")):
        raise ValueError(f"it names a class {str(name)[:60]!r}")
    if name in _LITERALS:
        return
    if name == "function":
        name = value.get("config")
        registered = value.get("registered_name") or name
        if not isinstance(name, str) or not isinstance(registered, str):
            raise ValueError(f"it names a function {str(name)[:60]!r}")
        if module in ("builtins", "keras.activations") and name in _ACTIVATIONS:
            return
    found = keras.saving.get_registered_object(registered, custom_objects)
    if found is not None:
        ours = getattr(found, "__module__", "").startswith("keras_popup.")
        if not ours or (isinstance(found, type) and issubclass(found, (keras.initializers.Initializer, Selector))):
            return
    elif module in _BASES and name not in REFUSED and (module != "keras.src.ops.core" or name in _CORE):
        symbol = getattr(sys.modules[module], name, None)
        if isinstance(symbol, type) and issubclass(symbol, _BASES[module]):
            return
    raise ValueError(
        f"it names {str(module)[:60]}.{name[:60]}, which a ticket may not name. A class or function of your own must "
        "be registered, by keras.saving.register_keras_serializable and importing it, or be given in custom_objects"
    )
