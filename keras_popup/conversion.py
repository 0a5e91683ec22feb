"""Conversion of models: `mask_model` puts masks in, `strip_masks` bakes them in."""

import copy
import logging
import tempfile
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras.src.saving.serialization_lib import SafeModeScope  # not exported

from keras_popup import _patterns, composites, initializers, layers, selectors

_logger = logging.getLogger("keras_popup")

_NORMS = (keras.layers.BatchNormalization, keras.layers.LayerNormalization, keras.layers.GroupNormalization)

# What a layer's weight becomes that its twin has and it has not itself.
_NEUTRAL = {"bias": 0.0, "beta": 0.0, "gamma": 1.0}


def mask_model(
    model: keras.Model,
    k: Any = 0.5,
    *,
    selector: Any = "top_k",
    kernel_initializer: Any = "signed_constant",
    scores_initializer: Any = None,
    scores_regularizer: Any = None,
    weights: str = "random",
    exclude: Any = (),
    train_biases: bool = False,
    train_norms: bool = False,
    seed: int,
) -> keras.Model:
    """Returns a masked copy of a model: frozen kernels and trainable scores.

    Dense, EinsumDense and the convolutions become their masked layers, wherever they are: in nested models,
    in TimeDistributed, in MultiHeadAttention, in blocks and models with code of their own. A shared layer
    stays one layer. Every other layer is copied with its weights; one that holds weights which are thus not
    masked is named with the reason in one log line, and by `mask_summary`. The given model is not changed.

    `weights="random"` draws new kernels, drops biases, and makes BatchNormalization, LayerNormalization and
    GroupNormalization anew without gamma and beta. `weights="keep"` keeps the model's own kernels, and
    everything else that it has learned, frozen, and learns a mask over the kernels: for a new task, or to find
    what a trained network does not need. That mask begins at random, as the scores do. In both, excluded layers
    are copied as they are and stay trainable.

    Layers are named, in `k` and `exclude`, by `fnmatch` patterns of their name or path: "head", "block1_*",
    "encoder/attention/query". A pattern that matches a layer which holds others covers all of these.

    Args:
        model: a `keras.Model`: Sequential, Functional, or subclassed with a config (Keras's `get_config`).
        k: the fraction of each layer's weights that is kept, in (0, 1]: a number for all layers, a dict of
            patterns, of which the first one that matches counts (so "*", for the rest, goes last), or a
            function of the given model's layer.
        selector: a name, object or config as in `keras_popup.selectors.get`.
        kernel_initializer: of the frozen kernels, as in `keras_popup.initializers.get`, without a seed.
            Not used with `weights="keep"`.
        scores_initializer: of the scores, likewise. None is the selector's own.
        scores_regularizer: Keras regularizer of the scores.
        weights: "random" or "keep".
        exclude: layers to leave as they are: a pattern, one of the model's layers, several of them in a list, or
            a function of the given model's layer that returns a bool.
        train_biases: bool, whether masked layers have trainable biases, rather than none ("random") or the
            model's own, frozen ("keep").
        train_norms: bool, likewise for gamma and beta of normalizations.
        seed: integer in [0, 2**64). Every layer's own seed is derived from it and from the layer's place
            among those that can be masked, so the same model and seed give the same kernels and scores.

    Returns:
        A new `keras.Model` of the same topology and layer names, not compiled.

    Raises:
        TypeError: if `model` is no model, or one that cannot be copied from its config.
        ValueError: if no layer can be masked, if `k` keeps no weight of a layer, if a pattern matches no
            layer, if an initializer has a seed of its own, which would give layers of one shape the same
            kernel, or if weights are to be kept that are not there yet.

    Example:

    >>> import keras_popup
    >>> model = keras_popup.models.FullyConnected()
    >>> masked = keras_popup.mask_model(model, k={"dense1": 0.3, "*": 0.5}, exclude="classes", seed=1)
    >>> [layer.kept for layer in masked.layers if hasattr(layer, "kept")]
    [70560, 15000]
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"mask_model takes a keras.Model. Received: {type(model).__name__}.")
    if weights not in ("random", "keep"):
        raise ValueError(f"`weights` must be 'random' or 'keep'. Received: {weights!r}.")
    keep = weights == "keep"
    if keep and not model.built:
        raise ValueError(f"weights='keep' needs weights: model '{model.name}' is not built. Call it on data first.")
    for name, initializer in (("kernel_initializer", kernel_initializer), ("scores_initializer", scores_initializer)):
        chosen = None if initializer is None else initializers.get(initializer)
        config: dict[str, Any] = getattr(chosen, "get_config", dict)()
        if config.get("seed") is not None:
            raise ValueError(
                f"`{name}` must have no seed of its own, or layers of one shape would share their values. "
                f"Received: seed={config['seed']}. Leave it out: mask_model(seed=...) gives each layer its own."
            )
    arguments = {
        "selector": selectors.serialize(selectors.get(selector)),
        "scores_initializer": scores_initializer,
        "scores_regularizer": keras.regularizers.serialize(keras.regularizers.get(scores_regularizer)),
        "train_bias": train_biases,
        "trainable": True,
    }
    seed = initializers.check_seed(seed)

    found = list(composites.walk(model))
    for path, layer in found:
        if isinstance(layer, layers.MaskedLayer):
            raise ValueError(f"Model '{model.name}' is masked already: layer '{path}' is a {type(layer).__name__}.")
    _check_built(model, found)
    excluded = _patterns.excluded(found, exclude)
    shared = _shared(model, found)
    left = _left_alone(model, found) | shared | dict.fromkeys(excluded, "excluded")
    maskable = [(path, layer) for path, layer in found if type(layer) in layers.MASKED_LAYERS]
    seeds = {id(layer): initializers.derive_seed(seed, place) for place, (_, layer) in enumerate(maskable)}
    fractions = _patterns.fractions([(path, layer) for path, layer in maskable if id(layer) not in left], k)

    def convert(layer: Any) -> Any:
        masked_class = layers.MASKED_LAYERS.get(type(layer))
        if id(layer) in left:
            return None
        if masked_class is not None:
            config = {**layer.get_config(), **arguments, "k": fractions[id(layer)], "seed": seeds[id(layer)]}
            if not keep:
                config[masked_class.kernel_argument + "_initializer"] = kernel_initializer
            if not keep and not train_biases:
                config |= {"bias_axes": None} if "bias_axes" in config else {"use_bias": False}
            return masked_class.from_config(config)
        if type(layer) in _NORMS and not keep:
            config = layer.get_config()
            return type(layer).from_config(config if train_norms else {**config, "center": False, "scale": False})
        return None

    norms = {id(layer) for _, layer in found if type(layer) in _NORMS} if not keep else set()
    targets = {*fractions, *norms, *shared} - excluded
    try:
        masked = _rebuilt(model, convert, targets, left)
    except TypeError:
        raise
    except Exception as error:
        raise ValueError(
            f"Model '{model.name}' cannot be run with masked layers in it: {error} If a layer's code reads a bias, "
            "gamma or beta of another, train_biases=True or train_norms=True keeps them; `exclude` leaves layers alone."
        ) from error
    twins = list(composites.pairs(model, masked))
    if not any(isinstance(twin, layers.MaskedLayer) for _, twin in twins):
        raise ValueError(
            f"Model '{model.name}' has no layer that can be masked. Expected at least one of "
            f"{sorted(stock.__name__ for stock in layers.MASKED_LAYERS)}. Received: {_listed(found, left)}."
        )
    not_masked = []
    paths = {id(layer): path for path, layer in found}
    for layer, twin in twins:  # those that hold others come first, so that these have the last word
        is_excluded = id(layer) in excluded
        is_norm = type(layer) in _NORMS and id(layer) not in left
        own = composites.own_weights(layer)
        trainable = {id(weight) for weight in layer.trainable_variables}
        if twin is not layer:
            _set_trainable(layer, twin, excluded, keep, is_norm and train_norms)
            if keep or not (is_norm or isinstance(twin, layers.MaskedLayer)):
                _copy_weights(layer, twin)
        if isinstance(twin, layers.MaskedLayer) or is_norm or not own:
            continue
        twin._not_masked_because = left.get(id(layer)) or why_not(layer)
        if not is_excluded and layer is not model and any(id(weight) in trainable for weight in own):
            not_masked.append(f"{paths[id(layer)]} ({type(layer).__name__}): {twin._not_masked_because}")
    if not_masked:
        _logger.warning("Copied without a mask: %s.", "; ".join(not_masked))
    return masked


def _set_trainable(layer: Any, twin: Any, excluded: set[int], keep: bool, as_norm: bool) -> None:
    held = {id(part) for _, part in composites.walk(layer)}
    frozen = keep and id(layer) not in excluded and not as_norm
    if isinstance(twin, layers.MaskedLayer):
        twin.trainable = True
    elif masked_layers(twin) or held & excluded:
        twin.trainable = True
        for weight in composites.own_weights(twin):
            weight.trainable = weight.trainable and layer.trainable and not frozen
    else:
        twin.trainable = not frozen if keep and id(layer) not in excluded else layer.trainable


def masked_layers(model: Any) -> list[Any]:
    """Returns the masked layers that a model, or a layer, holds at any depth."""
    return [layer for _, layer in composites.walk(model) if isinstance(layer, layers.MaskedLayer)]


def strip_masks(model: keras.Model) -> keras.Model:
    """Returns a plain copy of a masked model: stock Keras layers, the masks baked into their kernels.

    Its outputs are those of the masked model, bit for bit in float32 where the stock layer's operation is the
    same. `keras.models.load_model` reads it where there is no keras_popup. It is as quick as a dense network of
    its shape, and no quicker: weights that are not kept are zeros.

    Args:
        model: a masked `keras.Model`, as `mask_model` returns it, built by hand, or loaded.

    Returns:
        A new `keras.Model` of the same topology and layer names, not compiled. Its kernels are trainable.

    Raises:
        TypeError: if `model` is no model.
        ValueError: if it holds no masked layer, is not built, or has a layer whose own code makes masked ones.

    Example:

    >>> import keras_popup
    >>> masked = keras_popup.mask_model(keras_popup.models.FullyConnected(), k=0.3, seed=1)
    >>> plain = keras_popup.strip_masks(masked)
    >>> type(plain.get_layer("dense1")).__name__, int((plain.get_layer("dense1").kernel.numpy() != 0).sum())
    ('Dense', 70560)
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"strip_masks takes a keras.Model. Received: {type(model).__name__}.")
    if not masked_layers(model):
        raise ValueError(f"Model '{model.name}' has no masked layer: there is nothing to strip.")
    return stripped(model)


