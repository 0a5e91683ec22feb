"""Masking a layer where it is, and the class of layers that remember what was masked in them.

`mask_layer` makes a masked layer of one that is there by changing its class, as Keras's `quantize` and `enable_lora`
change layers in place: the object stays the same, and all that refers to it. `strip_layer` is the way back.

A Sequential or Functional model saves the layers that it holds by their own configs. A layer or model whose code makes
its layers saves none of them, so `remember` makes it a `MaskedComposite`: its config holds the stock config, and which
of its layers are masked or frozen, and that is done again after it is built.
"""

import functools
import inspect
from collections.abc import Iterator
from typing import Any

import keras

from keras_popup import _keras, initializers, selectors
from keras_popup._masked_kernel import MaskedKernel, chosen_once
from keras_popup._masked_layer import (
    MaskArguments,
    MaskedLayer,
    Mixin,
    is_constructed,
    kernels_of,
    masked_class,
    stock_class,
    stock_of,
    training_of,
)
from keras_popup._tree import is_graph, own_weights, pairs, parts, structure

__all__ = [
    "MaskedComposite",
    "drop",
    "freeze_weights",
    "mask_layer",
    "own_weights",
    "pairs",
    "remember",
    "remember_parts",
    "strip_layer",
    "take_back",
    "walk_masked",
]

# The arguments of a layer that say whether it has a weight, and what they are if not.
_SWITCHES: dict[str, dict[str, Any]] = {
    "bias": {"use_bias": False, "bias_axes": None},
    "gamma": {"scale": False},
    "beta": {"center": False},
}

# The value of a weight that does nothing.
_NEUTRAL = {"bias": 0.0, "gamma": 1.0, "beta": 0.0}


def mask_layer(layer: Any, arguments: MaskArguments, *, draw: bool = True) -> None:
    """Makes a masked layer of a built one, in place.

    Args:
        layer: a built layer, of a class that can be masked.
        arguments: what it is masked with. Their kernels are the layer's.
        draw: bool, whether kernels that have an initializer are drawn anew, or stay as they are.

    Raises:
        ValueError: if the layer has not these kernels, or `k` keeps no weight of one.
    """
    specs = kernels_of(layer)
    if not arguments.kernels or not {spec.name for spec in specs} >= set(arguments.kernels):
        raise ValueError(
            f"Layer '{layer.name}' ({type(layer).__name__}) has the kernels {[spec.name for spec in specs]}. Received: "
            f"arguments for {sorted(arguments.kernels)}."
        )
    specs = tuple(spec for spec in specs if spec.name in arguments.kernels)
    kernels = {
        spec.name: MaskedKernel(layer, spec, arguments.kernels[spec.name], arguments.scores_regularizer)
        for spec in specs
    }
    variables = {spec.name: spec.plain_variable(layer) for spec in specs}
    for name, variable in variables.items():
        kernels[name].check_shape(tuple(variable.shape))
        check_rematerialization(layer, kernels[name].selector)
    with _keras.unlocked(layer):
        for spec in specs:
            vars(layer).pop(spec.attributes[-1])
        remembers = isinstance(layer, MaskedComposite)
        kind = masked_class(stock_of(layer))
        layer.__class__ = composite_class(kind) if remembers or not is_constructed(kind) else kind
        object.__setattr__(layer, "masked_kernels", kernels)
        object.__setattr__(layer, "train_bias", arguments.train_bias)
        layer._trainable = True
        for name, kernel in kernels.items():
            variable = variables[name]
            if kernel.initializer is not None:
                if draw:
                    drawn = kernel.for_fans(kernel.initializer, tuple(variable.shape))
                    variable.assign(drawn(tuple(variable.shape), variable.dtype))
                _set_initializer(layer, kernel)
            kernel.freeze(variable, prefix=len(kernels) > 1)
        object.__setattr__(layer, "_popup_train_others", arguments.train_others)
        _hold(layer)
        _keras.refresh_call_signature(layer)


def _hold(layer: Any) -> None:
    """Freezes the bias and the other weights of a masked layer that are not to be trained, for good."""
    scores = {id(kernel.scores) for kernel in layer.masked_kernels.values()}
    bias, held = getattr(layer, "bias", None), []
    for place, variable in enumerate(list(_keras.own_variables(layer, _keras.TRAINABLE))):
        trained = layer.train_bias if variable is bias else layer._popup_train_others
        is_kernel = any(spec.plain_variable(layer) is variable for spec in layer.kernel_specs)
        if id(variable) in scores:
            variable.trainable = True
        elif not (trained or is_kernel):
            variable.trainable = False
            _keras.track(layer, _keras.NON_TRAINABLE, variable)
            held.append((place, variable))
    object.__setattr__(layer, "_popup_held", tuple(held))


