"""The classes and functions that the architecture in a stranger's file may name.

Keras's safe mode refuses lambdas, but little else: while Keras reads an architecture, the file can make it call any
function of Keras on constants. Here, an architecture may only name layers, operations, initializers and similar classes
that a list allows, and objects that the user has registered or passed.
"""

import importlib.util
import inspect
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import keras

from keras_popup.selectors import Selector
from keras_popup.tickets.file_format import DTYPES

# The base classes that a class from each module of Keras must have.
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
    # Keras's internal layers, such as those of its applications.
    "keras.src.applications.": (keras.layers.Layer,),
    "keras.src.layers.": (keras.layers.Layer,),
    **dict.fromkeys(
        [f"keras.src.ops.{name}" for name in ("core", "image", "linalg", "math", "nn", "numpy")], (keras.Operation,)
    ),
}

REFUSED = {"FlaxLayer", "JaxLayer", "Lambda", "TFSMLayer", "TorchModuleWrapper"}
"""Layers that call functions from their config, or read files."""

# The operations of `keras.src.ops.core` that do not call a function.
_CORE = {"Cast", "SaturateCast", "Scatter", "ScatterUpdate", "Slice", "SliceUpdate", "StopGradient", "Unstack"}

# Operations whose config sets the number of outputs.
_MANY_OUTPUTS = {"ArraySplit", "Split", "Unstack"}
_MOST_OUTPUTS = 4096

# Arguments with which layers allocate arrays at once, of sizes that the file sets.
_AT_ONCE = ("lora_rank", "stateful")

_ACTIVATIONS = {name for name, value in vars(keras.activations).items() if inspect.isfunction(value)}
_ACTIVATIONS -= {"deserialize", "get", "serialize"}

# The class names of values that Keras serializes as objects.
_ARRAYS = {"__numpy__", "__tensor__"}
_LITERALS = {"__bytes__", "__complex__", "__ellipsis__", "__keras_tensor__", "__slice__", *_ARRAYS}

# The limit for the number of layers, because Keras is slow with many layers.
_LEAST_LAYERS = 256
_BYTES_PER_LAYER = 1 << 21
_CONNECTIONS_PER_LAYER = 4  # inputs of calls; large networks have one or two a layer


def import_trusted(packages: Sequence[str]) -> tuple[str, ...]:
    """Imports packages, so that their classes are registered with Keras.

    Raises:
        TypeError: if `packages` is not a list or tuple of names.
        ImportError: if a package is not installed.
    """
    if isinstance(packages, str) or not all(isinstance(name, str) and name.isidentifier() for name in packages):
        raise TypeError(
            f"`trust` must be a list or tuple of package names, such as ('keras_hub',). Received: {packages!r}."
        )
    for name in packages:
        if importlib.util.find_spec(name) is None:
            raise ImportError(f"`trust` has the package {name!r}, which is not installed. Install it, or leave it out.")
        importlib.import_module(name)
    return tuple(packages)


