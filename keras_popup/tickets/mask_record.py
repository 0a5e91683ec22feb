"""A masked kernel in a ticket: its mask coded, its kernel left to the seed."""

import sys
from typing import Any

import keras
import numpy as np

from keras_popup import _keras, initializers, selectors
from keras_popup.layers import KernelArguments, MaskArguments, MaskedKernel, kernels_of, stock_of
from keras_popup.selectors import Bernoulli, TopK
from keras_popup.tickets import allowlist, file_format, mask_coding
from keras_popup.tickets.file_format import Mask, TicketError

# The initializers that a ticket may name: theirs is all the code that it chooses.
_FROZEN = {f"keras_popup>{each.__name__}": each for each in initializers._INITIALIZERS.values()}


def encode_kernel(kernel: MaskedKernel, where: str, key: str) -> Mask:
    """Returns the record of a masked kernel.

    Args:
        where: its layer's path in the model.
        key: under which the stock layer saves it.
    """
    with selectors.without_compiling():
        mask = kernel.mask().numpy().astype(np.uint8)
    shape, fans = mask.shape, kernel.fans(mask.shape)
    frozen = kernel.kernel.numpy()
    weights, values = None, b""
    # Of others it is not known what they do with a kernel besides masking it.
    if type(kernel.initializer) in _FROZEN.values() and type(kernel.selector) in (TopK, Bernoulli):
        drawn = kernel.initializer.values(shape, fans)
        if np.array_equal(drawn.astype(frozen.dtype, copy=False), frozen):
            weights = mask_coding.weight_bins(drawn)
            check = file_format.checksum(frozen)
        del drawn
    from_seed = weights is not None
    if not from_seed:
        baked, kept = kernel.baked().numpy(), mask.astype(bool)
        if np.any(baked[~kept]):
            raise ValueError(
                f"The kernel of layer '{kernel.layer.name}' is not 0 where its mask is. (Is it finite?) No ticket "
                "holds it."
            )
        values, check = file_format.pack(baked[kept]), file_format.checksum(baked[kept])
        del baked, kept
    starts = None
    if type(kernel.scores_initializer) in _FROZEN.values():
        starts = mask_coding.start_bins(kernel.scores_initializer.values(shape, fans))
    tables, stream = mask_coding.encode(mask, starts, weights)
    arguments = kernel.arguments().to_json()
    initializer = arguments.pop("initializer")
    layer = kernel.layer
    regularizer = keras.regularizers.serialize(kernel.scores_regularizer)
    of_layer = MaskArguments.of(layer)
    return Mask(
        layer=where,
        kind=f"Masked{stock_of(layer).__name__}",
        key=key,
        shape=shape,
        dtype=frozen.dtype.name,
        kept=int(mask.sum(dtype=np.int64)),
        fans=fans,
        initializer=initializer,
        from_seed=from_seed,
        starts=starts is not None,
        arguments={
            **arguments,
            "scores_regularizer": regularizer,
            "train_bias": of_layer.train_bias,
            **({_KERNEL: kernel.name} if len(layer.kernel_specs) > 1 else {}),
            # Not said of those that have no other weights, so that earlier versions read the file.
            **({} if of_layer.train_others else {"train_others": False}),
        },
        kernel_check=check,
        mask_check=file_format.checksum(np.packbits(mask)),
        tables=tables,
        stream=stream,
        values=values,
    )


def decode_kernel(record: Mask) -> tuple[Any, Any]:
    """Returns (mask, masked kernel) of a record: the inverse of `packed`.

    Raises:
        TicketError: if they are not those that were packed.
    """
    shape, dtype = record.shape, file_format.DTYPES[record.dtype]
    starts = weights = None
    try:
        if record.starts:
            starts = mask_coding.start_bins(
                _initializer(record.arguments.get("scores_initializer"))(shape, record.fans)
            )
        if record.from_seed:
            values = _initializer(record.initializer)(shape, record.fans)
            weights = mask_coding.weight_bins(values)
        else:
            values = file_format.unpack(record.values, (record.kept,), record.dtype)
        mask = mask_coding.decode(record.tables, record.stream, shape, record.kept, starts, weights)
    except ValueError as error:
        raise TicketError(f"{record}: {error}") from None
    del starts, weights
    kernel = values.astype(dtype, copy=False)
    for what, array, check in (
        ("mask", np.packbits(mask), record.mask_check),
        ("kernel", kernel, record.kernel_check),
    ):
        if file_format.checksum(array) != check:
            raise TicketError(
                f"the {what} of layer '{record.layer}' is not the one that was saved. The file is whole, so numbers "
                "drawn from a seed have changed: use the versions that `keras-popup ticket info` shows, and report this"
            )
    if record.from_seed:
        return mask, _masked(kernel, mask, _factor(record))
    baked = np.zeros(shape, dtype)
    baked[mask.astype(bool)] = kernel
    return mask, baked