def strip_layer(layer: Any) -> None:
    """Makes a masked layer the stock layer again, in place, with the masks baked into its kernels."""
    with _keras.unlocked(layer):
        for kernel in layer.masked_kernels.values():
            baked = kernel.baked()
            kernel.thaw()
            kernel.kernel.assign(baked)
        bias = getattr(layer, "bias", None)
        made_so = ((None, bias),) if isinstance(bias, keras.Variable) and not layer.train_bias else ()
        for place, variable in vars(layer).pop("_popup_held", made_so):
            variable.trainable = layer.trainable
            _keras.track(layer, _keras.TRAINABLE, variable, place)
        kernels = layer.masked_kernels
        for name in ("masked_kernels", "train_bias", "_popup_train_others"):
            vars(layer).pop(name, None)
        layer.__class__ = stock_of(layer)
        for kernel in kernels.values():
            object.__setattr__(layer, kernel.spec.attributes[-1], kernel.kernel)
            kernel.layer = layer
            _set_initializer(layer, kernel, default=True)
        _keras.refresh_call_signature(layer)


def _set_initializer(layer: Any, kernel: MaskedKernel, default: bool = False) -> None:
    """Has the config of a layer name the initializer of its kernel, or the default one of its class."""
    argument = f"{kernel.spec.argument}_initializer"
    if kernel.spec.argument is None or not hasattr(layer, argument):
        return
    initializer = kernel.initializer
    if default:
        if not isinstance(getattr(layer, argument), initializers.FrozenInitializer):
            return
        parameter = inspect.signature(type(layer)).parameters.get(argument)
        initializer = keras.initializers.get(parameter.default if parameter else "glorot_uniform")
    elif kernel is not first_of_argument(layer, kernel):
        return
    setattr(layer, argument, initializer)


def first_of_argument(layer: Any, kernel: MaskedKernel) -> MaskedKernel:
    """Returns the first kernel of a layer that has the same argument: two tables of a tied embedding have one."""
    return next(k for k in layer.masked_kernels.values() if k.spec.argument == kernel.spec.argument)


def drop(layer: Any, name: str) -> None:
    """Takes a weight away from a layer that can do without it: "bias", "gamma" or "beta"."""
    weight = getattr(layer, name, None)
    if weight is None:
        return
    with _keras.unlocked(layer):
        place = _keras.untrack(layer, weight)
        setattr(layer, name, None)
        switches = {switch: getattr(layer, switch) for switch in _SWITCHES[name] if hasattr(layer, switch)}
        for switch in switches:
            setattr(layer, switch, _SWITCHES[name][switch])
    dropped = {**getattr(layer, "_popup_without", {}), name: (weight, place, switches)}
    object.__setattr__(layer, "_popup_without", dropped)


def take_back(layer: Any) -> None:
    """Undoes `drop`, with weights that do nothing."""
    with _keras.unlocked(layer):
        for name, (weight, place, switches) in reversed(layer.__dict__.pop("_popup_without", {}).items()):
            weight.assign(keras.ops.full(weight.shape, _NEUTRAL[name], weight.dtype))
            weight.trainable = layer.trainable
            setattr(layer, name, weight)
            _keras.track(layer, _keras.TRAINABLE, weight, place[1])
            for switch, value in switches.items():
                setattr(layer, switch, value)


def freeze_layer(layer: Any, in_code: bool) -> None:
    """Freezes a layer and all it holds, as setting `trainable` does, and has files tell so.

    Args:
        in_code: bool, whether the layer is held by one that tells it for it.
    """
    _keras.set_trainable(layer, False)
    if not (in_code or is_graph(layer) or stock_of(layer).__module__.startswith("keras.")):
        # Of some such layers Keras loads the weights as trainable ones.
        object.__setattr__(layer, "_popup_must_remember", True)
    for part in (layer, *(part for _, part in structure(layer))):
        if isinstance(part, keras.layers.SpectralNormalization):  # which changes its kernel all the same
            object.__setattr__(part, "_popup_must_remember", True)


def freeze_weights(layer: Any) -> None:
    """Freezes the weights that a layer has itself, for good: setting `trainable` does not thaw them."""
    object.__setattr__(layer, "_popup_frozen", True)
    weights = list(_keras.own_variables(layer, _keras.TRAINABLE))
    for place, weight in enumerate(weights):
        weight.trainable = False
        _keras.track(layer, _keras.NON_TRAINABLE, weight, place)
    object.__setattr__(layer, "_popup_frozen_count", len(weights))
    object.__setattr__(layer, "load_own_variables", functools.partial(_load_all_or_unfrozen, layer))


