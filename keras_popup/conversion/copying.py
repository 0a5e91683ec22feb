"""Copies of models: made by Keras from their configs, then compared with the model, variable by variable."""

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

_IN_PLACE = "`copy=False` changes the model itself, and needs no copy."


class CopyError(TypeError):
    """A model, or a layer of it, cannot be copied from its config."""


def copy_model(
    model: keras.Model, change: Callable[[dict[str, Any]], dict[str, Any]] | None = None
) -> tuple[keras.Model, Twins]:
    """Returns a copy of a model, and the layers of the copy by the ids of those they are copies of.

    Keras makes the copy, from the configs. All else that a layer has is carried over: variables, files, what it
    computes from them, which weights are frozen, which layers are shared.

    Args:
        model: a built `keras.Model`.
        change: changes the configs of layers, as those of Functional models are, before they are copied.

    Raises:
        CopyError: if it has a layer that cannot be made from its config, or one that is other than the layer is.
    """
    made: Twins = {}
    classes = {kind.__name__: kind for kind in {stock_of(layer) for layer in _all(model)}}
    with _keras.SafeModeScope(False), keras.saving.custom_object_scope(classes):
        # These are live objects, no files: what is in a Lambda has been run before.
        twin = _make(model, made, change)
        _build_like(model, twin)
        try:
            found = dict(_match(model, twin))
        except ValueError as error:
            raise CopyError(f"{error} {_IN_PLACE}") from error
        for layer in _all(twin):
            settle(layer)  # what is masked in it, now that all is built
    for layer in _all(model):
        if id(layer) in found:
            _carry_over(layer, found[id(layer)], exact=change is None)
    _compare(model, twin, found)
    return twin, found


def _all(model: Any) -> list[Any]:
    return [model, *(layer for _, layer in walk_parts(model))]


def _make(layer: Any, made: Twins, change: Any) -> Any:
    if not isinstance(layer, keras.layers.Layer):
        return layer  # an operation without weights, such as keras.ops.relu
    # Each layer is copied once, so that a layer that is shared stays shared.
    if id(layer) not in made:
        made[id(layer)] = _clone(layer, made, change) if is_graph(layer) else _copy_code(layer, made, change)
    return made[id(layer)]


def _copy_code(layer: Any, made: Twins, change: Any) -> Any:
    try:
        return _from_config(layer, made, change)
    except CopyError as error:
        # The graph is there, if nobody knows how the class makes it.
        if not isinstance(layer, _keras.Functional) or type(layer).call is not _keras.Functional.call:
            raise
        try:
            return _clone(layer, made, change)
        except CopyError:
            raise error from None


def _clone(graph: Any, made: Twins, change: Any) -> Any:
    inputs = None  # a Sequential model's are cloned well; a Functional one's would lose their names
    if not isinstance(graph, keras.Sequential):
        inputs = keras.tree.map_structure(lambda x: _of_class(x._keras_history.operation).output, graph.input)
    with hide_compilation(graph):
        twin = keras.models.clone_model(graph, inputs, clone_function=lambda layer: _make(layer, made, change))
    if type(twin) is not type(graph):
        _logger.warning(
            "The copy of '%s' (%s) is a %s: it has not what its class adds.",
            graph.name,
            type(graph).__name__,
            type(twin).__name__,
        )
    return twin


def _of_class(layer: Any, made: Twins | None = None, change: Any = None) -> Any:
    """Returns a new layer of the same class and config. Its weights are new, too."""
    config = layer.get_config()
    config = change(config) if change else config
    try:
        return type(layer).from_config(_copy_config(config, made, change))
    except Exception:
        # A function that is defined in another one, or has no name, is in no config; others may not be registered.
        live = {name: value for name in config if isinstance(value := getattr(layer, name, None), types.FunctionType)}
        if not live or any(map(_reaches_layers, live.values())):
            raise
        return type(layer)(**{**_copy_config(config, made, change), **live})


def _copy_config(value: Any, made: Twins | None, change: Any) -> Any:
    """Returns a copy of a config: also of layers, which some have in it as they are."""
    if isinstance(value, keras.layers.Layer):
        return value if made is None else _make(value, made, change)
    if isinstance(value, dict):
        return {key: _copy_config(each, made, change) for key, each in value.items()}
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        # Plain ones: a list of Keras's would bring along the layer that it belongs to.
        return (tuple if isinstance(value, tuple) else list)(_copy_config(each, made, change) for each in value)
    return copy.deepcopy(value)