def stripped(model: keras.Model, kernels: bool = True) -> keras.Model:
    """Returns what `strip_masks` does; without `kernels`, those of masked layers have other values."""
    if not model.built:
        raise ValueError(f"Model '{model.name}' is not built, so it has no masks yet. Call it on data first.")
    masked = (layers.MaskedLayer, composites.MaskedComposite)
    found = list(composites.walk(model))
    targets = {id(layer) for _, layer in found if isinstance(layer, masked)} | set(_shared(model, found))
    left: dict[int, str] = {}
    plain = _rebuilt(model, lambda layer: layer.stock_copy() if isinstance(layer, masked) else None, targets, left)
    twins = list(composites.pairs(model, plain))
    for layer, twin in twins:
        if isinstance(twin, masked):
            why = left.get(id(layer), "its own code, or that of the layer which holds it, makes masked layers")
            raise ValueError(
                f"The masks of layer '{layer.name}' ({type(layer).__name__}) cannot be stripped: {why}. Make stock "
                "layers there, and mask them with mask_model."
            )
    for layer, twin in twins:
        if twin is not layer:
            twin.trainable = layer.trainable
            _copy_weights(layer, twin, kernels)
    return plain


def with_masked_layers(model: keras.Model, masked: dict[int, Any]) -> keras.Model:
    """Returns a copy of a plain model with masked layers in the place of others, given by the ids of these.

    Weights are copied, kernels too.
    """
    targets = {*masked, *_shared(model, list(composites.walk(model)))}
    twin = _rebuilt(model, lambda layer: masked.get(id(layer)), targets, {})
    for layer, other in composites.pairs(model, twin):
        other.trainable = layer.trainable
        _copy_weights(layer, other)
    return twin