def _load_all_or_unfrozen(layer: Any, store: Any) -> None:
    """Loads the weights of a layer. Files of earlier versions do not have those of normalizations that are frozen."""
    count = layer._popup_frozen_count
    others = _keras.own_variables(layer, _keras.NON_TRAINABLE)[count:]
    if not count or len(store) != len(others) or _keras.own_variables(layer, _keras.TRAINABLE):
        type(layer).load_own_variables(layer, store)
        return
    for number, variable in enumerate(others):
        variable.assign(store[str(number)])


def thaw_weights(layer: Any) -> None:
    """Undoes `freeze_weights`."""
    count = vars(layer).pop("_popup_frozen_count", 0)
    for name in ("_popup_frozen", "_popup_must_remember", "load_own_variables"):
        vars(layer).pop(name, None)
    for place, weight in enumerate(_keras.own_variables(layer, _keras.NON_TRAINABLE)[:count]):
        weight.trainable = layer.trainable
        _keras.track(layer, _keras.TRAINABLE, weight, place)


def check_rematerialization(layer: Any, selector: selectors.Selector) -> None:
    """Raises ValueError for a layer that draws its masks, and would draw others in the backward pass."""
    if selector.draws and layer._remat_mode:
        raise ValueError(
            f"Layer '{layer.name}' draws its masks, and rematerialization would draw others in the backward pass. "
            "Leave it out of the RematScope."
        )


def walk_masked(layer: Any) -> Iterator[Any]:
    """Yields the masked layers that a layer holds at any depth, itself among them."""
    if isinstance(layer, MaskedLayer):
        yield layer
    yield from (part for _, part in structure(layer) if isinstance(part, MaskedLayer))


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
    for part in parts(root).values():
        remember_parts(part, in_code or not told)


def _must_remember(layer: Any) -> bool:
    return getattr(layer, "_popup_frozen", False) or getattr(layer, "_popup_must_remember", False)


def _holds_something_to_tell(layer: Any) -> bool:
    return any(isinstance(part, MaskedLayer) or _must_remember(part) for _, part in structure(layer))


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
    for path, layer in [((), root), *structure(root)]:
        if isinstance(layer, MaskedLayer):
            masks.append([list(path), MaskArguments.of(layer).to_json()])
        if names := getattr(layer, "_popup_without", {}):
            without.append([list(path), list(names)])
        if id(layer) in silent:
            continue
        if not layer.trainable:
            frozen.append([list(path), "layer"])
            silent |= {id(part) for _, part in structure(layer)}
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
        there = {(): root, **dict(structure(root))}
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
        there = {(), *(path for path, _ in structure(layer))}
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
        for path, layer in [((), part), *structure(part)]:
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


NORMS = (keras.layers.BatchNormalization, keras.layers.LayerNormalization, keras.layers.GroupNormalization)


def _is_off(layer: Any, switches: dict[str, Any]) -> bool:
    return any(hasattr(layer, switch) and getattr(layer, switch) == off for switch, off in switches.items())


# What of a serialized layer says which class it is of. The rest says where it stands in a model.
_OF_CLASS = ("module", "class_name", "config", "registered_name")


def to_stock(value: Any) -> Any:
    """Returns a serialized config in which stock layers stand in the place of masked ones."""
    if isinstance(value, (list, tuple)):
        return type(value)(to_stock(each) for each in value) if type(value) in (list, tuple) else value
    if not isinstance(value, dict):
        return value
    if {"class_name", "config"} <= set(value):
        name = value.get("registered_name")
        if name == "keras_popup>MaskedComposite" and "layer" in value["config"]:
            others = {key: to_stock(each) for key, each in value.items() if key not in _OF_CLASS}
            return {**others, **to_stock(value["config"]["layer"])}
        kind = keras.saving.get_registered_object(name) if name else None
        if isinstance(kind, type) and issubclass(kind, MaskedLayer):
            others = {key: to_stock(each) for key, each in value.items() if key not in _OF_CLASS}
            return {**others, **kind.to_stock_serialized(value["config"])}
    return {key: to_stock(each) for key, each in value.items()}


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
        with chosen_once(kernels, training_of(kwargs)):
            return call(self, *args, **kwargs)

    return choosing_call


def _still_when_frozen(call: Any) -> Any:
    """Returns the `call` of a SpectralNormalization that leaves its kernel alone while it is frozen."""

    @functools.wraps(call)
    def still_call(self: Any, inputs: Any, training: Any = False) -> Any:
        return call(self, inputs, training=bool(training) and self.trainable)

    return still_call
