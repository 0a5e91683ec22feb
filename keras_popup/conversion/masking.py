"""mask_model: masks go into the layers of a model."""

import contextlib
import dataclasses
import logging
from typing import Any

import keras

from keras_popup import _keras, initializers, layers, selectors
from keras_popup.conversion import patterns
from keras_popup.conversion.copying import copy_model
from keras_popup.conversion.inspection import check_model, find_in_code, note_reason, reason_not_masked
from keras_popup.conversion.undo import undo_on_failure
from keras_popup.layers import (
    NORMS,
    KernelArguments,
    MaskArguments,
    MaskedLayer,
    drop,
    freeze_layer,
    freeze_weights,
    kernels_of,
    mask_layer,
    own_weights,
    remember_parts,
    walk_parts,
)

_logger = logging.getLogger("keras_popup")


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
    seed: int | None = None,
    copy: bool = True,
) -> keras.Model:
    """Masks a model: frozen kernels and trainable scores.

    Dense, EinsumDense, the convolutions, the cells of recurrent layers and Embedding become masked layers, wherever
    they are: in nested models, in TimeDistributed, in MultiHeadAttention, in blocks and models with code of their own.
    So do your own layers after `register_maskable`. Each layer is masked where it is, so a shared layer stays one
    layer, and code that reads its kernel gets the masked one. What holds weights which are not masked is named with
    the reason in one log line, and by `mask_summary`.

    `weights="random"` draws new kernels. Biases go, and so do gamma and beta of BatchNormalization, LayerNormalization
    and GroupNormalization, whose statistics begin anew; inside of code that may read them they stay, frozen at 0, 1
    and 0. `weights="keep"` keeps the model's own kernels, and everything else that it has learned, frozen, and learns
    a mask over the kernels: for a new task, or to find what a trained network does not need. That mask begins at
    random, as the scores do. In both, excluded layers are as they were, and trained.

    Layers are named, in `k` and `exclude`, by `fnmatch` patterns of their name or path: "head", "block1_*",
    "encoder/attention/query". Of a layer with several kernels, the kernel's name comes behind it:
    "lstm/lstm_cell/recurrent_kernel". A pattern that matches a layer which holds others covers all of these.

    Args:
        model: a `keras.Model`, built: Sequential, Functional or subclassed.
        k: the fraction of each kernel's weights that is kept, in (0, 1]: a number for all of them, a dict of
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
        seed: integer in [0, 2**64). Each layer's seed follows from it and from the layer's place among those that can
            be masked, so the same model and seed give the same kernels and scores. None draws a seed. The seeds of
            the layers are kept in the model's config.
        copy: bool. True masks a copy, which Keras makes from the model's config, and which is compared with the model,
            variable by variable. False masks the given model itself, which needs no config; if it fails, the
            model is as it was.

    Returns:
        The masked `keras.Model`: of the same topology and layer names, not compiled. With `copy=False`, `model`.

    Raises:
        TypeError: if `model` is no model, or if no copy of it can be made.
        ValueError: if it is not built, if no layer can be masked, if `k` keeps no weight of a kernel, if a pattern
            matches nothing, or if an initializer has a seed of its own, which would give layers of one shape the
            same kernel.

    Example:

    >>> import keras_popup
    >>> model = keras_popup.models.FullyConnected()
    >>> masked = keras_popup.mask_model(model, k={"dense1": 0.3, "*": 0.5}, exclude="classes", seed=1)
    >>> [layer.kept for layer in masked.layers if hasattr(layer, "kept")]
    [70560, 15000]
    """
    check_model(model, "mask_model")
    if weights not in ("random", "keep"):
        raise ValueError(f"`weights` must be 'random' or 'keep'. Received: {weights!r}.")
    if not model.built:
        raise ValueError(
            f"Model '{model.name}' is not built, so it has no weights to mask yet. Call it on data first, or give it "
            "an Input."
        )
    for name, initializer in (("kernel_initializer", kernel_initializer), ("scores_initializer", scores_initializer)):
        _check_without_seed(name, initializer)
    settings = _Settings(
        keep=weights == "keep",
        selector=selectors.get(selector),
        kernel_initializer=None if weights == "keep" else initializers.get(kernel_initializer),
        scores_initializer=scores_initializer,
        scores_regularizer=keras.regularizers.get(scores_regularizer),
        train_biases=train_biases,
        train_norms=train_norms,
        seed=initializers.fresh_seed() if seed is None else initializers.check_seed(seed),
    )
    plan = _plan(model, k, exclude, settings)
    if copy:
        masked, twins = copy_model(model)
    else:
        masked, twins = model, {id(layer): layer for layer in plan.layers}
    with contextlib.nullcontext() if copy else undo_on_failure(plan.layers, values=not settings.keep):
        _apply(plan, twins, settings)
        remember_parts(masked)
    _keras.drop_compiled_functions(masked)
    if plan.not_masked:
        _logger.warning("Without a mask: %s.", "; ".join(plan.not_masked))
    return masked