def copy_model(model: keras.Model, change: Callable[[Any], Any]) -> keras.Model:
    """Returns a copy of a plain model, from its config as `change` returns it, with the same weights."""
    with SafeModeScope(False):
        twin = type(model).from_config(change(copy.deepcopy(model.get_config())))
        _build_like(model, twin)
    for layer, other in composites.pairs(model, twin):
        _copy_weights(layer, other)
    return twin


def _rebuilt(model: keras.Model, convert: Callable[[Any], Any], targets: set[int], left: dict[int, str]) -> keras.Model:
    """Returns a copy of a model with other layers in it.

    Args:
        convert: returns what takes a layer's place, or None for a copy of it.
        targets: the ids of the layers that are converted, and of those that must stay one layer.
        left: notes, by the layers' ids, why some are left as they are. What holds layers that cannot be
            exchanged is added.
    """
    made: dict[int, Any] = {}  # what takes a layer's place, by its id

    def rebuild(layer: Any) -> Any:
        if not isinstance(layer, keras.layers.Layer):
            return layer  # an operation without weights, such as keras.ops.relu
        if id(layer) not in made:
            made[id(layer)] = convert_or_copy(layer)
        return made[id(layer)]

    def convert_or_copy(layer: Any) -> Any:
        converted = convert(layer)
        if converted is not None:
            return converted
        if composites.is_graph(layer):
            return clone(layer)
        exchange = {
            place: part
            for place, part in composites.parts(layer).items()
            if not targets.isdisjoint({id(part), *(id(held) for _, held in composites.walk(part))})
        }
        try:
            if exchange:
                return composites.exchanged(layer, {place: rebuild(part) for place, part in exchange.items()})
            return composites.copy(layer)
        except Exception as error:  # of code that is not ours, and must not fail the rest
            if layer is model:
                raise TypeError(
                    f"Model '{model.name}' ({type(model).__name__}) cannot be copied with other layers in it: {error} "
                    "Its `__init__` must take **kwargs and pass them to that of Keras, its `get_config` tell the rest."
                ) from error
            why = f"{type(layer).__name__} '{layer.name}' cannot be copied with masked layers in it: {error}"
            left.update({id(part): why for _, part in [("", layer), *composites.walk(layer)]})
        try:
            return composites.copy(layer)
        except Exception as error:
            why = f"cannot be copied, so it is shared with the given model: {error}"
            left.update({id(part): why for _, part in [("", layer), *composites.walk(layer)]})
            return layer

    def clone(graph: Any) -> Any:
        inputs = None  # a Sequential model's are cloned well; a Functional one's would lose their names
        if not isinstance(graph, keras.Sequential):
            inputs = keras.tree.map_structure(lambda x: composites.copy(x._keras_history.operation).output, graph.input)
        with composites.uncompiled(graph):
            twin = keras.models.clone_model(graph, inputs, clone_function=rebuild)
        if type(twin) is not type(graph):
            _logger.warning(
                "The copy of '%s' (%s) is a %s: it has not what its class adds.",
                graph.name,
                type(graph).__name__,
                type(twin).__name__,
            )
        return twin

    with SafeModeScope(False):  # these are live objects, no files: what is in a Lambda has been run before
        rebuilt = rebuild(model)
        _build_like(model, rebuilt)
    return rebuilt


