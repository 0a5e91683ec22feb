"""Layers that hold other layers: what they hold, and the exchange of some of it for masked layers."""

import functools
import operator
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
    "_exchange",
}


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
    found = {}
    for name, value in vars(layer).items():
        if name in _BOOKKEEPING or name.startswith("_self_"):
            continue
        if isinstance(value, keras.layers.Layer):
            found[(name,)] = value
        elif isinstance(value, (list, tuple, dict)):
            for path, part in keras.tree.flatten_with_path(value):
                if isinstance(part, keras.layers.Layer):
                    found[(name, *path)] = part
    return found


def walk(layer: Any, path: str = "", seen: set[int] | None = None) -> Iterator[tuple[str, Any]]:
    """Yields (path, layer) for all that a layer holds at any depth, each layer once, those that hold others first.

    A step of a path is a layer's name, or its place where Keras has made up the name: "encoder/attention/query".
    """
    seen = set() if seen is None else seen
    named = isinstance(layer, _GRAPHS)
    for place, part in parts(layer).items():
        if id(part) not in seen:
            seen.add(id(part))
            step = part.name if named or not _is_made_up(part) else "/".join(map(str, place))
            below = f"{path}/{step}" if path else step
            yield below, part
            yield from walk(part, below, seen)


def _is_made_up(layer: Any) -> bool:
    """Tells whether a layer's name is made from that of its class, which gives another number each time."""
    stem = re.sub(r"(_\d+)?$", "", layer.name).replace("_", "")
    name = type(layer).__name__.lower()
    return stem in (name, name.removeprefix("masked"))


def pairs(layer: Any, twin: Any, seen: set[int] | None = None) -> Iterator[tuple[Any, Any]]:
    """Yields (layer, its twin) for a layer and all it holds that its twin holds at the same place, each layer once."""
    seen = set() if seen is None else seen
    if id(layer) in seen or twin is layer:
        return
    seen.add(id(layer))
    yield layer, twin
    here, there = parts(layer), parts(twin)
    if isinstance(layer, _GRAPHS) and set(here) != set(there):  # with names that Keras has made up anew
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
    return type(layer).from_config(layer.get_config())


def exchanged(layer: Any, exchange: dict[tuple[Any, ...], Any]) -> Any:
    """Returns a copy of a layer that holds other layers at some places.

    Layers that were given to its constructor are given to the copy's. Those that its code makes are
    exchanged after the code has run, in a subclass made for the purpose: see `MaskedComposite`.

    Args:
        layer: a layer or model that holds layers, no Sequential or Functional model.
        exchange: the layers to put in, by place.

    Raises:
        Exception: whatever the layer's own code raises.
    """
    if isinstance(layer, _GRAPHS):
        raise ValueError("it is a Sequential or Functional model with a forward pass of its own")
    config = layer.get_config()
    if all(len(place) == 1 and _is_serialized_layer(config.get(place[0])) for place in exchange):
        arguments = {name: keras.saving.serialize_keras_object(part) for (name,), part in exchange.items()}
        return type(layer).from_config({**config, **arguments})
    return _composite(type(layer), _without_build(keras.saving.serialize_keras_object(layer)), exchange)


def _is_serialized_layer(value: Any) -> bool:
    return isinstance(value, dict) and {"class_name", "config"} <= set(value)


def _without_build(serialized: dict[str, Any]) -> dict[str, Any]:
    """Leaves out what would build a layer where it is read, when the one that holds it will do so."""
    return {key: value for key, value in serialized.items() if key != "build_config"}


class MaskedComposite(_AnyLayer):
    """Mixed in before the class of a layer whose code makes layers: some of them are exchanged afterwards.

    It is how `mask_model` puts masked layers into MultiHeadAttention, into a user's own blocks and into
    subclassed models. A layer is exchanged as soon as it is there: when the constructor has made it, or the
    `build` method. The config holds the stock layer's and those of the layers put in.
    """

    _stock_class: Any
    _stock: dict[str, Any]  # the stock layer, serialized
    _places: tuple[tuple[Any, ...], ...]  # where layers are exchanged
    _exchange: dict[tuple[Any, ...], Any]  # what is still to be put in

    def _put_in(self) -> None:
        there = parts(self)
        for place in [place for place in self._exchange if place in there]:
            stock, part = there[place], self._exchange[place]
            if stock.built and not part.built:
                part.build_from_config(stock.get_build_config())
                part.built = True
            self._tracker.unlock()
            self._tracker.replace_tracked_value("layers", stock, part)
            name, *path = place
            if path:
                functools.reduce(operator.getitem, path[:-1], getattr(self, name))[path[-1]] = part
            else:
                setattr(self, name, part)
            del self._exchange[place]

    def stock_copy(self) -> Any:
        """Returns a new layer of the stock class, with the layers that its own code makes."""
        return self._stock_class.from_config(dict(self._stock["config"]))

    def get_config(self) -> dict[str, Any]:
        there = parts(self)
        stock = {**self._stock, "config": {**self._stock["config"], "trainable": self.trainable}}
        exchanged = [
            [list(place), _without_build(keras.saving.serialize_keras_object(there[place]))] for place in self._places
        ]
        return {"layer": stock, "exchange": exchanged}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        exchange = {tuple(place): keras.saving.deserialize_keras_object(part) for place, part in config["exchange"]}
        stock_class = type(keras.saving.deserialize_keras_object(config["layer"]))
        return _composite(stock_class, config["layer"], exchange)


def _composite(stock_class: Any, stock: dict[str, Any], exchange: dict[tuple[Any, ...], Any]) -> Any:
    """Returns a layer of `stock_class`, serialized in `stock`, with other layers at some places."""
    composite_class = _composite_class(stock_class)
    layer = super(MaskedComposite, composite_class).from_config(dict(stock["config"]))
    layer._stock, layer._places = stock, tuple(exchange)
    # Past Keras, which would track what is in it as parts of the layer.
    object.__setattr__(layer, "_exchange", dict(exchange))
    layer._put_in()
    if layer._exchange and not hasattr(composite_class, "_builds"):
        raise ValueError(f"its copy does not make layers at {sorted(layer._exchange)}")
    return layer


@functools.cache
def _composite_class(stock_class: Any) -> Any:
    members: dict[str, Any] = {"__module__": __name__, "__doc__": stock_class.__doc__, "_stock_class": stock_class}
    if not getattr(stock_class.build, "_is_default", False):

        @functools.wraps(stock_class.build)  # Keras reads the names of its arguments
        def build(self: Any, *args: Any, **kwargs: Any) -> None:
            stock_class.build(self, *args, **kwargs)
            self._put_in()
            if self._exchange:
                raise ValueError(
                    f"Layer '{self.name}' ({stock_class.__name__}) makes no layers at {sorted(self._exchange)}, "
                    "where masked ones are to be. Was its code changed since it was converted?"
                )

        members |= {"build": build, "_builds": True}
    composite_class = type(f"Masked{stock_class.__name__}", (MaskedComposite, stock_class), members)
    # All of them are read back by the same `from_config`, which finds the stock class in the config.
    return keras.saving.register_keras_serializable("keras_popup", "MaskedComposite")(composite_class)


keras.saving.register_keras_serializable("keras_popup", "MaskedComposite")(MaskedComposite)