def _check_without_seed(name: str, initializer: Any) -> None:
    chosen = None if initializer is None else initializers.get(initializer)
    config: dict[str, Any] = getattr(chosen, "get_config", dict)()
    if config.get("seed") is not None:
        raise ValueError(
            f"`{name}` must have no seed of its own, or layers of one shape would share their values. "
            f"Received: seed={config['seed']}. Leave it out: mask_model(seed=...) gives each layer its own."
        )


@dataclasses.dataclass(frozen=True)
class _Settings:
    """The arguments of `mask_model`, checked."""

    keep: bool
    selector: selectors.Selector
    kernel_initializer: Any
    scores_initializer: Any
    scores_regularizer: Any
    train_biases: bool
    train_norms: bool
    seed: int


@dataclasses.dataclass(frozen=True)
class _Plan:
    """What is to be done to a model, said of its own layers.

    Attributes:
        layers: all layers, the model first.
        masks: what layers are masked with, by their ids.
        norms: ids of the normalizations that begin anew.
        excluded: ids of the layers to leave as they are.
        in_code: ids of the layers that are made by code, which may read their biases.
        not_masked: what is left without a mask, with the reason, for the log.
        reasons: why layers with weights are not masked, by their ids.
    """

    layers: list[Any]
    masks: dict[int, MaskArguments]
    norms: set[int]
    excluded: set[int]
    in_code: set[int]
    not_masked: list[str]
    reasons: dict[int, str]


def _plan(model: keras.Model, k: Any, exclude: Any, settings: _Settings) -> _Plan:
    paths = patterns.Paths(model)
    everything = [model, *(layer for _, layer in paths.found)]
    for layer in everything:
        if isinstance(layer, MaskedLayer):
            raise ValueError(
                f"Model '{model.name}' is masked already: layer '{paths.of(layer)}' is a {type(layer).__name__}."
            )
    left = _left_alone(everything)
    maskable = [(layer, kernels_of(layer)) for layer in everything if kernels_of(layer)]
    kernels = [(layer, spec.name) for layer, specs in maskable for spec in specs]
    excluded, single = patterns.find_excluded(paths, kernels, exclude)
    left |= dict.fromkeys(excluded, "excluded")
    chosen = [kernel for kernel in kernels if id(kernel[0]) not in left and (id(kernel[0]), kernel[1]) not in single]
    fractions = patterns.find_fractions(paths, chosen, k, _size)
    masks: dict[int, MaskArguments] = {}
    for place, (layer, specs) in enumerate(maskable):
        layer_seed = initializers.derive_seed(settings.seed, place)
        arguments = {
            spec.name: KernelArguments.fill(
                fractions[id(layer), spec.name],
                layers.kernel_seed(layer_seed, spec, specs),
                settings.selector,
                settings.scores_initializer,
                settings.kernel_initializer,
            )
            for spec in specs
            if (id(layer), spec.name) in fractions
        }
        if arguments:
            masks[id(layer)] = MaskArguments(
                arguments, settings.scores_regularizer, settings.train_biases, not settings.keep
            )
        elif id(layer) not in left:
            left[id(layer)] = "excluded"
            excluded.add(id(layer))
    if not masks:
        found = [
            f"{p} ({type(layer).__name__}: {left.get(id(layer)) or reason_not_masked(layer)})"
            for p, layer in paths.found
        ]
        raise ValueError(
            f"Model '{model.name}' has no layer that can be masked. Expected at least one of "
            f"{sorted(stock.__name__ for stock in layers.MASKED_LAYERS)}. Received: {found}."
        )
    norms = {id(layer) for layer in everything if type(layer) in NORMS and layer.built} - excluded
    norms = set() if settings.keep else norms - set(left)
    reasons: dict[int, str] = {}
    alike: dict[tuple[str, str], list[str]] = {}
    for layer in everything:
        if id(layer) in masks or id(layer) in norms or not own_weights(layer):
            continue
        reasons[id(layer)] = left.get(id(layer)) or reason_not_masked(layer)
        trainable = {id(weight) for weight in layer.trainable_variables}
        learns = any(id(weight) in trainable for weight in own_weights(layer))
        if id(layer) not in excluded and layer is not model and learns and type(layer) not in NORMS:
            alike.setdefault((type(layer).__name__, reasons[id(layer)]), []).append(paths.of(layer))
    not_masked = [
        f"{named[0]}{f' and {len(named) - 1} more' if named[1:] else ''} ({kind}): {reason}"
        for (kind, reason), named in alike.items()
    ]
    return _Plan(everything, masks, norms, excluded, find_in_code(model), not_masked, reasons)


def _size(layer: Any, name: str) -> int:
    spec = next(spec for spec in kernels_of(layer) if spec.name == name)
    size: int = spec.plain_variable(layer).shape.num_elements()
    return size


