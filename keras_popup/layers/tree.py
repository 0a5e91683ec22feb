"""The tree of the layers that a layer or model holds, and the location of each layer in it."""

import contextlib
import functools
import re
from collections.abc import Iterator
from typing import Any

import keras

from keras_popup import _keras

Location = tuple[Any, ...]
"""The steps from a layer to one that it holds: attributes, indices and keys, such as ("blocks", 0)."""

HIDDEN = "_layers"
"""The first step to layers that Keras tracks but that no attribute holds directly, or in a list, tuple or dict."""

_GRAPHS = (keras.Sequential, _keras.Functional)


@functools.cache
def _list_bookkeeping() -> set[str]:
    """Returns the attributes that Keras itself sets in every layer and model."""
    # With names, because Keras counts the layers to which it has to give names.
    attributes = {*vars(keras.layers.Layer(name="layer")), *vars(keras.Model(name="model"))}
    return {*attributes, *_keras.TRACKING_OF_TENSORFLOW, "_functional", "_compiled_trainable_state"}


def is_graph(layer: Any) -> bool:
    """Tells whether a layer is a Sequential or Functional model whose config describes all its layers."""
    kind = type(layer)
    if isinstance(layer, keras.Sequential):
        return kind.call is keras.Sequential.call and kind.get_config is keras.Sequential.get_config
    return (
        isinstance(layer, _keras.Functional)
        and kind.call is _keras.Functional.call
        and kind.get_config is _keras.Functional.get_config
        and _keras.functional_like_constructor(kind)
    )


def get_parts(layer: Any) -> dict[Location, Any]:
    """Returns the layers that a layer holds directly, by their locations.

    In a Sequential or Functional model, the location is the index of the layer: (0,). Elsewhere it is the attribute,
    with the index or key if the attribute is a list, tuple or dict: ("ffn",), ("blocks", 0).
    """
    parts: dict[Location, Any] = {}
    if isinstance(layer, _GRAPHS):
        parts = {(index,): part for index, part in enumerate(layer.layers)}
    else:
        for name, value in vars(layer).items():
            if name not in _list_bookkeeping():
                parts |= {(name, *steps): part for steps, part in _find_layers(value)}
    # Keras also tracks layers that are held in another way, such as under keys that are not strings or integers.
    seen = {id(part) for part in parts.values()}
    hidden = [part for part in _keras.list_sublayers(layer) if id(part) not in seen and not _is_input_of(layer, part)]
    return parts | {(HIDDEN, index): part for index, part in enumerate(hidden)}


def _is_input_of(layer: Any, part: Any) -> bool:
    return isinstance(layer, keras.Sequential) and isinstance(part, keras.layers.InputLayer)


def _find_layers(value: Any) -> Iterator[tuple[Location, Any]]:
    """Yields (location, layer) for the layers in the value of an attribute."""
    if isinstance(value, keras.layers.Layer):
        yield (), value
    elif isinstance(value, (list, tuple, dict)):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            if isinstance(key, (str, int)):
                for steps, part in _find_layers(inner):
                    yield (key, *steps), part


def put_part(layer: Any, location: Location, part: Any) -> None:
    """Replaces the layer at a location of `layer` by `part`."""

    def replace(value: Any, steps: Location) -> Any:
        if not steps:
            return part
        if isinstance(value, tuple):
            changed = [*value]
            changed[steps[0]] = replace(value[steps[0]], steps[1:])
            return type(value)(*changed) if hasattr(value, "_fields") else tuple(changed)
        value[steps[0]] = replace(value[steps[0]], steps[1:])
        return value

    name, *steps = location
    before = get_parts(layer)[location]
    with _keras.unlocked(layer):
        _keras.exchange_sublayer(layer, before, part)
        setattr(layer, name, replace(getattr(layer, name), tuple(steps)))


def walk_parts(layer: Any, location: Location = (), seen: set[int] | None = None) -> Iterator[tuple[Location, Any]]:
    """Yields (location, layer) for all layers that a layer holds at any depth, each layer once."""
    seen = {id(layer)} if seen is None else seen
    for steps, part in get_parts(layer).items():
        if id(part) not in seen:
            seen.add(id(part))
            yield (*location, *steps), part
            yield from walk_parts(part, (*location, *steps), seen)


