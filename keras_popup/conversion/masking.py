"""mask_model: adds masks to the layers of a model."""

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Mapping
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
    begin_anew,
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
    k: float | Mapping[str, float] | Callable[[Any], float] = 0.5,
    *,
    selector: str | dict[str, Any] | selectors.Selector = "top_k",
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
    """Masks a model: its kernels become frozen, and get trainable scores.

    Dense, EinsumDense, convolutions, the cells of recurrent layers and Embedding become masked layers, wherever they
    are: in nested models, in TimeDistributed, in MultiHeadAttention, in blocks and models with their own code. So do
    your own layers after `register_maskable`. Layers are masked in place. So a shared layer stays one layer, and code
    that reads its kernel gets the masked kernel. One line in the log "keras_popup" names the layers whose weights are
    trained without a mask, with the reasons. `mask_summary` lists all layers without a mask.

    `weights="random"` draws new kernels. It drops biases, and gamma and beta of BatchNormalization, LayerNormalization
    and GroupNormalization, and resets the statistics of normalizations. Code may read these weights. So inside of
    code they stay, frozen: biases and betas at 0, gammas at 1.

    `weights="keep"` keeps the model's own kernels and all other weights, frozen. Training then finds a mask for them:
    for a new task, or to find which weights a trained network does not need. The first mask is that of magnitude
    pruning, and training moves on from there: with 14 kB a task, it was 3 points better than a random start
    (docs/tasks.md).

    With both, excluded layers keep their weights and are trained.

    In `k` and `exclude`, `fnmatch` patterns select layers by name or path: "head", "block1_*",
    "encoder/attention/query". If a layer has several kernels, "/" and the name of a kernel selects one of them:
    "lstm/lstm_cell/recurrent_kernel". A pattern that matches a layer also matches all layers that it holds.

    Scores want larger steps than weights: `compile("sgd")`, whose learning rate is 0.01, learns too slowly. These two
    did well on small networks (docs/choosing.md), with `steps` the number of all batches:

        keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.5, steps), momentum=0.9)
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(1e-3, steps))

    Args:
        model: a built `keras.Model`: Sequential, Functional or subclassed.
        k: the fraction of each kernel's weights that is kept, in (0, 1]. A number for all kernels; or a dict from
            patterns to numbers, where the first match counts (so "*", for all other layers, goes last); or a
            function that takes a layer of `model` and returns a number.
        selector: a name, object or config as in `keras_popup.selectors.get`.
        kernel_initializer: initializer of the frozen kernels, as in `keras_popup.initializers.get`, without a seed.
            Not used with `weights="keep"`.
        scores_initializer: initializer of the scores, without a seed. None is "magnitude" for `weights="keep"` and
            selectors that draw no masks, for kernels whose weights are of different sizes; else the selector's.
        scores_regularizer: Keras regularizer of the scores, or None.
        weights: "random" or "keep".
        exclude: layers not to mask: a pattern, a layer of `model`, a list of these, or a function that takes a layer
            of `model` and returns a bool.
        train_biases: bool. True makes the biases of masked layers trainable. False drops them ("random"), or keeps
            the model's own, frozen ("keep").
        train_norms: bool. The same for gamma and beta of normalizations.
        seed: integer in [0, 2**64). The seed of each layer follows from it and from the layer's index among the
            layers that can be masked. So the same model and seed give the same kernels and scores. None draws a
            seed. The model's config holds the seeds of the layers.
        copy: bool. True masks a copy, which Keras makes from the model's config and which is compared with the model
            variable by variable. False masks the model itself, which needs no config. If that fails, the model gets
            its old state back.

    Returns:
        The masked `keras.Model`, with the same topology and layer names, not compiled. With `copy=False`, `model`.

    Raises:
        RuntimeError: if Keras's backend is not TensorFlow.
        TypeError: if `model` is not a `keras.Model`, or if it cannot be copied.
        ValueError: if the model is not built, if no layer can be masked, if `k` keeps no weight of a kernel, if a
            pattern matches nothing, or if an initializer has a seed. (With a seed, all layers of the same shape would
            have the same kernel.)

    Example:

    >>> import keras_popup
    >>> model = keras_popup.models.FullyConnected()
    >>> masked = keras_popup.mask_model(model, k={"dense1": 0.3, "*": 0.5}, exclude="classes", seed=1)
    >>> [layer.kept for layer in masked.layers if hasattr(layer, "kept")]
    [70560, 15000]
    """
    _keras.require_tensorflow("mask_model")
    check_model(model, "mask_model")
    if weights not in ("random", "keep"):
        raise ValueError(f"`weights` must be 'random' or 'keep'. Received: {weights!r}.")
    if not model.built:
        raise ValueError(
            f"Model '{model.name}' is not built, so it has no weights yet. Call it on data first, or give it an Input."
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
    with begin_anew(), contextlib.nullcontext() if copy else undo_on_failure(plan.layers, values=not settings.keep):
        _apply(plan, twins, settings)
        remember_parts(masked)
    _keras.drop_compiled_functions(masked)
    if plan.not_masked:
        _logger.warning("Without a mask: %s.", "; ".join(plan.not_masked))
    return masked


def _check_without_seed(name: str, initializer: Any) -> None:
    instance = None if initializer is None else initializers.get(initializer)
    config: dict[str, Any] = getattr(instance, "get_config", dict)()
    if config.get("seed") is not None:
        raise ValueError(
            f"`{name}` must have no seed of its own: with it, all layers of the same shape would have the same values. "
            f"Received: seed={config['seed']}. Leave it out. mask_model(seed=...) gives each layer another seed."
        )


@dataclasses.dataclass(frozen=True)
class _Settings:
    """The checked arguments of `mask_model`."""

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
    """The changes that `mask_model` makes, in terms of the layers of the original model.

    Attributes:
        layers: all layers, the model first.
        masks: arguments of the layers to mask, by `id(layer)`.
        norms: ids of the normalizations to reset.
        excluded: ids of the layers not to change.
        in_code: ids of the layers that code holds, which may read their biases.
        not_masked: descriptions of trained layers without a mask, with the reasons, for the log.
        reasons: why layers with weights are not masked, by `id(layer)`.
    """

    layers: list[Any]
    masks: dict[int, MaskArguments]
    norms: set[int]
    excluded: set[int]
    in_code: set[int]
    not_masked: list[str]
    reasons: dict[int, str]


def _plan(model: keras.Model, k: patterns.Fractions, exclude: Any, settings: _Settings) -> _Plan:
    paths = patterns.Paths(model)
    everything = [model, *(layer for _, layer in paths.found)]
    for layer in everything:
        if isinstance(layer, MaskedLayer):
            raise ValueError(
                f"Model '{model.name}' is masked already: layer '{paths.of(layer)}' is a {type(layer).__name__}. Strip "
                "the masks first, with keras_popup.strip_masks, or mask the original model."
            )
    reasons_to_skip = _find_unmaskable(everything)
    maskable = [(layer, kernels_of(layer)) for layer in everything if kernels_of(layer)]
    kernels = [(layer, spec.name) for layer, specs in maskable for spec in specs]
    excluded, single = patterns.find_excluded(paths, kernels, exclude)
    reasons_to_skip |= dict.fromkeys(excluded, "excluded")
    chosen = [
        (layer, name) for layer, name in kernels if id(layer) not in reasons_to_skip and (id(layer), name) not in single
    ]
    places = _find_places(settings, chosen)
    sizes = [_count_weights(*kernel) for kernel in chosen]
    # Of a selector for the whole network, k is the fraction of all weights.
    fractions = patterns.find_fractions(paths, chosen, k, (lambda *_: sum(sizes)) if places else _count_weights)
    for place in list(places.values())[:1]:
        patterns.check_one_k(k, list(fractions.values()), place)
        place.check_group(sizes, next(iter(fractions.values())))
    for layer, name in chosen if not places else []:
        spec = next(spec for spec in kernels_of(layer) if spec.name == name)
        shape = tuple(spec.plain_variable(layer).shape)
        axes = spec.find_axes(layer, len(shape), settings.selector)
        settings.selector.check(shape, fractions[id(layer), name], f" of layer '{paths.of(layer)}'", **axes)
    masks: dict[int, MaskArguments] = {}
    for index, (layer, specs) in enumerate(maskable):
        layer_seed = initializers.derive_seed(settings.seed, index)
        arguments = {
            spec.name: KernelArguments.fill(
                fractions[id(layer), spec.name],
                layers.kernel_seed(layer_seed, spec, specs),
                places.get((id(layer), spec.name), settings.selector),
                _choose_start(settings, spec.plain_variable(layer)),
                settings.kernel_initializer,
            )
            for spec in specs
            if (id(layer), spec.name) in fractions
        }
        if arguments:
            masks[id(layer)] = MaskArguments(
                arguments, settings.scores_regularizer, settings.train_biases, not settings.keep
            )
        elif id(layer) not in reasons_to_skip:
            reasons_to_skip[id(layer)] = "excluded"
            excluded.add(id(layer))
    if not masks:
        described = [
            f"{path} ({type(layer).__name__}: {reasons_to_skip.get(id(layer)) or reason_not_masked(layer)})"
            for path, layer in paths.found
        ]
        raise ValueError(
            f"Model '{model.name}' has no layer that can be masked. Expected at least one of "
            f"{sorted(stock.__name__ for stock in layers.MASKED_LAYERS)}. Received: {described}."
        )
    norms = {id(layer) for layer in everything if type(layer) in NORMS and layer.built} - excluded
    norms = set() if settings.keep else norms - set(reasons_to_skip)
    reasons: dict[int, str] = {}
    groups: dict[tuple[str, str], list[str]] = {}  # paths of layers with the same class and reason
    for layer in everything:
        if id(layer) in masks or id(layer) in norms or not own_weights(layer):
            continue
        reasons[id(layer)] = reasons_to_skip.get(id(layer)) or reason_not_masked(layer)
        trainable = {id(weight) for weight in layer.trainable_variables}
        learns = any(id(weight) in trainable for weight in own_weights(layer))
        if id(layer) not in excluded and layer is not model and learns and type(layer) not in NORMS:
            groups.setdefault((type(layer).__name__, reasons[id(layer)]), []).append(paths.of(layer))
    not_masked = [
        f"{group[0]}{f' and {len(group) - 1} more' if group[1:] else ''} ({kind}): {reason}"
        for (kind, reason), group in groups.items()
    ]
    return _Plan(everything, masks, norms, excluded, find_in_code(model), not_masked, reasons)


def _find_places(settings: _Settings, chosen: list[patterns.Kernel]) -> dict[tuple[int, str], selectors.GlobalTopK]:
    """Returns the selector of each kernel by (id of the layer, name), if it chooses for the whole network; else {}."""
    selector = settings.selector
    if not isinstance(selector, selectors.GlobalTopK):
        return {}
    group = initializers.derive_seed(settings.seed, "group")
    return {
        (id(layer), name): selector.at_place(group, place, len(chosen)) for place, (layer, name) in enumerate(chosen)
    }


def _choose_start(settings: _Settings, kernel: Any) -> Any:
    """Returns the initializer of the scores of a kernel, or None for the selector's."""
    if settings.scores_initializer is not None or not settings.keep or settings.selector.draws:
        return settings.scores_initializer
    sizes = keras.ops.abs(kernel)
    return "magnitude" if bool(keras.ops.any(sizes != keras.ops.max(sizes))) else None


def _count_weights(layer: Any, name: str) -> int:
    spec = next(spec for spec in kernels_of(layer) if spec.name == name)
    size: int = spec.plain_variable(layer).shape.num_elements()
    return size


def _find_unmaskable(everything: list[Any]) -> dict[int, str]:
    """Returns the reasons why layers of maskable classes cannot be masked, by `id(layer)`."""
    reasons: dict[int, str] = {}
    holders: dict[int, list[Any]] = {}
    for layer in everything:
        for store in (_keras.TRAINABLE, _keras.NON_TRAINABLE):
            for variable in _keras.own_variables(layer, store):
                holders.setdefault(id(variable), []).append(layer)
    constants = {id(variable) for layer in everything for variable in _find_constants(layer)}
    for layer in everything:
        if isinstance(layer, keras.layers.SpectralNormalization):
            reasons |= {id(part): "SpectralNormalization rescales its kernel" for _, part in walk_parts(layer)}
        if getattr(layer, "lora_rank", None) or getattr(layer, "quantization_mode", None):
            reasons[id(layer)] = "LoRA or a quantized dtype would bypass the mask"
        for spec in kernels_of(layer):
            variable = spec.plain_variable(layer)
            if not layer.built or variable is None:
                reasons.setdefault(id(layer), "not built, because nothing has called it")
            elif not isinstance(variable, keras.Variable) or "float" not in variable.dtype:
                reasons.setdefault(id(layer), f"its `{spec.name}` is not a variable of a float dtype")
            elif len(holders.get(id(variable), ())) > 1:
                names = " and ".join(f"'{holder.name}'" for holder in holders[id(variable)])
                reasons.setdefault(id(layer), f"the variable of its kernel belongs to {names}")
            elif id(variable) in constants:
                reasons.setdefault(id(layer), "an operation of the model uses the variable of its kernel")
    return reasons


def _find_constants(layer: Any) -> list[Any]:
    """Returns the variables that are direct arguments of operations in a Functional model."""
    if not isinstance(layer, _keras.Functional):
        return []
    return [value for value in _keras.list_arguments(layer) if isinstance(value, keras.Variable)]


def _apply(plan: _Plan, twins: dict[int, Any], settings: _Settings) -> None:
    """Makes the planned changes in the layers of the model, or of its copy."""
    holders = _find_holders_of_trained(plan, settings)
    for layer in plan.layers:
        if (twin := twins.get(id(layer))) is None:
            continue  # a layer without weights that the copy makes later, when it needs it
        in_code = id(layer) in plan.in_code
        if reason := plan.reasons.get(id(layer)):
            note_reason(twin, reason)
        if id(layer) in plan.masks:
            if not settings.keep:
                _reset_bias(twin, in_code, settings.train_biases)
            mask_layer(twin, plan.masks[id(layer)])
        elif id(layer) in plan.norms:
            _reset_norm(twin, in_code, settings.train_norms)
        elif id(layer) in plan.excluded:
            continue
        elif settings.keep and not (settings.train_norms and type(layer) in NORMS):
            if id(layer) not in holders:
                freeze_layer(twin, in_code)
            elif own_weights(twin):
                freeze_weights(twin)
        if id(layer) in holders and not twin.trainable:
            if own_weights(twin):
                freeze_weights(twin)
            twin._trainable = True


def _find_holders_of_trained(plan: _Plan, settings: _Settings) -> set[int]:
    """Returns the ids of the layers that hold trained layers: masked or excluded ones, or trained normalizations."""
    trained = {*plan.masks, *plan.excluded}
    if settings.train_norms:
        trained |= {id(layer) for layer in plan.layers if type(layer) in NORMS}
    return {
        id(layer)
        for layer in plan.layers
        if id(layer) not in plan.excluded and any(id(part) in trained for _, part in walk_parts(layer))
    }


def _reset_bias(layer: Any, in_code: bool, train: bool) -> None:
    """Drops the bias of a layer, or gives it its initial values."""
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
    if getattr(layer, "unit_forget_bias", False):  # a part of the cell's design, not a learned bias
        units = bias.shape[-1] // 4
        bias.assign(keras.ops.concatenate([values[:units], keras.ops.ones(units, bias.dtype), values[2 * units :]]))


def _reset_norm(layer: Any, in_code: bool, train: bool) -> None:
    """Drops gamma and beta of a normalization, or sets them to 1 and 0, and resets its statistics."""
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
