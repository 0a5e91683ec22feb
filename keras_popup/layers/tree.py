"""What layers and models hold: the tree of layers, and where each layer is in it."""

import contextlib
import functools
import re
from collections.abc import Iterator
from typing import Any

import keras

from keras_popup import _keras

Place = tuple[Any, ...]

HIDDEN = "_layers"
"""The first step of the places of layers that Keras knows and no attribute holds in a known way."""

_GRAPHS = (keras.Sequential, _keras.Functional)


@functools.cache
def _bookkeeping() -> set[str]:
    """Returns the attributes that Keras keeps for itself in every layer and model."""
    # With names, as Keras counts those that it makes up.
    own = {*vars(keras.layers.Layer(name="layer")), *vars(keras.Model(name="model"))}
    return {*own, *_keras.TRACKING_OF_TENSORFLOW, "_functional", "_compiled_trainable_state"}


def is_graph(layer: Any) -> bool:
    """Tells whether a layer is a Sequential or Functional model whose config tells all its layers."""
    kind = type(layer)
    if isinstance(layer, keras.Sequential):
        return kind.call is keras.Sequential.call and kind.get_config is keras.Sequential.get_config
    return (
        isinstance(layer, _keras.Functional)
        and kind.call is _keras.Functional.call
        and kind.get_config is _keras.Functional.get_config
        and _keras.functional_like_constructor(kind)
    )


def get_parts(layer: Any) -> dict[Place, Any]:
    """Returns the layers that a layer holds directly, by their places.

    A place is the number of the layer in a Sequential or Functional model, and elsewhere the attribute, with index or
    key where the attribute is a list or dict: ("ffn",), ("blocks", 0).
    """
    found: dict[Place, Any] = {}
    if isinstance(layer, _GRAPHS):
        found = {(number,): part for number, part in enumerate(layer.layers)}
    else:
        for name, value in vars(layer).items():
            if name not in _bookkeeping():
                found |= {(name, *path): part for path, part in _held(value)}
    # What is held in another way, such as under other keys, Keras knows all the same.
    seen = {id(part) for part in found.values()}
    hidden = [part for part in layer._layers if id(part) not in seen and not _is_input_of(layer, part)]
    return found | {(HIDDEN, number): part for number, part in enumerate(hidden)}


def _is_input_of(layer: Any, part: Any) -> bool:
    return isinstance(layer, keras.Sequential) and isinstance(part, keras.layers.InputLayer)


def _held(value: Any) -> Iterator[tuple[Place, Any]]:
    if isinstance(value, keras.layers.Layer):
        yield (), value
    elif isinstance(value, (list, tuple, dict)):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            if isinstance(key, (str, int)):
                for path, part in _held(inner):
                    yield (key, *path), part


def put_part(layer: Any, place: Place, part: Any) -> None:
    """Puts a layer at a place in one that holds others, instead of what is there."""

    def exchange_in(value: Any, path: Place) -> Any:
        if not path:
            return part
        if isinstance(value, tuple):
            changed = [*value]
            changed[path[0]] = exchange_in(value[path[0]], path[1:])
            return type(value)(*changed) if hasattr(value, "_fields") else tuple(changed)
        value[path[0]] = exchange_in(value[path[0]], path[1:])
        return value

    name, *path = place
    before = get_parts(layer)[place]
    with _keras.unlocked(layer):
        _keras.exchange_sublayer(layer, before, part)
        setattr(layer, name, exchange_in(getattr(layer, name), tuple(path)))


def walk_parts(layer: Any, path: Place = (), seen: set[int] | None = None) -> Iterator[tuple[Place, Any]]:
    """Yields (path, layer) for all that a layer holds at any depth, each once: the steps of a path are places."""
    seen = {id(layer)} if seen is None else seen
    for place, part in get_parts(layer).items():
        if id(part) not in seen:
            seen.add(id(part))
            yield (*path, *place), part
            yield from walk_parts(part, (*path, *place), seen)


def walk(
    layer: Any, path: str = "", seen: set[int] | None = None, in_code: bool = False, shown: bool = False
) -> Iterator[tuple[str, Any]]:
    """Yields (path, layer) for all that a layer holds at any depth, each layer once, those that hold others first.

    A step of a path is a layer's name. Inside of a layer with code of its own (`in_code`) Keras makes up other names
    each time the code is run: there it is the layer's place, the attribute or the number in a Sequential or
    Functional model: "encoder/attention/query", "encoder/stem/0".

    Args:
        shown: bool, whether the paths are for people: layers of a Functional model that code makes have their names.
    """
    seen = set() if seen is None else seen
    named = shown and isinstance(layer, _GRAPHS) and not is_graph(layer)
    in_code = in_code or not is_graph(layer)
    for place, part in get_parts(layer).items():
        if id(part) not in seen:
            seen.add(id(part))
            # A recurrent layer of Keras names its cell itself.
            made_up = is_name_made_up(part) and not (named or isinstance(layer, keras.layers.RNN))
            step = "/".join(map(str, place)) if in_code and made_up else part.name
            below = f"{path}/{step}" if path else step
            yield below, part
            yield from walk(part, below, seen, in_code, shown)


def is_name_made_up(layer: Any) -> bool:
    """Tells whether a layer's name is made from that of its class, which gives another number each time."""
    # Bidirectional puts a word before the names of its layers.
    stem = re.sub(r"^(forward|backward)_|(_\d+)?$", "", layer.name).replace("_", "")
    names = {kind.__name__.lower().replace("_", "") for kind in type(layer).__mro__}
    return stem in names | {name.removeprefix("masked") for name in names}


def pair_layers(layer: Any, twin: Any, seen: set[int] | None = None) -> Iterator[tuple[Any, Any]]:
    """Yields (layer, its twin) for a layer and all it holds that its twin holds at the same place, each layer once.

    Raises:
        ValueError: if the two do not hold as many layers.
    """
    seen = set() if seen is None else seen
    if id(layer) in seen:
        return
    seen.add(id(layer))
    yield layer, twin
    here, there = get_parts(layer), get_parts(twin)
    if len(here) != len(there) and not layer.variables and not twin.variables:
        # Such as those of a tokenizer, which makes some as they are needed.
        here = {place: part for place, part in here.items() if place in there}
        there = {place: there[place] for place in here}
    if len(here) != len(there):
        raise ValueError(
            f"A copy of '{layer.name}' ({type(layer).__name__}), made from its config, holds other layers than it "
            f"does: {len(there)}, not {len(here)}. Its `get_config` must tell all that its constructor is given."
        )
    if set(here) != set(there):
        there = dict(zip(here, there.values(), strict=True))
    for place, part in here.items():
        yield from pair_layers(part, there[place], seen)


def is_bookkeeping(attribute: str) -> bool:
    """Tells whether an attribute of a layer is Keras's, or not public."""
    return attribute.startswith("_") or attribute in _bookkeeping()


def own_weights(layer: Any) -> list[Any]:
    """Returns the weights of a layer without those of the layers it holds."""
    below = {id(weight) for part in get_parts(layer).values() for weight in part.weights}
    return [weight for weight in layer.weights if id(weight) not in below]


@contextlib.contextmanager
def hide_compilation(layer: Any) -> Iterator[None]:
    """Hides from Keras that a model is compiled, so that it does not compile a copy, which takes an optimizer."""
    compiled = getattr(layer, "compiled", False)
    try:
        if compiled:
            layer.compiled = False
        yield
    finally:
        if compiled:
            layer.compiled = True