def walk(
    layer: Any, path: str = "", seen: set[int] | None = None, in_code: bool = False, shown: bool = False
) -> Iterator[tuple[str, Any]]:
    """Yields (path, layer) for all layers that a layer holds at any depth. Each layer comes once, after its holder.

    A path is a string of steps: "encoder/attention/query", "encoder/stem/0". A step is usually the name of a layer.
    Inside of a layer or model with its own code, Keras may generate other names each time the code runs. There, a layer
    with a generated name has its location as step: the attribute, or the index in a Sequential or Functional model.

    Args:
        layer: the layer or model to walk through.
        path: str, the path of `layer`.
        seen: ids of the layers to leave out.
        in_code: bool, whether a layer or model with its own code holds `layer`.
        shown: bool, whether the paths are for people. If so, layers directly in a Functional model that code makes
            have their names as steps.
    """
    seen = set() if seen is None else seen
    has_names = shown and isinstance(layer, _GRAPHS) and not is_graph(layer)
    in_code = in_code or not is_graph(layer)
    for location, part in get_parts(layer).items():
        if id(part) not in seen:
            seen.add(id(part))
            # A recurrent layer of Keras always gives its cell the same name.
            generated = is_name_generated(part) and not (has_names or isinstance(layer, keras.layers.RNN))
            step = "/".join(map(str, location)) if in_code and generated else part.name
            below = f"{path}/{step}" if path else step
            yield below, part
            yield from walk(part, below, seen, in_code, shown)


def is_name_generated(layer: Any) -> bool:
    """Tells whether Keras has generated the name of a layer, from the name of its class and a running number."""
    # Bidirectional adds a prefix to the names of its layers.
    stem = re.sub(r"^(forward|backward)_|(_\d+)?$", "", layer.name).replace("_", "")
    names = {kind.__name__.lower().replace("_", "") for kind in type(layer).__mro__}
    return stem in names | {name.removeprefix("masked") for name in names}


def pair_layers(layer: Any, twin: Any, seen: set[int] | None = None) -> Iterator[tuple[Any, Any]]:
    """Yields (layer, twin) for a layer and its copy, and for the layers at the same locations in both. Each comes once.

    Raises:
        ValueError: if the two do not hold the same number of layers.
    """
    seen = set() if seen is None else seen
    if id(layer) in seen:
        return
    seen.add(id(layer))
    yield layer, twin
    parts, twin_parts = get_parts(layer), get_parts(twin)
    if len(parts) != len(twin_parts) and not layer.variables and not twin.variables:
        # A tokenizer, for example, makes some of its layers only when it needs them.
        parts = {location: part for location, part in parts.items() if location in twin_parts}
        twin_parts = {location: twin_parts[location] for location in parts}
    if len(parts) != len(twin_parts):
        raise ValueError(
            f"The copy of '{layer.name}' ({type(layer).__name__}) that was made from its config holds "
            f"{len(twin_parts)} layers. Expected {len(parts)}, as in the original. Its `get_config` must return all "
            "arguments of its constructor."
        )
    if set(parts) != set(twin_parts):
        twin_parts = dict(zip(parts, twin_parts.values(), strict=True))
    for location, part in parts.items():
        yield from pair_layers(part, twin_parts[location], seen)


def is_bookkeeping(attribute: str) -> bool:
    """Tells whether an attribute of a layer is private, or set by Keras itself."""
    return attribute.startswith("_") or attribute in _list_bookkeeping()


def own_weights(layer: Any) -> list[Any]:
    """Returns the weights of a layer without those of its sublayers."""
    of_parts = {id(weight) for part in get_parts(layer).values() for weight in part.weights}
    return [weight for weight in layer.weights if id(weight) not in of_parts]


@contextlib.contextmanager
def hide_compilation(layer: Any) -> Iterator[None]:
    """Hides from Keras that a model is compiled. Otherwise Keras would compile its copy too, with a new optimizer."""
    compiled = getattr(layer, "compiled", False)
    try:
        if compiled:
            layer.compiled = False
        yield
    finally:
        if compiled:
            layer.compiled = True
