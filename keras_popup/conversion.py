"""Conversion of models: `mask_model` puts masks in, `strip_masks` bakes them in."""

import fnmatch
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import keras
import numpy as np

from keras_popup import composites, initializers, layers, selectors

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
    scores_initializer: Any = "score_uniform",
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
    what a trained network does not need. In both, excluded layers are copied as they are and stay trainable.

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
        scores_initializer: of the scores, likewise.
        scores_regularizer: Keras regularizer of the scores.
        weights: "random" or "keep".
        exclude: layers to leave as they are: a pattern, several of them, or a function of the given model's
            layer that returns a bool.
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
        config: dict[str, Any] = getattr(initializers.get(initializer), "get_config", dict)()
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
    excluded = _excluded(found, exclude)
    left = _left_alone(model, found) | dict.fromkeys(excluded, "excluded")
    maskable = [(path, layer) for path, layer in found if type(layer) in layers.MASKED_LAYERS]
    seeds = {id(layer): initializers.derive_seed(seed, place) for place, (_, layer) in enumerate(maskable)}
    fractions = _fractions([(path, layer) for path, layer in maskable if id(layer) not in left], k)

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

    masked = _rebuilt(model, convert, left)
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
        is_norm = type(layer) in _NORMS and not is_excluded
        held = [id(part) for _, part in composites.walk(layer)]
        holds_masked = any(isinstance(part, layers.MaskedLayer) for _, part in composites.walk(twin))
        if isinstance(twin, layers.MaskedLayer) or holds_masked or not excluded.isdisjoint(held):
            twin.trainable = True
        elif keep and not is_excluded:
            twin.trainable = is_norm and train_norms
        else:
            twin.trainable = layer.trainable
        if keep or not (is_norm or isinstance(twin, layers.MaskedLayer)):
            _copy_weights(layer, twin)
        if isinstance(twin, layers.MaskedLayer) or is_norm or not composites.own_weights(layer):
            continue
        twin._not_masked_because = left.get(id(layer)) or why_not(layer)
        if not is_excluded and layer is not model and any(w.trainable for w in composites.own_weights(layer)):
            not_masked.append(f"{paths[id(layer)]} ({type(layer).__name__}): {twin._not_masked_because}")
    if not_masked:
        _logger.warning("Copied without a mask: %s.", "; ".join(not_masked))
    return masked


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
    if not any(isinstance(layer, layers.MaskedLayer) for _, layer in composites.walk(model)):
        raise ValueError(f"Model '{model.name}' has no masked layer: there is nothing to strip.")
    if not model.built:
        raise ValueError(f"Model '{model.name}' is not built, so it has no masks yet. Call it on data first.")

    def convert(layer: Any) -> Any:
        if isinstance(layer, composites.MaskedComposite):
            return layer.stock_copy()
        if isinstance(layer, layers.MaskedLayer):
            return layer.stock_copy()
        return None

    plain = _rebuilt(model, convert, {})
    for path, layer in composites.walk(plain):
        if isinstance(layer, (layers.MaskedLayer, composites.MaskedComposite)):
            raise ValueError(
                f"The masks of layer '{path}' cannot be stripped: its own code, or that of the layer which holds "
                "it, makes masked layers. Make stock layers there, and mask them with mask_model."
            )
    for layer, twin in composites.pairs(model, plain):
        twin.trainable = layer.trainable
        _copy_weights(layer, twin)
    return plain


def _rebuilt(model: keras.Model, convert: Callable[[Any], Any], left: dict[int, str]) -> keras.Model:
    """Returns a copy of a model with other layers in it.

    Args:
        convert: returns what takes a layer's place, or None for a copy of it.
        left: notes, by the layers' ids, why some are left as they are. What holds layers that cannot be
            exchanged is added.
    """
    made: dict[int, tuple[Any, bool]] = {}  # by the id of a layer: what takes its place, whether it was converted

    def rebuild(layer: Any) -> tuple[Any, bool]:
        if not isinstance(layer, keras.layers.Layer):
            return layer, False  # an operation without weights, such as keras.ops.relu
        if id(layer) not in made:
            made[id(layer)] = convert_or_copy(layer)
        return made[id(layer)]

    def convert_or_copy(layer: Any) -> tuple[Any, bool]:
        converted = convert(layer)
        if converted is not None:
            return converted, True
        if composites.is_graph(layer):
            return clone(layer)
        rebuilt = {place: rebuild(part) for place, part in composites.parts(layer).items()}
        exchange = {place: part for place, (part, is_converted) in rebuilt.items() if is_converted}
        try:
            return (composites.exchanged(layer, exchange), True) if exchange else (composites.copy(layer), False)
        except Exception as error:  # of code that is not ours, and must not fail the rest
            if layer is model:
                raise TypeError(
                    f"Model '{model.name}' ({type(model).__name__}) cannot be copied with other layers in it: {error}"
                ) from error
            why = f"{type(layer).__name__} '{layer.name}' cannot be copied with masked layers in it: {error}"
            left.update({id(part): why for _, part in composites.walk(layer)})
        try:
            return composites.copy(layer), False
        except Exception as error:
            left[id(layer)] = f"cannot be copied, so it is shared with the given model: {error}"
            return layer, False

    def clone(graph: Any) -> tuple[Any, bool]:
        is_converted = []

        def clone_layer(layer: Any) -> Any:
            twin, converted = rebuild(layer)
            is_converted.append(converted)
            return twin

        inputs = None  # a Sequential model's are cloned well; a Functional one's would lose their names
        if not isinstance(graph, keras.Sequential):
            inputs = keras.tree.map_structure(lambda x: composites.copy(x._keras_history.operation).output, graph.input)
        # A compiled model would be compiled again, its optimizer's variables made.
        compiled, graph.compiled = graph.compiled, False
        try:
            twin = keras.models.clone_model(graph, inputs, clone_function=clone_layer)
            return twin, any(is_converted)
        finally:
            graph.compiled = compiled

    rebuilt, _ = rebuild(model)
    if model.built and not rebuilt.built:
        rebuilt.build_from_config(model.get_build_config())
        rebuilt.built = True  # as Keras itself does when it loads a model
    return rebuilt


