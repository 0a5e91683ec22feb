"""Composites: layers whose config records what is masked inside them.

The config of a Sequential or Functional model contains the configs of its layers. The config of a layer or model whose
code makes its layers does not. So `remember` makes it a `MaskedComposite`. The config of a composite holds the stock
config and a list of the layers inside that are masked or frozen. After a composite is built from its config, these
layers are masked and frozen again.
"""

import functools
from collections.abc import Iterator
from typing import Any

import keras

from keras_popup import _keras
from keras_popup.layers.frozen_weights import (
    NORMS,
    SWITCHES,
    drop,
    freeze_layer,
    freeze_weights,
    lacks_weight,
    thaw_weights,
)
from keras_popup.layers.in_place import change_to_masked
from keras_popup.layers.maskable import is_constructed, masked_class
from keras_popup.layers.masked_kernel import choose_once
from keras_popup.layers.masked_layer import MaskArguments, MaskedLayer, Mixin, is_training, stock_class, stock_of
from keras_popup.layers.stock_configs import to_stock
from keras_popup.layers.tree import Location, get_parts, is_graph, own_weights, walk_parts


def mask_layer(layer: Any, arguments: MaskArguments, *, draw: bool = True) -> None:
    """Masks a built layer in place, as `change_to_masked` does, and makes its config record it."""
    remembers = isinstance(layer, MaskedComposite)
    change_to_masked(layer, arguments, draw=draw)
    if remembers or not is_constructed(type(layer)):
        remember(layer)


def walk_masked(layer: Any) -> Iterator[Any]:
    """Yields the masked layers among a layer and the layers that it holds at any depth."""
    if isinstance(layer, MaskedLayer):
        yield layer
    yield from (part for _, part in walk_parts(layer) if isinstance(part, MaskedLayer))


def remember(layer: Any) -> None:
    """Makes a layer a composite: its config then records what is masked, frozen or dropped in it."""
    if not isinstance(layer, MaskedComposite):
        kind: Any = type(layer)
        layer.__class__ = composite_class(kind)
        _keras.refresh_call_signature(layer)


def forget(layer: Any) -> None:
    """Undoes `remember`: the layer has its stock class, or its masked class, again."""
    thaw_weights(layer)
    if isinstance(layer, MaskedComposite):
        layer.__dict__.pop("_popup_pending", None)
        stock: Any = stock_of(layer)
        layer.__class__ = masked_class(stock) if isinstance(layer, MaskedLayer) else stock
        _keras.refresh_call_signature(layer)


def remember_parts(root: Any, in_code: bool = False) -> None:
    """Calls `remember` for all layers of a model whose config must record what is masked or frozen in them.

    Args:
        root: the model or layer.
        in_code: bool, whether a layer or model made by code holds `root`.
    """
    graph = is_graph(root)
    itself = _must_remember(root) and (not in_code or isinstance(root, keras.layers.SpectralNormalization))
    if not graph and (itself or _holds_something_to_record(root)):
        remember(root)
    for part in get_parts(root).values():
        remember_parts(part, in_code or not graph)


def _must_remember(layer: Any) -> bool:
    return getattr(layer, "_popup_frozen", False) or getattr(layer, "_popup_must_remember", False)


def _holds_something_to_record(layer: Any) -> bool:
    return any(isinstance(part, MaskedLayer) or _must_remember(part) for _, part in walk_parts(layer))


# All composite classes are registered under the same name, `MaskedComposite`. Layers inside are found by location
# (attributes and indices), never by name, because Keras may generate other names each time the code runs.
#
# The config of a composite:
#   layer: the serialized stock layer
#   masks: [[location, arguments], ...] for all masked layers in it
#   frozen: [[location, what], ...]: "layer" after `trainable = False`, "weights" after `freeze_weights`, or a list of
#       the indices of the layer's own trainable weights that are frozen one by one
#   without: [[location, names], ...] for the weights that were dropped