def _reaches_layers(value: Any) -> bool:
    """Tells whether a function uses layers or variables that it is not given, and which a copy of it would share."""
    if isinstance(value, types.MethodType) and isinstance(value.__self__, (keras.layers.Layer, keras.Variable)):
        return True
    if not isinstance(value, types.FunctionType):
        return False
    held = [cell.cell_contents for cell in value.__closure__ or ()]
    held += [value.__globals__.get(name) for name in value.__code__.co_names]
    held += [*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
    return any(isinstance(each, (keras.layers.Layer, keras.Variable)) for each in keras.tree.flatten(held))


def _from_config(layer: Any, made: Twins, change: Any) -> Any:
    try:
        with hide_compilation(layer):
            twin = _of_class(layer, made, change)
            if _build_before_call(layer):
                _build_like(layer, twin)
    except Exception as error:  # of code that is not ours
        own = [value for name, value in vars(layer).items() if not is_bookkeeping(name)]
        if not layer.variables and not get_parts(layer) and not any(map(_reaches_layers, own)):
            return layer  # there is nothing that two models could not share
        raise CopyError(
            f"{type(layer).__name__} '{layer.name}' cannot be copied from its config: {error} Its `get_config` must "
            f"tell all that its constructor is given. {_IN_PLACE}"
        ) from error
    _share(layer, twin, made, change)
    return twin


def _build_before_call(layer: Any) -> bool:
    """Tells whether a layer makes layers in its `build` only, which others may share."""
    return isinstance(layer, keras.Model)


def _share(layer: Any, twin: Any, made: Twins, change: Any) -> None:
    """Puts the copies of layers that are there already in the place of those that a copy has made for itself."""
    here, there = get_parts(layer), get_parts(twin)
    for place, part in here.items():
        if place not in there:
            continue
        if id(part) not in made and is_graph(part) and any(id(inner) in made for _, inner in walk_parts(part)):
            _make(part, made, change)  # a graph cannot be given other layers afterwards
        if id(part) not in made:
            made[id(part)] = there[place]
            _share(part, there[place], made, change)
        elif made[id(part)] is not there[place] and not isinstance(layer, (keras.Sequential, _keras.Functional)):
            put_part(twin, place, made[id(part)])


def _build_like(layer: Any, twin: Any) -> None:
    if layer.built and not twin.built:
        twin.build_from_config(_with_tuples(layer.get_build_config()))
        twin.built = True  # as Keras itself does when it loads a model


def _with_tuples(value: Any) -> Any:
    """Returns a config whose shapes are tuples, as they are when a layer is built by a call."""
    if isinstance(value, dict):
        return {key: _with_tuples(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return tuple(_with_tuples(each) for each in value)
    return value


def _match(model: Any, twin: Any) -> Iterator[tuple[int, Any]]:
    """Yields the ids of all layers of a model with their twins, which are built where the layers are."""
    for layer, other in pair_layers(model, twin):
        if not isinstance(other, keras.layers.Layer) or _kind(layer) != _kind(other):
            raise ValueError(f"The copy of layer '{layer.name}' ({type(layer).__name__}) is a {type(other).__name__}.")
        try:
            if layer.variables:  # others build themselves, once they have their vocabularies
                _build_like(layer, other)
        except Exception as error:  # of code that is not ours
            raise ValueError(
                f"{type(layer).__name__} '{layer.name}' cannot be built from its config: {error}"
            ) from error
        yield id(layer), other


def _kind(layer: Any) -> str:
    return "" if isinstance(layer, _keras.Functional) else stock_of(layer).__qualname__


def _own(layer: Any) -> list[Any]:
    """Returns the variables that a layer has itself: weights, and the states of seed generators."""
    stores = (_keras.TRAINABLE, _keras.NON_TRAINABLE)
    return [
        *(variable for store in stores for variable in _keras.own_variables(layer, store)),
        *(generator.state for generator in layer._seed_generators),
    ]


def _carry_over(layer: Any, twin: Any, exact: bool) -> None:
    """Gives a layer's twin all that the layer has and its config does not tell; `exact` in the same types."""
    variables, others = _own(layer), _own(twin)
    shapes = [[(tuple(v.shape), v.dtype if exact else "") for v in each] for each in (variables, others)]
    if shapes[0] != shapes[1]:
        raise CopyError(
            f"A copy of layer '{layer.name}' ({type(layer).__name__}), made from its config, has other weights than it "
            f"has: {_listed(others)}, not {_listed(variables)}. Its `get_config` must tell all that its constructor is "
            f"given. {_IN_PLACE}"
        )
    _load_what_it_saves(layer, twin)
    for variable, other in zip(variables, others, strict=True):
        other.assign(variable.value)
    twin._trainable, twin._remat_mode = layer.trainable, layer._remat_mode
    for variable, other in zip(variables, others, strict=True):
        if variable.trainable != other.trainable:
            other.trainable = variable.trainable
    _carry_attributes(layer, twin)


def _load_what_it_saves(layer: Any, twin: Any) -> None:
    """Has a layer load what another one saves, as some compute from it what they use, and others keep files."""
    kind = type(layer)
    if layer.built and kind.load_own_variables is not keras.layers.Layer.load_own_variables:
        store: dict[str, Any] = {}
        layer.save_own_variables(store)
        with contextlib.suppress(ValueError):  # some save less than they have: all of it is carried over afterwards
            twin.load_own_variables(store)
    if hasattr(layer, "save_assets"):
        with tempfile.TemporaryDirectory() as folder:
            try:
                layer.save_assets(folder)
            except Exception:
                if layer.built:
                    raise
                return  # it has none yet
            twin.load_assets(folder)


def find_different_arrays(layer: Any, twin: Any) -> Iterator[tuple[str, Any]]:
    """Yields (name, value) of the arrays and TensorFlow's own variables that a layer keeps in attributes.

    Keras knows nothing of them. Those are left out which its twin has as well.
    """
    for name, value in vars(layer).items():
        if is_bookkeeping(name) or isinstance(value, keras.Variable):
            continue
        if isinstance(value, (tf.Variable, np.ndarray)):
            other = vars(twin).get(name)
            if type(other) is not type(value) or not np.array_equal(np.asarray(value), np.asarray(other)):
                yield name, value


def _carry_attributes(layer: Any, twin: Any) -> None:
    """Carries over the numbers and arrays that a layer keeps in attributes, and TensorFlow's own variables."""
    for name, value in find_different_arrays(layer, twin):
        other = vars(twin).get(name)
        if isinstance(value, np.ndarray):
            setattr(twin, name, value.copy())
        elif isinstance(other, tf.Variable):
            other.assign(value)
        else:
            raise CopyError(f"A copy of layer '{layer.name}' has no `{name}`, a tf.Variable that the layer has.")
    for name, value in vars(layer).items():
        other = vars(twin).get(name)
        if is_bookkeeping(name):
            continue
        if type(value) in (int, float, bool) and type(other) is type(value) and other != value:
            try:
                setattr(twin, name, value)
            except AttributeError:  # a property without a setter
                continue


def _compare(model: Any, twin: Any, found: Twins) -> None:
    """Checks that a copy has the variables of a model, all of them, each with its value.

    Raises:
        CopyError: naming those that it has not.
    """
    known: Twins = {}
    for layer in _all(model):
        if id(layer) in found:
            known |= {id(v): other for v, other in zip(_own(layer), _own(found[id(layer)]), strict=True)}
    lost = [variable for variable in model.variables if id(variable) not in known]
    wrong = [v for v in model.variables if id(v) in known and not same_values(v, known[id(v)])]
    several = len({id(known[id(v)]) for v in model.variables if id(v) in known}) + len(lost) != len(model.variables)
    more = len(twin.variables) != len(model.variables)
    if lost or wrong or several or more:
        raise CopyError(
            f"A copy of model '{model.name}', made from its config, has not all its variables. Lost: {_listed(lost)}. "
            f"Other values: {_listed(wrong)}. The copy has {len(twin.variables)} variables, the model "
            f"{len(model.variables)}. {_IN_PLACE}"
        )


def same_values(variable: Any, other: Any) -> bool:
    """Tells whether two variables hold the same values, not a number being the same as itself."""
    a, b = variable.numpy(), other.numpy()
    if a.dtype != b.dtype:
        a, b = a.astype(np.float64), b.astype(np.float64)
    return a.shape == b.shape and a.tobytes() == b.tobytes()


def _listed(variables: list[Any]) -> str:
    shown = [f"{variable.path} {tuple(variable.shape)}" for variable in variables[:5]]
    return ", ".join([*shown, *(["..."] if len(variables) > 5 else [])]) or "none"
