"""Layers whose config tells what is masked in them.

A Sequential or Functional model saves the layers that it holds by their own configs. A layer or model whose code makes
its layers saves none of them, so `remember` makes it a `MaskedComposite`: its config holds the stock config, and which
of its layers are masked or frozen, and that is done again after it is built.
"""

import functools
from collections.abc import Iterator
from typing import Any

import keras

from keras_popup import _keras
from keras_popup.layers.frozen_weights import (
    _SWITCHES,
    NORMS,
    _is_off,
    drop,
    freeze_layer,
    freeze_weights,
    thaw_weights,
)
from keras_popup.layers.in_place import change_to_masked
from keras_popup.layers.maskable import is_constructed, masked_class
from keras_popup.layers.masked_kernel import choose_once
from keras_popup.layers.masked_layer import MaskArguments, MaskedLayer, Mixin, is_training, stock_class, stock_of
from keras_popup.layers.stock_configs import to_stock
from keras_popup.layers.tree import get_parts, is_graph, own_weights, walk_parts


def mask_layer(layer: Any, arguments: MaskArguments, *, draw: bool = True) -> None:
    """Makes a masked layer of a built one, in place, as `change_to_masked`. Its config tells so."""
    remembers = isinstance(layer, MaskedComposite)
    change_to_masked(layer, arguments, draw=draw)
    if remembers or not is_constructed(type(layer)):
        remember(layer)


def walk_masked(layer: Any) -> Iterator[Any]:
    """Yields the masked layers that a layer holds at any depth, itself among them."""
    if isinstance(layer, MaskedLayer):
        yield layer
    yield from (part for _, part in walk_parts(layer) if isinstance(part, MaskedLayer))


def remember(layer: Any) -> None:
    """Makes a layer one whose config tells what is masked, frozen or dropped in it."""
    if not isinstance(layer, MaskedComposite):
        kind: Any = type(layer)
        layer.__class__ = composite_class(kind)
        _keras.refresh_call_signature(layer)


def forget(layer: Any) -> None:
    """Undoes `remember`."""
    thaw_weights(layer)
    if isinstance(layer, MaskedComposite):
        layer.__dict__.pop("_popup_pending", None)
        stock: Any = stock_of(layer)
        layer.__class__ = masked_class(stock) if isinstance(layer, MaskedLayer) else stock
        _keras.refresh_call_signature(layer)


def remember_parts(root: Any, in_code: bool = False) -> None:
    """Makes everything in a model that must remember what is in it remember it."""
    told = is_graph(root)
    is_own = _must_remember(root) and (not in_code or isinstance(root, keras.layers.SpectralNormalization))
    if not told and (is_own or _holds_something_to_tell(root)):
        remember(root)
    for part in get_parts(root).values():
        remember_parts(part, in_code or not told)


def _must_remember(layer: Any) -> bool:
    return getattr(layer, "_popup_frozen", False) or getattr(layer, "_popup_must_remember", False)


def _holds_something_to_tell(layer: Any) -> bool:
    return any(isinstance(part, MaskedLayer) or _must_remember(part) for _, part in walk_parts(layer))


# All such classes are registered under one name, `MaskedComposite`. Layers inside are found by places (attributes and
# indices), never by names, because Keras makes up other names each time the code runs.
#
# The config of a composite:
#   layer: the stock layer, serialized
#   masks: [[path, arguments], ...] of all masked layers in it
#   frozen: [[path, what], ...]: "layer" for `trainable = False`, "weights" for `freeze_weights`, or the numbers of
#       trainable weights of its own which are frozen each by itself
#   without: [[path, names], ...] of the weights that were dropped