def _left_alone(everything: list[Any]) -> dict[int, str]:
    """Returns why layers of maskable classes are left as they are, by their ids."""
    left: dict[int, str] = {}
    holders: dict[int, list[Any]] = {}
    for layer in everything:
        for store in (_keras.TRAINABLE, _keras.NON_TRAINABLE):
            for variable in _keras.own_variables(layer, store):
                holders.setdefault(id(variable), []).append(layer)
    constants = {id(variable) for layer in everything for variable in _constants(layer)}
    for layer in everything:
        if isinstance(layer, keras.layers.SpectralNormalization):
            left |= {id(part): "SpectralNormalization rescales its kernel" for _, part in walk_parts(layer)}
        if getattr(layer, "lora_rank", None) or getattr(layer, "quantization_mode", None):
            left[id(layer)] = "LoRA or a quantized dtype would go round the mask"
        for spec in kernels_of(layer):
            variable = spec.plain_variable(layer)
            if not layer.built or variable is None:
                left.setdefault(id(layer), "not built, as nothing has called it")
            elif not isinstance(variable, keras.Variable) or "float" not in variable.dtype:
                left.setdefault(id(layer), f"its `{spec.name}` is no variable of a float type")
            elif len(holders.get(id(variable), ())) > 1:
                names = " and ".join(f"'{holder.name}'" for holder in holders[id(variable)])
                left.setdefault(id(layer), f"the variable of its kernel belongs to {names}")
            elif id(variable) in constants:
                left.setdefault(id(layer), "an operation of the model uses the variable of its kernel")
    return left


def _constants(layer: Any) -> list[Any]:
    """Returns the variables that operations of a Functional model are given as they are."""
    if not isinstance(layer, _keras.Functional):
        return []
    return [
        value
        for operation in layer.operations
        for node in operation._inbound_nodes
        for value in keras.tree.flatten((node.arguments.args, node.arguments.kwargs))
        if isinstance(value, keras.Variable)
    ]


def _apply(plan: _Plan, twins: dict[int, Any], settings: _Settings) -> None:
    """Does what is planned, to the layers of the model or of its copy."""
    opened = _holders_of_what_learns(plan, settings)
    for layer in plan.layers:
        if (twin := twins.get(id(layer))) is None:
            continue  # a part without weights that a copy makes when it needs it
        in_code = id(layer) in plan.in_code
        if reason := plan.reasons.get(id(layer)):
            note_reason(twin, reason)
        if id(layer) in plan.masks:
            if not settings.keep:
                _begin_bias_anew(twin, in_code, settings.train_biases)
            mask_layer(twin, plan.masks[id(layer)])
        elif id(layer) in plan.norms:
            _begin_norm_anew(twin, in_code, settings.train_norms)
        elif id(layer) in plan.excluded:
            continue
        elif settings.keep and not (settings.train_norms and type(layer) in NORMS):
            if id(layer) not in opened:
                freeze_layer(twin, in_code)
            elif own_weights(twin):
                freeze_weights(twin)
        if id(layer) in opened and not twin.trainable:
            if own_weights(twin):
                freeze_weights(twin)
            twin._trainable = True


def _holders_of_what_learns(plan: _Plan, settings: _Settings) -> set[int]:
    """Returns the ids of the layers that hold something which is trained: masks, and what is excluded."""
    learns = {*plan.masks, *plan.excluded}
    if settings.train_norms:
        learns |= {id(layer) for layer in plan.layers if type(layer) in NORMS}
    return {
        id(layer)
        for layer in plan.layers
        if id(layer) not in plan.excluded and any(id(part) in learns for _, part in walk_parts(layer))
    }


def _begin_bias_anew(layer: Any, in_code: bool, train: bool) -> None:
    bias = getattr(layer, "bias", None)
    if not isinstance(bias, keras.Variable):
        return
    if not in_code and not train and (hasattr(layer, "use_bias") or hasattr(layer, "bias_axes")):
        drop(layer, "bias")
        return
    values = keras.ops.zeros(bias.shape, bias.dtype)
    if train and getattr(layer, "bias_initializer", None) is not None:
        values = layer.bias_initializer(tuple(bias.shape), bias.dtype)
    bias.assign(values)
    if getattr(layer, "unit_forget_bias", False):  # no weight that is learned: how the cell is made
        units = bias.shape[-1] // 4
        bias.assign(keras.ops.concatenate([values[:units], keras.ops.ones(units, bias.dtype), values[2 * units :]]))


def _begin_norm_anew(layer: Any, in_code: bool, train: bool) -> None:
    stays = in_code or train or getattr(layer, "rms_scaling", False)
    for name, value in (("gamma", 1.0), ("beta", 0.0)):
        weight = getattr(layer, name, None)
        if weight is None:
            continue
        if stays:
            weight.assign(keras.ops.full(weight.shape, value, weight.dtype))
        else:
            drop(layer, name)
    for weight in _keras.own_variables(layer, _keras.NON_TRAINABLE):
        weight.assign(keras.ops.full(weight.shape, 0.0 if "mean" in weight.name else 1.0, weight.dtype))
    if stays and not train and _keras.own_variables(layer, _keras.TRAINABLE):
        freeze_weights(layer)
