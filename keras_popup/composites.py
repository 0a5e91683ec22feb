"""Layers that hold other layers: what they hold, and the exchange of some of it for masked layers."""

import contextlib
import copy as copy_module
import functools
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import keras

if TYPE_CHECKING:
    _AnyLayer = Any
else:
    _AnyLayer = object

# What Keras keeps for itself in every layer and model; TensorFlow's own begins with "_self_".
_BOOKKEEPING = {
    *vars(keras.layers.Layer()),
    *vars(keras.Model()),
    "_functional",
    "_compiled_trainable_state",
    "_popup_exchange",
}


HIDDEN = "_layers"
"""The first step of the places of layers that cannot be exchanged, as the attribute that holds them is not known."""

_INPUT = keras.Input((1,))
_GRAPHS = (keras.Sequential, type(keras.Model(_INPUT, _INPUT)))  # Keras does not export its Functional


def is_graph(layer: Any) -> bool:
    """Tells whether a layer is a Sequential or Functional model without a forward pass of its own."""
    return any(isinstance(layer, kind) and type(layer).call is kind.call for kind in _GRAPHS)


def parts(layer: Any) -> dict[tuple[Any, ...], Any]:
    """Returns the layers that a layer holds directly, by their places.

    A place is the layer's name in a Sequential or Functional model, and elsewhere the attribute, with index or
    key where the attribute is a list or dict: ("ffn",), ("blocks", 0).
    """
    if isinstance(layer, _GRAPHS):
        return {(part.name,): part for part in layer.layers}
    found: dict[tuple[Any, ...], Any] = {}
    for name, value in vars(layer).items():
        if name not in _BOOKKEEPING and not name.startswith("_self_"):
            found |= {(name, *path): part for path, part in _held(value)}
    # What is held in another way, such as under other keys, Keras knows all the same.
    seen = {id(part) for part in found.values()}
    return found | {(HIDDEN, i): part for i, part in enumerate(layer._layers) if id(part) not in seen}


def _held(value: Any) -> Iterator[tuple[tuple[Any, ...], Any]]:
    if isinstance(value, keras.layers.Layer):
        yield (), value
    elif isinstance(value, (list, tuple, dict)):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            if isinstance(key, (str, int)):
                for path, part in _held(inner):
                    yield (key, *path), part


def put(layer: Any, place: tuple[Any, ...], part: Any) -> None:
    """Puts a layer at a place in one that holds others, instead of what is there."""

    def exchanged_in(value: Any, path: tuple[Any, ...]) -> Any:
        if not path:
            return part
        if isinstance(value, tuple):
            changed = [*value]
            changed[path[0]] = exchanged_in(value[path[0]], path[1:])
            return type(value)(*changed) if hasattr(value, "_fields") else tuple(changed)
        value[path[0]] = exchanged_in(value[path[0]], path[1:])
        return value

    name, *path = place
    before = parts(layer)[place]
    layer._tracker.unlock()
    if layer._tracker.is_in_store("layers", part):
        layer._tracker.untrack(before)
    else:
        layer._tracker.replace_tracked_value("layers", before, part)
    setattr(layer, name, exchanged_in(getattr(layer, name), tuple(path)))


def walk(layer: Any, path: str = "", seen: set[int] | None = None, in_code: bool = False) -> Iterator[tuple[str, Any]]:
    """Yields (path, layer) for all that a layer holds at any depth, each layer once, those that hold others first.

    A step of a path is a layer's name. Inside of a layer with code of its own (`in_code`) Keras makes up other names
    each time the code is run: there it is the layer's place, the attribute or the index in a Sequential or
    Functional model: "encoder/attention/query", "encoder/stem/0".
    """
    seen = set() if seen is None else seen
    graph = isinstance(layer, _GRAPHS)
    in_code = in_code or not graph
    for index, (place, part) in enumerate(parts(layer).items()):
        if id(part) not in seen:
            seen.add(id(part))
            here = str(index) if graph else "/".join(map(str, place))
            step = here if in_code and _is_made_up(part) else part.name
            below = f"{path}/{step}" if path else step
            yield below, part
            yield from walk(part, below, seen, in_code)


