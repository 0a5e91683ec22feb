"""What a stranger's architecture may name.

Keras's safe mode bars lambdas, and little else: an architecture may have any function of Keras called, on constants
of its own, while it is read. Here it may name layers and operations, initializers and the like, by a list, and
what the user has registered or given.
"""

import importlib.util
import inspect
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import keras

from keras_popup.selectors import Selector
from keras_popup.tickets.file_format import DTYPES

_BASES = {
    "keras": (keras.Model, keras.dtype_policies.DTypePolicy),
    "keras.dtype_policies": (keras.dtype_policies.DTypePolicy, keras.dtype_policies.DTypePolicyMap),
    "keras.layers": (keras.layers.Layer,),
    "keras.initializers": (keras.initializers.Initializer,),
    "keras.regularizers": (keras.regularizers.Regularizer,),
    "keras.constraints": (keras.constraints.Constraint,),
    "keras.random": (keras.random.SeedGenerator,),
    "keras.src.models.functional": (keras.Model,),
    "keras.src.models.sequential": (keras.Model,),
    # Layers that Keras has for itself, such as those of its applications.
    "keras.src.applications.": (keras.layers.Layer,),
    "keras.src.layers.": (keras.layers.Layer,),
    **dict.fromkeys(
        [f"keras.src.ops.{name}" for name in ("core", "image", "linalg", "math", "nn", "numpy")], (keras.Operation,)
    ),
}

REFUSED = {"FlaxLayer", "JaxLayer", "Lambda", "TFSMLayer", "TorchModuleWrapper"}
"""Layers that call what they are given, or read files."""

# The operations of `core` that call no function.
_CORE = {"Cast", "SaturateCast", "Scatter", "ScatterUpdate", "Slice", "SliceUpdate", "StopGradient", "Unstack"}

# Operations that have as many outputs as they are told.
_MANY_OUTPUTS = {"ArraySplit", "Split", "Unstack"}
_MOST_OUTPUTS = 4096

# Arguments with which layers make arrays, of sizes that the file says, as they are built or looked at.
_AT_ONCE = ("lora_rank", "stateful")

_ACTIVATIONS = {name for name, each in vars(keras.activations).items() if inspect.isfunction(each)}
_ACTIVATIONS -= {"deserialize", "get", "serialize"}

# Values that Keras writes as objects.
_ARRAYS = {"__numpy__", "__tensor__"}
_LITERALS = {"__bytes__", "__complex__", "__ellipsis__", "__keras_tensor__", "__slice__", *_ARRAYS}

# How many layers a model may have: Keras is slow with many.
_LEAST_LAYERS = 256
_BYTES_PER_LAYER = 1 << 19


def import_trusted(packages: Sequence[str]) -> tuple[str, ...]:
    """Imports packages, so that their classes are registered with Keras.

    Raises:
        TypeError: if they are no names in a list or tuple.
        ImportError: if one is not installed.
    """
    if isinstance(packages, str) or not all(isinstance(name, str) and name.isidentifier() for name in packages):
        raise TypeError(f"`trust` must be names of packages, such as ('keras_hub',). Received: {packages!r}.")
    for name in packages:
        if importlib.util.find_spec(name) is None:
            raise ImportError(f"`trust` has the package {name!r}, which is not installed.")
        importlib.import_module(name)
    return tuple(packages)


