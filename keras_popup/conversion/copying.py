"""Copies of models. Keras makes a copy from the config, then it is compared with the model, variable by variable."""

import contextlib
import copy
import logging
import tempfile
import types
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_popup import _keras
from keras_popup.layers import (
    begin_anew,
    get_parts,
    hide_compilation,
    is_bookkeeping,
    is_graph,
    pair_layers,
    put_part,
    settle,
    stock_of,
    walk_parts,
)

_logger = logging.getLogger("keras_popup")

Twins = dict[int, Any]
"""Copies of layers or variables, by the ids of the originals."""

Change = Callable[[dict[str, Any]], dict[str, Any]]

_IN_PLACE = "Or use `copy=False`, which changes the model itself and needs no copy."


class CopyError(TypeError):
    """A model or one of its layers cannot be copied from its config."""


def copy_model(model: keras.Model, change: Change | None = None) -> tuple[keras.Model, Twins]:
    """Returns a copy of a model, and a dict of the copied layers by the ids of the original layers.

    Keras makes the copy, from the configs. Everything else is carried over from the original: the variables, the files
    of layers and the values computed from them, which weights are frozen, and which layers are shared.

    Args:
        model: a built `keras.Model`.
        change: function that changes the config of each layer before it is copied. None changes nothing.

    Raises:
        CopyError: if a layer cannot be made from its config, or if its copy differs from it.
    """
    copies: Twins = {}
    classes = {kind.__name__: kind for kind in {stock_of(layer) for layer in _list_layers(model)}}
    with _keras.SafeModeScope(False), keras.saving.custom_object_scope(classes), begin_anew():
        # Safe mode is off: the configs come from live objects, not from files. The user has run their Lambdas already.
        twin = _copy(model, copies, change)
        _build_like(model, twin)
        try:
            twins = dict(_match(model, twin))
        except ValueError as error:
            raise CopyError(f"{error} {_IN_PLACE}") from error
        for layer in _list_layers(twin):
            settle(layer)  # masks what its config says, now that everything is built
    for layer in _list_layers(model):
        if id(layer) in twins:
            _carry_over(layer, twins[id(layer)], exact=change is None)
    _compare(model, twin, twins)
    return twin, twins


def _list_layers(model: Any) -> list[Any]:
    return [model, *(layer for _, layer in walk_parts(model))]


def _copy(layer: Any, copies: Twins, change: Change | None) -> Any:
    if not isinstance(layer, keras.layers.Layer):
        return layer  # an operation without weights, such as keras.ops.relu
    # Each layer is copied once, so that shared layers stay shared.
    if id(layer) not in copies:
        copies[id(layer)] = _clone(layer, copies, change) if is_graph(layer) else _copy_code(layer, copies, change)
    return copies[id(layer)]


def _copy_code(layer: Any, copies: Twins, change: Change | None) -> Any:
    try:
        return _copy_from_config(layer, copies, change)
    except CopyError as error:
        # If the class cannot be made from the config, its graph can still be cloned.
        if not isinstance(layer, _keras.Functional) or type(layer).call is not _keras.Functional.call:
            raise
        try:
            return _clone(layer, copies, change)
        except CopyError:
            raise error from None


def _clone(graph: Any, copies: Twins, change: Change | None) -> Any:
    inputs = None  # Keras clones the inputs of a Sequential model well, but would lose the names of a Functional one's
    if not isinstance(graph, keras.Sequential):
        inputs = keras.tree.map_structure(lambda x: make_from_config(_keras.find_operation(x)).output, graph.input)
    with hide_compilation(graph):
        twin = keras.models.clone_model(graph, inputs, clone_function=lambda layer: _copy(layer, copies, change))
    if type(twin) is not type(graph):
        _logger.warning(
            "The copy of '%s' (%s) is a %s: it lacks the methods and attributes that its class adds.",
            graph.name,
            type(graph).__name__,
            type(twin).__name__,
        )
    return twin


def make_from_config(layer: Any, copies: Twins | None = None, change: Change | None = None) -> Any:
    """Returns a new layer of the same class and config, with new weights."""
    config = layer.get_config()
    config = change(config) if change else config
    try:
        return type(layer).from_config(_copy_config(config, copies, change))
    except Exception:
        # Configs cannot hold a local function, a lambda or a function that is not registered. Pass the functions.
        live = {name: value for name in config if isinstance(value := getattr(layer, name, None), types.FunctionType)}
        if not live or any(map(_reaches_layers, live.values())):
            raise
        return type(layer)(**{**_copy_config(config, copies, change), **live})