def _is_made_up(layer: Any) -> bool:
    """Tells whether a layer's name is made from that of its class, which gives another number each time."""
    stem = re.sub(r"(_\d+)?$", "", layer.name).replace("_", "")
    name = type(layer).__name__.lower()
    return stem in (name, name.removeprefix("masked"))


def pairs(layer: Any, twin: Any, seen: set[int] | None = None) -> Iterator[tuple[Any, Any]]:
    """Yields (layer, its twin) for a layer and all it holds that its twin holds at the same place, each layer once."""
    seen = set() if seen is None else seen
    if id(layer) in seen:
        return
    seen.add(id(layer))
    yield layer, twin
    here, there = parts(layer), parts(twin)
    if isinstance(layer, _GRAPHS) and set(here) != set(there):  # with names that Keras has made up anew
        if len(here) != len(there):
            raise ValueError(
                f"A copy of '{layer.name}' ({type(layer).__name__}), made from its config, holds other layers than it "
                f"does: {len(there)}, not {len(here)}. Its `get_config` must tell all that its constructor is given."
            )
        there = dict(zip(here, there.values(), strict=True))
    for place, part in here.items():
        if place in there:
            yield from pairs(part, there[place], seen)


def own_weights(layer: Any) -> list[Any]:
    """Returns the weights of a layer without those of the layers it holds."""
    below = {id(weight) for part in parts(layer).values() for weight in part.weights}
    return [weight for weight in layer.weights if id(weight) not in below]


def copy(layer: Any) -> Any:
    """Returns a new layer of the same class and config. Its weights are new, too."""
    return type(layer).from_config(copy_module.deepcopy(layer.get_config()))


def exchanged(layer: Any, exchange: dict[tuple[Any, ...], Any]) -> Any:
    """Returns a copy of a layer that holds other layers at some places.

    Where the layer was given those layers by its constructor, it stays of its class. Where its own code
    makes them they are exchanged after the code has run, in a subclass made for it: see `MaskedComposite`.

    Args:
        layer: a layer or model that holds layers, no Sequential or Functional model.
        exchange: the layers to put in, by place.

    Raises:
        Exception: whatever the layer's own code raises.
    """
    if isinstance(layer, _GRAPHS):
        raise ValueError("it is a Sequential or Functional model with a forward pass of its own")
    config = copy_module.deepcopy(layer.get_config())
    if all(len(place) == 1 and _is_serialized_layer(config.get(place[0])) for place in exchange):
        arguments = {name: _plainly_serialized(part) for (name,), part in exchange.items()}
        twin = type(layer).from_config({**config, **arguments})
        if not set(exchange) <= set(parts(twin)):
            raise ValueError(f"its copy does not hold layers at {sorted(exchange)}")
        for place, part in exchange.items():
            put(twin, place, part)  # the layer itself, which others may share
        return twin
    return _composite(type(layer), _plainly_serialized(layer), exchange)


def _is_serialized_layer(value: Any) -> bool:
    return isinstance(value, dict) and {"class_name", "config"} <= set(value)


def _plainly_serialized(layer: Any) -> dict[str, Any]:
    """Serializes a layer without what would build or compile it where it is read: who holds it does so."""
    with uncompiled(layer):
        serialized = keras.saving.serialize_keras_object(layer)
    return {key: value for key, value in serialized.items() if key not in ("build_config", "compile_config")}


@contextlib.contextmanager
def uncompiled(layer: Any) -> Iterator[None]:
    """Hides from Keras that a model is compiled, so that it does not compile a copy, which takes an optimizer."""
    compiled = getattr(layer, "compiled", False)
    try:
        if compiled:
            layer.compiled = False
        yield
    finally:
        if compiled:
            layer.compiled = True