def _masked(kernel: Any, mask: Any, factor: np.float32) -> Any:
    """Returns kernel * mask * factor, in place, without negative zeros: as `MaskedLayer.baked_kernel`."""
    np.copyto(kernel, 0, where=mask == 0)
    if factor != 1:
        kernel *= factor.astype(kernel.dtype)
    kernel += np.zeros((), kernel.dtype)
    return kernel


def _factor(record: Mask) -> np.float32:
    """Returns what the selector of a record multiplies kept weights by."""
    serialized = record.arguments.get("selector")
    parts = serialized if isinstance(serialized, dict) else {}
    for selector in (TopK(), Bernoulli(False), Bernoulli(True)):
        own = selectors.serialize(selector)
        if all(parts.get(name) == own[name] for name in ("registered_name", "class_name", "config")):
            return selector.factor(record.kept, record.size)
    raise TicketError(f"{record}: its selector is {str(serialized)[:80]!r}, none that weights from a seed go with")


def _initializer(serialized: Any) -> Any:
    """Returns the `values` method of an initializer that a ticket names, by the list of this module, not Keras's."""
    parts = serialized if isinstance(serialized, dict) else {}
    name, config = parts.get("registered_name"), parts.get("config")
    if (
        not isinstance(name, str)
        or name not in _FROZEN
        or not isinstance(config, dict)
        or set(config) != {"seed", "scaled", "k"}
    ):
        raise ValueError(f"its numbers are to come from {str(serialized)[:80]!r}, which is no initializer with a seed")
    k = config["k"]
    if not ((isinstance(k, (int, float)) and 0 < k <= 1) or (k is None and not config["scaled"])):
        raise ValueError(f"its initializer is scaled by k={str(k)[:60]}")
    return _FROZEN[name](initializers.check_seed(config["seed"]), bool(config["scaled"]), k).values


_OF_KERNELS = ("k", "seed", "selector", "scores_initializer")
_OF_LAYERS = ("scores_regularizer", "train_bias", "train_others")
_KERNEL = "kernel"


def name_kernels(layer: Any, records: list[Mask]) -> dict[str, Mask]:
    """Returns the records of a plain layer's masks by the names of its kernels.

    Raises:
        TicketError: if the layer has not these kernels.
    """
    specs = kernels_of(layer)
    kind = f"Masked{type(layer).__name__}"
    if not specs or any(record.kind != kind for record in records):
        where, kinds = records[0].layer, sorted({record.kind for record in records})
        raise TicketError(f"layer '{where}' is a {type(layer).__name__}, not the stock of {kinds[0]}")
    found = {record.arguments.get(_KERNEL, specs[0].name): record for record in records}
    if len(found) != len(records) or not {spec.name for spec in specs} >= set(found):
        raise TicketError(
            f"layer '{records[0].layer}' has the kernels {[spec.name for spec in specs]}, not {list(found)}"
        )
    return found


def arguments_of(records: dict[str, Mask], custom_objects: Any) -> MaskArguments:
    """Returns what a layer is masked with, of its records by the kernels' names.

    Raises:
        TicketError: if they are not the arguments of a masked layer.
    """
    for record in records.values():
        # Others would be the stock layer's, such as another number of units.
        if unknown := set(record.arguments) - {*_OF_KERNELS, *_OF_LAYERS, _KERNEL}:
            raise TicketError(f"masked layer '{record.layer}' has no arguments {str(sorted(unknown))[:60]}")
        try:
            allowlist.check({**record.arguments, "initializer": record.initializer}, custom_objects, sys.maxsize)
            with keras.saving.custom_object_scope(custom_objects or {}), _keras.SafeModeScope(True):
                kernels = {
                    name: KernelArguments.fill(
                        **{argument: each.arguments[argument] for argument in _OF_KERNELS}, initializer=each.initializer
                    )
                    for name, each in records.items()
                }
                regularizer = keras.regularizers.get(record.arguments["scores_regularizer"])
        except Exception as error:  # any kind: the arguments are those of the file
            raise TicketError(f"the arguments of masked layer '{record.layer}' are wrong: {error}") from error
    train_bias = record.arguments["train_bias"], record.arguments.get("train_others", True)
    if not all(type(each) is bool for each in train_bias):
        raise TicketError(f"the arguments of masked layer '{record.layer}' are wrong: train_bias={train_bias[0]!r}")
    return MaskArguments(kernels, regularizer, *train_bias)