def _build_like(layer: Any, twin: Any) -> None:
    if layer.built and not twin.built:
        twin.build_from_config(layer.get_build_config())
        twin.built = True  # as Keras itself does when it loads a model


def _copy_weights(layer: Any, twin: Any, kernels: bool = True) -> None:
    """Gives a layer's twin the weights that it holds itself, masks baked into kernels that have one."""
    if not layer.built:
        return
    _build_like(layer, twin)
    weights, twins = composites.own_weights(layer), composites.own_weights(twin)
    if type(layer) is type(twin) and [weight.name for weight in weights] == [weight.name for weight in twins]:
        store: dict[str, Any] = {}
        layer.save_own_variables(store)
        twin.load_own_variables(store)  # a Normalization computes from them what it uses
        if hasattr(layer, "save_assets"):
            with tempfile.TemporaryDirectory() as folder:
                layer.save_assets(folder)
                twin.load_assets(folder)
        return
    values = {weight.name: weight.value for weight in weights}
    if isinstance(layer, layers.MaskedLayer):
        del values["kernel"]
        if kernels:
            values["kernel"] = layer.baked_kernel()
    for other in twins:
        if other.name in values:
            other.assign(values[other.name])
        elif other.name in _NEUTRAL:
            other.assign(np.full(other.shape, _NEUTRAL[other.name]))