@keras.saving.register_keras_serializable("keras_popup")
class MaskedComposite(Mixin):
    """Mixed in before the class of a layer whose config does not tell what is masked in it.

    It is how masks are kept in MultiHeadAttention, in LSTM, in a user's own blocks and in subclassed models.
    """

    def get_config(self) -> dict[str, Any]:
        pending = vars(self).get("_popup_pending")
        tables = _tables(self)
        if pending is not None:
            tables = {name: [*table, *pending.to_json()[name]] for name, table in tables.items()}
        stock = stock_of(self)
        serialized = {
            "module": stock.__module__,
            "class_name": stock.__name__,
            "config": to_stock(super().get_config()),
            "registered_name": keras.saving.get_registered_name(stock),
        }
        return {"layer": serialized, **tables}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        layer = keras.saving.deserialize_keras_object(_copy_containers(config["layer"]))
        _Pending.of_config(config).attach(layer)
        return layer

    def build_from_config(self, config: Any) -> None:
        super().build_from_config(config)
        settle(self)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        outputs = super().__call__(*args, **kwargs)
        if "_popup_pending" in vars(self):
            settle(self, finished=True)
        return outputs


def _copy_containers(value: Any) -> Any:
    """Returns a copy of a config, which Keras changes as it reads it.

    A list of Keras's becomes a plain one: copied as it is, it would bring along the layer that it belongs to.
    """
    if isinstance(value, dict):
        return {key: _copy_containers(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        return (tuple if isinstance(value, tuple) else list)(map(_copy_containers, value))
    return value


def _tables(root: Any) -> dict[str, Any]:
    """Returns what a layer's config tells of what is in it."""
    masks, frozen, without = [], [], []
    silent: set[int] = set()
    for path, layer in [((), root), *walk_parts(root)]:
        if isinstance(layer, MaskedLayer):
            masks.append([list(path), MaskArguments.of(layer).to_json()])
        if names := getattr(layer, "_popup_without", {}):
            without.append([list(path), list(names)])
        if id(layer) in silent:
            continue
        if not layer.trainable:
            frozen.append([list(path), "layer"])
            silent |= {id(part) for _, part in walk_parts(layer)}
        elif getattr(layer, "_popup_frozen", False):
            frozen.append([list(path), "weights"])
        elif numbers := [
            number
            for number, variable in enumerate(_keras.own_variables(layer, _keras.TRAINABLE))
            if not variable.trainable
        ]:
            frozen.append([list(path), numbers])
    return {"masks": masks, "frozen": frozen, "without": without}


class _Pending:
    """What is still to be done to the parts of a layer that was read from a config, once they are built."""

    def __init__(self, masks: Any, frozen: Any, without: Any) -> None:
        self.masks = {tuple(path): arguments for path, arguments in masks}
        self.frozen = {tuple(path): what for path, what in frozen}
        self.without = {tuple(path): tuple(names) for path, names in without}

    @classmethod
    def of_config(cls, config: dict[str, Any]) -> "_Pending":
        if "exchange" in config:
            config = _of_earlier_config(config)
        return cls(config["masks"], config["frozen"], config["without"])

    def to_json(self) -> dict[str, Any]:
        tables = {"masks": self.masks, "frozen": self.frozen, "without": self.without}
        return {name: [[list(path), value] for path, value in table.items()] for name, table in tables.items()}

    def __bool__(self) -> bool:
        return bool(self.masks or self.frozen or self.without)

    def attach(self, layer: Any) -> None:
        """Has a layer do this as soon as it can."""
        remember(layer)
        object.__setattr__(layer, "_popup_pending", self)
        build = vars(layer)["build"]  # Keras wraps the method of each object

        @functools.wraps(build)  # Keras reads the names of its arguments
        def build_and_settle(*args: Any, **kwargs: Any) -> None:
            build(*args, **kwargs)
            settle(layer)

        object.__setattr__(layer, "build", build_and_settle)
        settle(layer)

    def apply(self, root: Any) -> None:
        """Does what can be done by now."""
        there = {(): root, **dict(walk_parts(root))}
        ready = {path: layer for path, layer in there.items() if layer.built or own_weights(layer)}
        for path in [path for path in self.without if path in ready]:
            for name in self.without.pop(path):
                drop(ready[path], name)
        for path in [path for path in self.masks if path in ready]:
            arguments = self.masks.pop(path)
            if not isinstance(ready[path], MaskedLayer):
                mask_layer(ready[path], MaskArguments.from_json(arguments))
        if not self.masks:
            for path in [path for path in self.frozen if path in ready]:
                _freeze(ready[path], self.frozen.pop(path))


def _freeze(layer: Any, what: Any) -> None:
    if what == "layer":
        freeze_layer(layer, in_code=True)
    elif what == "weights":
        freeze_weights(layer)
    else:
        for number in what:
            _keras.own_variables(layer, _keras.TRAINABLE)[number].trainable = False


def settle(layer: Any, finished: bool = False) -> None:
    """Masks, freezes and drops what a layer was read to have so, as far as its parts are built.

    Raises:
        ValueError: if it has been called, and has not made these parts.
    """
    pending = vars(layer).get("_popup_pending")
    if pending is None:
        return
    pending.apply(layer)
    remember_parts(layer)
    if not pending:
        del vars(layer)["_popup_pending"]
    elif finished:
        there = {(), *(path for path, _ in walk_parts(layer))}
        if missing := sorted("/".join(map(str, path)) for path in pending.masks if path not in there):
            raise ValueError(
                f"Layer '{layer.name}' ({stock_of(layer).__name__}) makes no layers at {missing}, where masked ones "
                "are to be. Was its code changed since it was converted?"
            )


def _of_earlier_config(config: dict[str, Any]) -> dict[str, Any]:
    """Returns the config of a composite as files of version 0.1.0.dev hold it, which listed layers to put in."""
    masks, frozen, without = [], [], []
    for place, serialized in config["exchange"]:
        part = keras.saving.deserialize_keras_object(serialized)
        for path, layer in [((), part), *walk_parts(part)]:
            whole = [*place, *path]
            inner = vars(layer).get("_popup_pending")
            if inner is not None:
                tables = inner.to_json()
                masks += [[[*whole, *below], value] for below, value in tables["masks"]]
                frozen += [[[*whole, *below], value] for below, value in tables["frozen"]]
                without += [[[*whole, *below], value] for below, value in tables["without"]]
            if isinstance(layer, MaskedLayer):
                masks.append([whole, MaskArguments.of(layer).to_json()])
            if not layer.trainable:
                frozen.append([whole, "layer"])
            names = [name for name, switches in _SWITCHES.items() if _is_off(layer, switches)]
            if names and isinstance(layer, (MaskedLayer, *NORMS)):
                without.append([whole, names])
    for place in config["frozen"]:
        frozen.append([list(place), "layer" if place else "weights"])
    return {"layer": config["layer"], "masks": masks, "frozen": frozen, "without": without}


@functools.cache
def composite_class(kind: Any) -> Any:
    """Returns the class of a layer of this class that remembers what is in it."""
    stock = stock_class(kind)
    members: dict[str, Any] = {"__module__": __name__, "__doc__": kind.__doc__}
    if issubclass(kind, keras.layers.RNN):
        members["call"] = _choosing_once(kind.call)
    elif issubclass(kind, keras.layers.SpectralNormalization):
        members["call"] = _still_when_frozen(kind.call)
    if getattr(kind.get_config, "_is_default", False):
        members["get_config"] = _default_get_config()
    composite = type(f"Masked{stock.__name__}", (MaskedComposite, kind), members)
    # All of them are read back by the same `from_config`, which finds the stock class in the config.
    return keras.saving.register_keras_serializable("keras_popup", "MaskedComposite")(composite)


def _default_get_config() -> Any:
    """Returns a `get_config` for a class that has none of its own, so that Keras still makes one of the arguments."""

    def get_config(self: Any) -> dict[str, Any]:
        return MaskedComposite.get_config(self)

    get_config._is_default = True  # type: ignore[attr-defined]  # what Keras looks for
    return get_config


def _choosing_once(call: Any) -> Any:
    """Returns the `call` of a recurrent layer that chooses the weights of its cells once, not at every time step."""

    @functools.wraps(call)
    def choosing_call(self: Any, *args: Any, **kwargs: Any) -> Any:
        kernels = [kernel for layer in walk_masked(self) for kernel in layer.masked_kernels.values()]
        with choose_once(kernels, is_training(kwargs)):
            return call(self, *args, **kwargs)

    return choosing_call


def _still_when_frozen(call: Any) -> Any:
    """Returns the `call` of a SpectralNormalization that leaves its kernel alone while it is frozen."""

    @functools.wraps(call)
    def still_call(self: Any, inputs: Any, training: Any = False) -> Any:
        return call(self, inputs, training=bool(training) and self.trainable)

    return still_call