@keras.saving.register_keras_serializable("keras_popup")
class MaskedComposite(Mixin):
    """Mixed in before the class of a layer whose stock config does not record what is masked in it.

    This saves the masks in MultiHeadAttention, in LSTM, in the user's own blocks and in subclassed models.
    """

    def get_config(self) -> dict[str, Any]:
        pending = vars(self).get("_popup_pending")
        tables = _make_tables(self)
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
        _Pending.from_config(config).attach(layer)
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
    """Returns a copy of a config, because Keras changes a config when it reads it.

    A tracked list of Keras becomes a plain list: a copy of it would also copy the layer that it belongs to.
    """
    if isinstance(value, dict):
        return {key: _copy_containers(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        return (tuple if isinstance(value, tuple) else list)(map(_copy_containers, value))
    return value


def _make_tables(root: Any) -> dict[str, Any]:
    """Returns the tables of a composite's config: what is masked, frozen and dropped in `root`."""
    masks: list[Any] = []
    frozen: list[Any] = []
    without: list[Any] = []
    inside_frozen: set[int] = set()
    for location, layer in [((), root), *walk_parts(root)]:
        if isinstance(layer, MaskedLayer):
            masks.append([list(location), MaskArguments.of(layer).to_json()])
        if names := getattr(layer, "_popup_without", {}):
            without.append([list(location), list(names)])
        if id(layer) in inside_frozen:
            continue
        if not layer.trainable:
            frozen.append([list(location), "layer"])
            inside_frozen |= {id(part) for _, part in walk_parts(layer)}
        elif getattr(layer, "_popup_frozen", False):
            frozen.append([list(location), "weights"])
        elif indices := [
            index
            for index, variable in enumerate(_keras.own_variables(layer, _keras.TRAINABLE))
            if not variable.trainable
        ]:
            frozen.append([list(location), indices])
    return {"masks": masks, "frozen": frozen, "without": without}


class _Pending:
    """What a composite that was read from a config has yet to mask, freeze and drop, when its parts are built."""

    def __init__(self, masks: Any, frozen: Any, without: Any) -> None:
        self.masks: dict[Location, Any] = {tuple(location): arguments for location, arguments in masks}
        self.frozen: dict[Location, Any] = {tuple(location): what for location, what in frozen}
        self.without: dict[Location, Any] = {tuple(location): tuple(names) for location, names in without}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "_Pending":
        if "exchange" in config:
            config = _convert_earlier_config(config)
        return cls(config["masks"], config["frozen"], config["without"])

    def to_json(self) -> dict[str, Any]:
        tables = {"masks": self.masks, "frozen": self.frozen, "without": self.without}
        return {name: [[list(location), value] for location, value in table.items()] for name, table in tables.items()}

    def __bool__(self) -> bool:
        return bool(self.masks or self.frozen or self.without)

    def attach(self, layer: Any) -> None:
        """Makes a layer do this work after it is built, and does now what is possible now."""
        remember(layer)
        object.__setattr__(layer, "_popup_pending", self)
        build = vars(layer)["build"]  # Keras wraps `build` in an attribute of each object

        @functools.wraps(build)  # keeps the signature, which Keras inspects
        def build_and_settle(*args: Any, **kwargs: Any) -> None:
            build(*args, **kwargs)
            settle(layer)

        object.__setattr__(layer, "build", build_and_settle)
        settle(layer)

    def apply(self, root: Any) -> None:
        """Masks, freezes and drops what is built by now."""
        layers: dict[Location, Any] = {(): root, **dict(walk_parts(root))}
        ready = {location: layer for location, layer in layers.items() if layer.built or own_weights(layer)}
        for location in [location for location in self.without if location in ready]:
            for name in self.without.pop(location):
                drop(ready[location], name)
        for location in [location for location in self.masks if location in ready]:
            arguments = self.masks.pop(location)
            if not isinstance(ready[location], MaskedLayer):
                mask_layer(ready[location], MaskArguments.from_json(arguments))
        if not self.masks:
            for location in [location for location in self.frozen if location in ready]:
                _freeze(ready[location], self.frozen.pop(location))


def _freeze(layer: Any, what: Any) -> None:
    if what == "layer":
        freeze_layer(layer, in_code=True)
    elif what == "weights":
        freeze_weights(layer)
    else:
        for index in what:
            _keras.own_variables(layer, _keras.TRAINABLE)[index].trainable = False


def settle(layer: Any, finished: bool = False) -> None:
    """Masks, freezes and drops what the config of a layer says, in the parts that are built.

    Args:
        layer: a layer or model. Nothing happens if no work is pending.
        finished: bool, whether the layer has been called, so that all its parts must exist.

    Raises:
        ValueError: if the layer has been called and has no layer at a location of its config.
    """
    pending = vars(layer).get("_popup_pending")
    if pending is None:
        return
    pending.apply(layer)
    remember_parts(layer)
    if not pending:
        del vars(layer)["_popup_pending"]
    elif finished:
        existing = {(), *(location for location, _ in walk_parts(layer))}
        if missing := sorted("/".join(map(str, steps)) for steps in pending.masks if steps not in existing):
            raise ValueError(
                f"Layer '{layer.name}' ({stock_of(layer).__name__}) has no layers at {missing}. By its config, they "
                "are masked. Its code was probably changed after the model was masked. Load the model with the "
                "code that it was masked with."
            )


def _convert_earlier_config(config: dict[str, Any]) -> dict[str, Any]:
    """Returns the config for a config of version 0.1.0.dev, which listed whole layers to put into the composite."""
    masks: list[Any] = []
    frozen: list[Any] = []
    without: list[Any] = []
    for location, serialized in config["exchange"]:
        part = keras.saving.deserialize_keras_object(serialized)
        for steps, layer in [((), part), *walk_parts(part)]:
            whole = [*location, *steps]
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
            names = [name for name in SWITCHES if lacks_weight(layer, name)]
            if names and isinstance(layer, (MaskedLayer, *NORMS)):
                without.append([whole, names])
    for location in config["frozen"]:
        frozen.append([list(location), "layer" if location else "weights"])
    return {"layer": config["layer"], "masks": masks, "frozen": frozen, "without": without}


@functools.cache
def composite_class(kind: Any) -> Any:
    """Returns the composite class of a layer class."""
    stock = stock_class(kind)
    members: dict[str, Any] = {"__module__": __name__, "__doc__": kind.__doc__}
    if issubclass(kind, keras.layers.RNN):
        members["call"] = _wrap_recurrent_call(kind.call)
    elif issubclass(kind, keras.layers.SpectralNormalization):
        members["call"] = _wrap_spectral_call(kind.call)
    if getattr(kind.get_config, "_is_default", False):
        members["get_config"] = _make_default_get_config()
    composite = type(f"Masked{stock.__name__}", (MaskedComposite, kind), members)
    # One `from_config` reads all of them: it finds the stock class in the config.
    return keras.saving.register_keras_serializable("keras_popup", "MaskedComposite")(composite)


def _make_default_get_config() -> Any:
    """Returns a `get_config` that Keras takes for its default one, which builds a config from constructor arguments."""

    def get_config(self: Any) -> dict[str, Any]:
        return MaskedComposite.get_config(self)

    get_config._is_default = True  # type: ignore[attr-defined]  # the mark of Keras's default
    return get_config


def _wrap_recurrent_call(call: Any) -> Any:
    """Returns the `call` of a recurrent layer, wrapped so that it chooses weights once, not at every time step."""

    @functools.wraps(call)
    def choosing_call(self: Any, *args: Any, **kwargs: Any) -> Any:
        kernels = [kernel for layer in walk_masked(self) for kernel in layer.masked_kernels.values()]
        with choose_once(kernels, is_training(kwargs)):
            return call(self, *args, **kwargs)

    return choosing_call


def _wrap_spectral_call(call: Any) -> Any:
    """Returns the `call` of a SpectralNormalization, wrapped so that it does not change its kernel while frozen."""

    @functools.wraps(call)
    def frozen_call(self: Any, inputs: Any, training: Any = False) -> Any:
        return call(self, inputs, training=bool(training) and self.trainable)

    return frozen_call