@keras.saving.register_keras_serializable("keras_popup")
class MaskedComposite(_AnyLayer):
    """Mixed in before the class of a layer whose code makes layers: some of them are exchanged afterwards.

    It is how `mask_model` puts masked layers into MultiHeadAttention, into a user's own blocks and into
    subclassed models. A layer is exchanged as soon as it is there: when the constructor has made it, or the
    `build` method. The config holds the stock layer's and those of the layers put in.
    """

    _popup_stock_class: Any
    _popup_stock: dict[str, Any]  # the stock layer, serialized
    _popup_places: tuple[tuple[Any, ...], ...]  # where layers are exchanged
    _popup_frozen: tuple[tuple[Any, ...], ...]  # where others are frozen; () stands for the layer's own weights
    _popup_exchange: dict[tuple[Any, ...], Any]  # what is still to be put in

    def _put_in(self) -> None:
        there = parts(self)
        for place in [place for place in self._popup_exchange if place in there]:
            stock, part = there[place], self._popup_exchange.pop(place)
            if stock.built and not part.built:
                part.build_from_config(stock.get_build_config())
                part.built = True
            put(self, place, part)
        for place, part in parts(self).items():
            if place in self._popup_frozen:
                part.trainable = False
        if () in self._popup_frozen:
            for weight in own_weights(self):
                weight.trainable = False

    def stock_copy(self) -> Any:
        """Returns a new layer of the stock class, with the layers that its own code makes."""
        return self._popup_stock_class.from_config(copy_module.deepcopy(self._popup_stock["config"]))

    def get_config(self) -> dict[str, Any]:
        there = parts(self)
        frozen = [place for place, part in there.items() if place not in self._popup_places and not part.trainable]
        if self.trainable and own_weights(self) and not any(weight.trainable for weight in own_weights(self)):
            frozen.append(())
        config = self._popup_stock["config"]
        if "trainable" in config:
            config = {**config, "trainable": self.trainable}
        return {
            "layer": {**self._popup_stock, "config": config},
            "exchange": [[list(place), _plainly_serialized(there[place])] for place in self._popup_places],
            "frozen": [list(place) for place in frozen],
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        exchange = {tuple(place): keras.saving.deserialize_keras_object(part) for place, part in config["exchange"]}
        frozen = tuple(tuple(place) for place in config["frozen"])
        stock_class = type(keras.saving.deserialize_keras_object(copy_module.deepcopy(config["layer"])))
        return _composite(stock_class, config["layer"], exchange, frozen)


def _composite(
    stock_class: Any,
    stock: dict[str, Any],
    exchange: dict[tuple[Any, ...], Any],
    frozen: tuple[tuple[Any, ...], ...] = (),
) -> Any:
    """Returns a layer of `stock_class`, serialized in `stock`, with other layers at some places."""
    composite_class = _composite_class(stock_class)
    layer = super(MaskedComposite, composite_class).from_config(copy_module.deepcopy(stock["config"]))
    if type(layer) is not composite_class:
        raise ValueError(f"its `from_config` does not make an object of the class that it is called on: {type(layer)}")
    layer._popup_places, layer._popup_frozen = tuple(exchange), frozen
    # Past Keras, which would track what is in them as parts of the layer.
    object.__setattr__(layer, "_popup_stock", stock)
    object.__setattr__(layer, "_popup_exchange", dict(exchange))
    layer._put_in()
    if layer._popup_exchange and not hasattr(composite_class, "_popup_builds"):
        raise ValueError(f"its copy does not make layers at {sorted(layer._popup_exchange)}")
    return layer


@functools.cache
def _composite_class(stock_class: Any) -> Any:
    members: dict[str, Any] = {
        "__module__": __name__,
        "__doc__": stock_class.__doc__,
        "_popup_stock_class": stock_class,
    }
    if not getattr(stock_class.build, "_is_default", False):

        @functools.wraps(stock_class.build)  # Keras reads the names of its arguments
        def build(self: Any, *args: Any, **kwargs: Any) -> None:
            stock_class.build(self, *args, **kwargs)
            self._put_in()
            if self._popup_exchange:
                raise ValueError(
                    f"Layer '{self.name}' ({stock_class.__name__}) makes no layers at {sorted(self._popup_exchange)}, "
                    "where masked ones are to be. Was its code changed since it was converted?"
                )

        members |= {"build": build, "_popup_builds": True}
    composite_class = type(f"Masked{stock_class.__name__}", (MaskedComposite, stock_class), members)
    # All of them are read back by the same `from_config`, which finds the stock class in the config.
    return keras.saving.register_keras_serializable("keras_popup", "MaskedComposite")(composite_class)