def _copy_config(value: Any, copies: Twins | None, change: Change | None) -> Any:
    """Returns a copy of a config. Some configs contain layers as objects; these are copied too."""
    if isinstance(value, keras.layers.Layer):
        return value if copies is None else _copy(value, copies, change)
    if isinstance(value, dict):
        return {key: _copy_config(item, copies, change) for key, item in value.items()}
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        # Plain lists and tuples: a copy of a tracked list of Keras would also copy the layer that it belongs to.
        return (tuple if isinstance(value, tuple) else list)(_copy_config(item, copies, change) for item in value)
    return copy.deepcopy(value)


def _reaches_layers(value: Any) -> bool:
    """Tells whether a function uses layers or variables that are not its arguments. A copy would share them."""
    if isinstance(value, types.MethodType) and isinstance(value.__self__, (keras.layers.Layer, keras.Variable)):
        return True
    if not isinstance(value, types.FunctionType):
        return False
    held = [cell.cell_contents for cell in value.__closure__ or ()]
    held += [value.__globals__.get(name) for name in value.__code__.co_names]
    held += [*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
    return any(isinstance(item, (keras.layers.Layer, keras.Variable)) for item in keras.tree.flatten(held))


def _copy_from_config(layer: Any, copies: Twins, change: Change | None) -> Any:
    try:
        with hide_compilation(layer):
            twin = make_from_config(layer, copies, change)
            if isinstance(layer, keras.Model):
                _build_like(layer, twin)  # a model may make its layers in `build`, and others may share them
    except Exception as error:  # any kind: the code of the layer is not ours
        attributes = [value for name, value in vars(layer).items() if not is_bookkeeping(name)]
        if not layer.variables and not get_parts(layer) and not any(map(_reaches_layers, attributes)):
            return layer  # without variables and layers, two models can share it
        raise CopyError(
            f"{type(layer).__name__} '{layer.name}' cannot be copied from its config: {error} Its `get_config` must "
            f"return all arguments of its constructor. {_IN_PLACE}"
        ) from error
    _share(layer, twin, copies, change)
    return twin


def _share(layer: Any, twin: Any, copies: Twins, change: Change | None) -> None:
    """Replaces layers that a new copy has made for itself by copies of the same layers that exist already."""
    parts, twin_parts = get_parts(layer), get_parts(twin)
    for location, part in parts.items():
        if location not in twin_parts:
            continue
        if id(part) not in copies and is_graph(part) and any(id(inner) in copies for _, inner in walk_parts(part)):
            _copy(part, copies, change)  # layers inside of a graph cannot be replaced later
        if id(part) not in copies:
            copies[id(part)] = twin_parts[location]
            _share(part, twin_parts[location], copies, change)
        elif copies[id(part)] is not twin_parts[location] and not isinstance(
            layer, (keras.Sequential, _keras.Functional)
        ):
            put_part(twin, location, copies[id(part)])


def _build_like(layer: Any, twin: Any) -> None:
    if layer.built and not twin.built:
        twin.build_from_config(_convert_lists(layer.get_build_config()))
        twin.built = True  # as Keras itself does when it loads a model


def _convert_lists(value: Any) -> Any:
    """Returns a build config whose shapes are tuples, as they are when a call builds a layer."""
    if isinstance(value, dict):
        return {key: _convert_lists(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return tuple(_convert_lists(item) for item in value)
    return value


def _match(model: Any, twin: Any) -> Iterator[tuple[int, Any]]:
    """Yields (id of the layer, twin) for all layers of a model. Twins of built layers are built."""
    for layer, other in pair_layers(model, twin):
        if not isinstance(other, keras.layers.Layer) or _name_class(layer) != _name_class(other):
            raise ValueError(
                f"The copy of layer '{layer.name}' is a {type(other).__name__}. Expected a "
                f"{type(layer).__name__}, like the layer."
            )
        try:
            if layer.variables:  # layers without variables build themselves when they load their vocabularies
                _build_like(layer, other)
        except Exception as error:  # any kind: the code of the layer is not ours
            raise ValueError(
                f"{type(layer).__name__} '{layer.name}' cannot be built from its config: {error}"
            ) from error
        yield id(layer), other


def _name_class(layer: Any) -> str:
    return "" if isinstance(layer, _keras.Functional) else stock_of(layer).__qualname__


def _list_variables(layer: Any) -> list[Any]:
    """Returns a layer's own variables, without those of sublayers: its weights and the states of seed generators."""
    stores = (_keras.TRAINABLE, _keras.NON_TRAINABLE)
    return [
        *(variable for store in stores for variable in _keras.own_variables(layer, store)),
        *_keras.list_seed_states(layer),
    ]


def _carry_over(layer: Any, twin: Any, exact: bool) -> None:
    """Gives the twin of a layer everything that the layer's config does not contain.

    Args:
        exact: bool, whether the variables of both must have the same dtypes.
    """
    variables, twin_variables = _list_variables(layer), _list_variables(twin)
    shapes, twin_shapes = (
        [(tuple(variable.shape), variable.dtype if exact else "") for variable in group]
        for group in (variables, twin_variables)
    )
    if shapes != twin_shapes:
        raise CopyError(
            f"The copy of layer '{layer.name}' ({type(layer).__name__}) that was made from its config has the weights "
            f"{_format_variables(twin_variables)}. Expected those of the layer: {_format_variables(variables)}. Its "
            f"`get_config` must return all arguments of its constructor. {_IN_PLACE}"
        )
    _load_saved_state(layer, twin)
    for variable, other in zip(variables, twin_variables, strict=True):
        other.assign(variable.value)
    _keras.copy_flags(layer, twin)
    for variable, other in zip(variables, twin_variables, strict=True):
        if variable.trainable != other.trainable:
            other.trainable = variable.trainable
    _carry_attributes(layer, twin)


def _load_saved_state(layer: Any, twin: Any) -> None:
    """Makes the twin load what the layer saves: some layers compute values when they load, and others have files."""
    kind = type(layer)
    if layer.built and kind.load_own_variables is not keras.layers.Layer.load_own_variables:
        store: dict[str, Any] = {}
        layer.save_own_variables(store)
        with contextlib.suppress(ValueError):  # some save only a part; `_carry_over` copies all variables later
            twin.load_own_variables(store)
    if hasattr(layer, "save_assets"):
        with tempfile.TemporaryDirectory() as folder:
            try:
                layer.save_assets(folder)
            except Exception:
                if layer.built:
                    raise
                return  # it has no files yet
            twin.load_assets(folder)


def find_different_arrays(layer: Any, twin: Any) -> Iterator[tuple[str, Any]]:
    """Yields (attribute, value) for the NumPy arrays and `tf.Variable`s of a layer that differ from those of its twin.

    Keras does not save them.
    """
    for name, value in vars(layer).items():
        if is_bookkeeping(name) or isinstance(value, keras.Variable):
            continue
        if isinstance(value, (tf.Variable, np.ndarray)):
            other = vars(twin).get(name)
            if type(other) is not type(value) or not np.array_equal(np.asarray(value), np.asarray(other)):
                yield name, value


def _carry_attributes(layer: Any, twin: Any) -> None:
    """Carries over the numbers, arrays and `tf.Variable`s in the attributes of a layer."""
    for name, value in find_different_arrays(layer, twin):
        other = vars(twin).get(name)
        if isinstance(value, np.ndarray):
            setattr(twin, name, value.copy())
        elif isinstance(other, tf.Variable):
            other.assign(value)
        else:
            raise CopyError(
                f"The copy of layer '{layer.name}' has no `{name}`. Expected a tf.Variable, as in the layer. Make it a "
                f"weight, with add_weight. {_IN_PLACE}"
            )
    for name, value in vars(layer).items():
        other = vars(twin).get(name)
        if is_bookkeeping(name):
            continue
        if type(value) in (int, float, bool) and type(other) is type(value) and other != value:
            try:
                setattr(twin, name, value)
            except AttributeError:  # a property without a setter
                continue


def _compare(model: Any, twin: Any, twins: Twins) -> None:
    """Checks that a copy has all variables of a model, with the same values.

    Raises:
        CopyError: if it does not, with the names of the variables.
    """
    pairs: Twins = {}
    for layer in _list_layers(model):
        if id(layer) in twins:
            variables, others = _list_variables(layer), _list_variables(twins[id(layer)])
            pairs |= {id(variable): other for variable, other in zip(variables, others, strict=True)}
    known = [variable for variable in model.variables if id(variable) in pairs]
    lost = [variable for variable in model.variables if id(variable) not in pairs]
    wrong = [variable for variable in known if not same_values(variable, pairs[id(variable)])]
    are_distinct = len({id(pairs[id(variable)]) for variable in known}) == len(known)
    if lost or wrong or not are_distinct or len(twin.variables) != len(model.variables):
        raise CopyError(
            f"The copy of model '{model.name}' that was made from its config does not have the same variables. "
            f"Missing: {_format_variables(lost)}. Other values: {_format_variables(wrong)}. The copy has "
            f"{len(twin.variables)} variables, the model {len(model.variables)}. {_IN_PLACE}"
        )


def same_values(variable: Any, other: Any) -> bool:
    """Tells whether two variables have the same values, bit for bit (in float64 if dtypes differ)."""
    a, b = variable.numpy(), other.numpy()
    if a.dtype != b.dtype:
        a, b = a.astype(np.float64), b.astype(np.float64)
    return bool(a.shape == b.shape and a.tobytes() == b.tobytes())


def _format_variables(variables: list[Any]) -> str:
    shown = [f"{variable.path} {tuple(variable.shape)}" for variable in variables[:5]]
    return ", ".join([*shown, *(["..."] if len(variables) > 5 else [])]) or "none"