def check(model: Any, custom_objects: Any, max_bytes: int, trust: Sequence[str] = ()) -> None:
    """Checks all that a serialized model names.

    Args:
        trust: packages whose classes it may name.

    Raises:
        ValueError: naming what it may not.
    """
    layers, most = 0, max(_LEAST_LAYERS, max_bytes // _BYTES_PER_LAYER)
    for value in _dicts(model):
        if "class_name" in value:
            _check_class(value, custom_objects, trust)
        listed = value.get("layers")
        layers += len(listed) if isinstance(listed, list) else 0
        if layers > most:
            raise ValueError(f"it has more than the {most:,} layers that max_bytes={max_bytes:,} allows")
        nodes = value.get("inbound_nodes", [])
        if not isinstance(nodes, list):
            raise ValueError("the calls of a layer are no list")
        for node in nodes:
            # What is called on constants alone would be run as it is read, rather than become a part of the model.
            if not isinstance(node, dict) or not _has_symbol(node):
                raise ValueError(f"layer {str(value.get('name'))[:60]!r} is called on constants")


def names_own_code(model: Any, custom_objects: Any) -> bool:
    """Tells whether a serialized model has classes that are neither Keras's nor this library's."""
    for value in _dicts(model):
        if "class_name" in value:
            found = keras.saving.get_registered_object(
                value.get("registered_name") or value["class_name"], custom_objects
            )
            if found is not None and not getattr(found, "__module__", "").startswith(("keras.", "keras_popup.")):
                return True
    return False


def _values(value: Any, literals: bool = True) -> Iterator[Any]:
    """Yields JSON and all that is in it, the outer before the inner. Without `literals`, nothing inside of objects."""
    pending = [value]
    while pending:
        value = pending.pop()
        yield value
        if isinstance(value, list):
            pending += value
        elif isinstance(value, dict) and (literals or "class_name" not in value):
            pending += value.values()


def _dicts(value: Any) -> Iterator[dict[str, Any]]:
    """Yields all objects in JSON, the outer ones first."""
    return (each for each in _values(value) if isinstance(each, dict))


def _leaves(value: Any) -> Iterator[Any]:
    """Yields what is in JSON's lists and objects."""
    return (each for each in _values(value) if not isinstance(each, (dict, list)))


def _has_symbol(node: Any) -> bool:
    """Tells whether the arguments of a call hold an output of a layer, outside of literals."""
    for value in _values(node, literals=False):
        if isinstance(value, dict) and value.get("class_name") == "__keras_tensor__":
            config = value.get("config")
            if isinstance(config, dict) and config.get("keras_history"):
                return True
    return False


def _check_class(value: dict[str, Any], custom_objects: Any, trust: Sequence[str]) -> None:
    name, module, config = value["class_name"], value.get("module"), value.get("config")
    registered = value.get("registered_name") or name
    if name == "function":
        name = registered = config  # as Keras looks it up
    if not all(isinstance(text, str) for text in (name, registered, module or "")):
        raise ValueError(f"it names a class {str(name)[:60]!r}")
    if name in _LITERALS:
        if name in _ARRAYS:
            _check_array(config)
        return
    if "module" not in value:  # Keras would read it as a file of its earlier versions, and look the class up elsewhere
        raise ValueError(f"it names a class {name[:60]!r} without its module")
    found = keras.saving.get_registered_object(registered, custom_objects)
    if found is not None:
        ours = getattr(found, "__module__", "").startswith("keras_popup.")
        if not ours or (isinstance(found, type) and issubclass(found, (keras.initializers.Initializer, Selector))):
            return
    elif value["class_name"] == "function":
        if module in ("builtins", "keras.activations") and name in _ACTIVATIONS:
            return
    elif _is_of_keras(module, name):
        if name in _MANY_OUTPUTS and any(type(n) is int and n > _MOST_OUTPUTS for n in _leaves(value)):
            raise ValueError(f"it has an operation {name} of more than {_MOST_OUTPUTS:,} outputs")
        if isinstance(config, dict) and (argument := next((each for each in _AT_ONCE if config.get(each)), None)):
            raise ValueError(f"layer {str(config.get('name'))[:60]!r} has {argument}={str(config[argument])[:60]}")
        return
    elif _is_of_trusted(module, name, trust):
        return
    package = str(module).partition(".")[0]
    of_package = ""
    if package.isidentifier() and package not in ("keras", "keras_popup", "builtins") and package not in trust:
        of_package = (
            f"; if it is of the installed package {package}, and you trust that, trust=({package!r},) allows it"
        )
    raise ValueError(
        f"it names {str(module)[:60]}.{name[:60]}, which a ticket may not name. What is your own must be registered, "
        "by keras.saving.register_keras_serializable, and imported, or be given to load_ticket in custom_objects"
        f"{of_package}"
    )


def _is_of_trusted(module: Any, name: str, trust: Sequence[str]) -> bool:
    """Tells whether a name is that of a layer, model or the like in a package that is trusted."""
    if str(module).partition(".")[0] not in trust:
        return False
    symbol = getattr(sys.modules.get(str(module)), name, None)
    bases = (keras.Operation, keras.initializers.Initializer, keras.regularizers.Regularizer)
    return isinstance(symbol, type) and issubclass(symbol, bases)


def _is_of_keras(module: Any, name: str) -> bool:
    inner = ".".join([*str(module).split(".")[:3], ""])
    bases = _BASES.get(module) or _BASES.get(inner)
    if not bases or name in REFUSED or (module == "keras.src.ops.core" and name not in _CORE):
        return False
    symbol = getattr(sys.modules.get(module), name, None)
    return isinstance(symbol, type) and issubclass(symbol, bases) and symbol.__name__ not in REFUSED


def _check_array(config: Any) -> None:
    """Checks a literal array: numbers, of a type whose size they have."""
    if not isinstance(config, dict) or not set(config) <= {"value", "dtype"} or config.get("dtype") not in DTYPES:
        raise ValueError(f"it holds an array that is none: {str(config)[:60]}")
    if not all(isinstance(number, (int, float)) for number in _leaves(config.get("value"))):
        raise ValueError(f"it holds an array of something else than numbers: {str(config)[:60]}")