def _copy_weights(layer: Any, twin: Any) -> None:
    """Gives a layer's twin the weights that it holds itself, masks baked into kernels that have one."""
    if not (layer.built and twin.built):
        return
    weights, twins = composites.own_weights(layer), composites.own_weights(twin)
    if [weight.name for weight in weights] == [weight.name for weight in twins]:
        for weight, other in zip(weights, twins, strict=True):
            other.assign(weight)
        return
    values = {weight.name: weight.value for weight in weights}
    if isinstance(layer, layers.MaskedLayer):
        values["kernel"] = layer.baked_kernel()
    for other in twins:
        if other.name in values:
            other.assign(values[other.name])
        elif other.name in _NEUTRAL:
            other.assign(np.full(other.shape, _NEUTRAL[other.name]))


def _matches(path: str, pattern: str) -> bool:
    """Tells whether a pattern matches a layer, by name or path, or one that holds it."""
    steps = path.split("/")
    whole = ["/".join(steps[:end]) for end in range(1, len(steps) + 1)]
    return any(fnmatch.fnmatchcase(part, glob) for part in whole for glob in (pattern, f"*/{pattern}"))


def _check_patterns(argument: str, patterns: Iterable[str], found: list[tuple[str, Any]]) -> None:
    for pattern in patterns:
        if not any(_matches(path, pattern) for path, _ in found):
            raise ValueError(
                f"`{argument}` has a pattern that matches no layer. Received: {pattern!r}. "
                f"Expected a name, path or pattern of these: {[path for path, _ in found]}."
            )


def _excluded(found: list[tuple[str, Any]], exclude: Any) -> set[int]:
    """Returns the ids of the layers that `exclude` names, and of those they hold."""
    if callable(exclude):
        chosen = [layer for _, layer in found if exclude(layer)]
        return {id(part) for layer in chosen for part in (layer, *(held for _, held in composites.walk(layer)))}
    patterns = [exclude] if isinstance(exclude, str) else list(exclude)
    _check_patterns("exclude", patterns, found)
    return {id(layer) for path, layer in found if any(_matches(path, pattern) for pattern in patterns)}


def _fractions(maskable: list[tuple[str, Any]], k: Any) -> dict[int, float]:
    """Returns `k` by the ids of the layers, checked."""
    if isinstance(k, Mapping):
        _check_patterns("k", k, maskable)
    fractions = {}
    for path, layer in maskable:
        if isinstance(k, Mapping):
            matching = [value for pattern, value in k.items() if _matches(path, pattern)]
            if not matching:
                raise ValueError(f"`k` has no entry for layer '{path}'. Add one, or '*' for the rest. Received: {k!r}.")
            fraction = matching[0]
        else:
            fraction = k(layer) if callable(k) else k
        fractions[id(layer)] = selectors.check_k(fraction)
        if layer.built:
            selectors.check_kept(fraction, layer.kernel.shape.num_elements(), f" of layer '{path}'")
    return fractions


def _left_alone(model: Any, found: list[tuple[str, Any]]) -> dict[int, str]:
    """Returns why layers of maskable classes are left as they are, by their ids."""
    left: dict[int, str] = {}
    holders: dict[int, list[Any]] = {}
    for layer in (model, *(layer for _, layer in found)):
        for part in composites.parts(layer).values():
            holders.setdefault(id(part), []).append(layer)
        if isinstance(layer, keras.layers.SpectralNormalization):
            left |= {id(part): "SpectralNormalization rescales its kernel" for _, part in composites.walk(layer)}
    for _, layer in found:
        shared_by = holders[id(layer)]
        if len(shared_by) > 1 and not all(map(composites.is_graph, shared_by)):
            names = " and ".join(dict.fromkeys(f"'{holder.name}'" for holder in shared_by))
            under = " under two names" if len(set(map(id, shared_by))) == 1 else ", not all Sequential or Functional"
            left[id(layer)] = f"held by {names}{under}: its copies would no longer be one layer"
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
    if sum(name.endswith("kernel") for name in names) > 1:
        return f"several kernels ({', '.join(names)})"
    if composites.parts(layer):
        return f"weights made by its own code ({', '.join(names)})"
    return "no masked layer of its kind"


def _listed(found: list[tuple[str, Any]], left: dict[int, str]) -> list[str]:
    return [
        f"{path} ({type(layer).__name__}: {left.get(id(layer), 'no masked layer of its kind')})"
        for path, layer in found
    ]