def _check_built(model: Any, found: list[tuple[str, Any]]) -> None:
    """Checks that what is not built has no layers yet to make."""
    for path, layer in found:
        is_simple = composites.is_graph(layer) or type(layer) in (*layers.MASKED_LAYERS, *_NORMS)
        if not (model.built or layer.built or is_simple or getattr(type(layer).build, "_is_default", False)):
            raise ValueError(
                f"Model '{model.name}' is not built, and layer '{path}' ({type(layer).__name__}) may make others when "
                "it is. Call the model on data first, or give it an Input."
            )


def _shared(model: Any, found: list[tuple[str, Any]]) -> dict[int, str]:
    """Returns which layers are shared across the border of a layer that is no graph, by their ids, and says so.

    Keras saves and loads the two as different layers.
    """
    everything = [model, *(layer for _, layer in found)]
    holders: dict[int, list[Any]] = {}
    for layer in everything:
        for part in composites.parts(layer).values():
            holders.setdefault(id(part), []).append(layer)
    shared = {}
    for layer in everything:
        held = [part for _, part in composites.walk(layer)]
        inside = {id(layer), *map(id, held)}
        for part in held:
            if not composites.is_graph(layer) and any(id(holder) not in inside for holder in holders[id(part)]):
                names = " and ".join(f"'{holder.name}'" for holder in holders[id(part)])
                shared[id(part)] = f"shared by {names}, and no file keeps it one layer"
    return shared


def _left_alone(model: Any, found: list[tuple[str, Any]]) -> dict[int, str]:
    """Returns why layers of maskable classes are left as they are, by their ids."""
    left: dict[int, str] = {}
    for layer in (model, *(layer for _, layer in found)):
        held = list(composites.parts(layer).values())
        left |= {id(part): f"held by '{layer.name}' under two names" for part in held if held.count(part) > 1}
        hidden = [part for place, part in composites.parts(layer).items() if place[0] == composites.HIDDEN]
        left |= {id(part): f"held by '{layer.name}' in a way that is not known" for part in hidden}
        if isinstance(layer, keras.layers.SpectralNormalization):
            left |= {id(part): "SpectralNormalization rescales its kernel" for _, part in composites.walk(layer)}
        elif getattr(layer, "lora_rank", None) or getattr(layer, "quantization_mode", None):
            left[id(layer)] = "LoRA or a quantized dtype would go round the mask"
    return left


def why_not(layer: Any) -> str:
    """Returns why a layer that has weights of its own is not masked, as far as its class tells."""
    if type(layer) in layers.MASKED_LAYERS:
        return "left as it is"
    if type(layer) in _NORMS:
        return "a normalization"
    for stock in layers.MASKED_LAYERS:
        if isinstance(layer, stock):
            return f"a {stock.__name__} with code of its own"
    names = [weight.name for weight in composites.own_weights(layer)]
    kernels = [name for name in names if name.endswith("kernel")]
    if len(kernels) > 1:
        return f"several kernels ({', '.join(kernels)})"
    if composites.parts(layer):
        return f"weights made by its own code ({', '.join(names)})"
    return "no masked layer of its kind"


def _listed(found: list[tuple[str, Any]], left: dict[int, str]) -> list[str]:
    return [
        f"{path} ({type(layer).__name__}: {left.get(id(layer), 'no masked layer of its kind')})"
        for path, layer in found
    ]