def check(model: Any, custom_objects: dict[str, Any] | None, max_bytes: int, trust: Sequence[str] = ()) -> None:
    """Checks all classes and functions that a serialized model names, and how many layers, calls of them and
    connections it has.

    Args:
        model: the serialized model, or other JSON.
        custom_objects: as in `load_ticket`.
        max_bytes: as in `load_ticket`.
        trust: packages whose classes the model may name.

    Raises:
        ValueError: if the model names something else, or is too large.
    """
    count, limit = 0, max(_LEAST_LAYERS, max_bytes // _BYTES_PER_LAYER)
    connections = calls = 0
    for value in _walk_objects(model):
        connections += value.get("class_name") == "__keras_tensor__"
        if connections > _CONNECTIONS_PER_LAYER * limit:
            allowed = _CONNECTIONS_PER_LAYER * limit
            raise ValueError(f"it has more than the {allowed:,} connections that max_bytes={max_bytes:,} allows")
        if "class_name" in value:
            _check_class(value, custom_objects, trust)
        layers = value.get("layers")
        count += len(layers) if isinstance(layers, list) else 0
        if count > limit:
            raise ValueError(f"it has more than the {limit:,} layers that max_bytes={max_bytes:,} allows")
        nodes = value.get("inbound_nodes", [])
        if not isinstance(nodes, list):
            raise ValueError("the calls of a layer are not a list")
        calls += len(nodes)
        if calls > limit:
            raise ValueError(f"it has more than the {limit:,} calls of layers that max_bytes={max_bytes:,} allows")
        for node in nodes:
            # A call on constants alone would run while the file is read, and would not become a part of the model.
            if not isinstance(node, dict) or not _has_symbol(node):
                raise ValueError(f"layer {str(value.get('name'))[:60]!r} is called on constants")


def names_own_code(model: Any, custom_objects: dict[str, Any] | None) -> bool:
    """Tells whether a serialized model names classes or functions that are not from Keras or this library."""
    for value in _walk_objects(model):
        if "class_name" in value:
            found = keras.saving.get_registered_object(
                value.get("registered_name") or value["class_name"], custom_objects
            )
            if found is not None and not getattr(found, "__module__", "").startswith(("keras.", "keras_popup.")):
                return True
    return False


def _walk(value: Any, literals: bool = True) -> Iterator[Any]:
    """Yields a JSON value and all values inside, outer ones first. Without `literals`, it skips the inside of objects
    with a class name.
    """
    pending = [value]
    while pending:
        value = pending.pop()
        yield value
        if isinstance(value, list):
            pending += value
        elif isinstance(value, dict) and (literals or "class_name" not in value):
            pending += value.values()


def _walk_objects(value: Any) -> Iterator[dict[str, Any]]:
    """Yields all objects (dicts) in a JSON value, outer ones first."""
    return (item for item in _walk(value) if isinstance(item, dict))


def _walk_leaves(value: Any) -> Iterator[Any]:
    """Yields all values in a JSON value that are not lists or objects."""
    return (item for item in _walk(value) if not isinstance(item, (dict, list)))


def _has_symbol(node: Any) -> bool:
    """Tells whether the arguments of a call contain an output of a layer, outside of literals."""
    for value in _walk(node, literals=False):
        if isinstance(value, dict) and value.get("class_name") == "__keras_tensor__":
            config = value.get("config")
            if isinstance(config, dict) and config.get("keras_history"):
                return True
    return False


def _check_class(value: dict[str, Any], custom_objects: dict[str, Any] | None, trust: Sequence[str]) -> None:
    name, module, config = value["class_name"], value.get("module"), value.get("config")
    registered = value.get("registered_name") or name
    if name == "function":
        name = registered = config  # Keras looks functions up by their config
    if not all(isinstance(text, str) for text in (name, registered, module or "")):
        raise ValueError(f"it names a class {str(name)[:60]!r}, which is not a text")
    if name in _LITERALS:
        if name in _ARRAYS:
            _check_array(config)
        return
    if "module" not in value:  # Keras would take it for the format of earlier versions and find another class
        raise ValueError(f"it names a class {name[:60]!r} without its module")
    found = keras.saving.get_registered_object(registered, custom_objects)
    if found is not None:
        ours = getattr(found, "__module__", "").startswith("keras_popup.")
        allowed = not isinstance(found, type) or issubclass(found, (keras.initializers.Initializer, Selector))
        if not ours or allowed:
            return
    elif value["class_name"] == "function":
        if module in ("builtins", "keras.activations") and name in _ACTIVATIONS:
            return
    elif _is_from_keras(module, name):
        if name in _MANY_OUTPUTS and any(type(n) is int and n > _MOST_OUTPUTS for n in _walk_leaves(value)):
            raise ValueError(f"it has an operation {name} of more than {_MOST_OUTPUTS:,} outputs")
        if isinstance(config, dict) and (argument := next((name for name in _AT_ONCE if config.get(name)), None)):
            layer = str(config.get("name"))[:60]
            raise ValueError(
                f"layer {layer!r} has {argument}={str(config[argument])[:60]}, which a ticket may not have"
            )
        return
    elif _is_from_trusted(module, name, trust):
        return
    package = str(module).partition(".")[0]
    advice = ""
    if package.isidentifier() and package not in ("keras", "keras_popup", "builtins") and package not in trust:
        advice = f". If it is from the installed package {package} and you trust that, use trust=({package!r},)"
    raise ValueError(
        f"it names {str(module)[:60]}.{name[:60]}, which a ticket may not name. Your own classes must be registered "
        "with keras.saving.register_keras_serializable and imported, or be passed to load_ticket in custom_objects"
        f"{advice}"
    )


def _is_from_trusted(module: Any, name: str, trust: Sequence[str]) -> bool:
    """Tells whether a name belongs to a layer, operation, initializer or regularizer of a trusted package."""
    if str(module).partition(".")[0] not in trust:
        return False
    symbol = getattr(sys.modules.get(str(module)), name, None)
    bases = (keras.Operation, keras.initializers.Initializer, keras.regularizers.Regularizer)
    return isinstance(symbol, type) and issubclass(symbol, bases)


def _is_from_keras(module: Any, name: str) -> bool:
    """Tells whether a name belongs to a class of Keras that a ticket may name."""
    inner = ".".join([*str(module).split(".")[:3], ""])
    bases = _BASES.get(module) or _BASES.get(inner)
    if not bases or name in REFUSED or (module == "keras.src.ops.core" and name not in _CORE):
        return False
    symbol = getattr(sys.modules.get(module), name, None)
    return isinstance(symbol, type) and issubclass(symbol, bases) and symbol.__name__ not in REFUSED


def _check_array(config: Any) -> None:
    """Raises ValueError unless the config of a literal array has numbers only, and a dtype of fixed size."""
    if not isinstance(config, dict) or not set(config) <= {"value", "dtype"} or config.get("dtype") not in DTYPES:
        raise ValueError(f"it holds an array that is not valid: {str(config)[:60]}")
    if not all(isinstance(number, (int, float)) for number in _walk_leaves(config.get("value"))):
        raise ValueError(f"it holds an array with items that are not numbers: {str(config)[:60]}")
