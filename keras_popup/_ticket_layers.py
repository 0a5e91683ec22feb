"""A masked layer in a ticket: its mask coded, its kernel left to the seed."""

from typing import Any

import numpy as np

from keras_popup import _coding, _programs, _ticket_file, initializers, layers, selectors
from keras_popup._ticket_file import Mask, TicketError
from keras_popup.selectors import Bernoulli, TopK

# The initializers that a ticket may name: theirs is all the code that it chooses.
_FROZEN = {f"keras_popup>{each.__name__}": each for each in initializers._INITIALIZERS.values()}


def packed(layer: Any, where: str, key: str) -> Mask:
    """Returns the record of a masked layer.

    Args:
        where: its path in the model.
        key: under which the stock layer saves its kernel.
    """
    with _programs.interpreted():
        mask = layer.mask().numpy().astype(np.uint8)
    shape, fans = mask.shape, layer._fans(mask.shape)
    frozen = layer._kernel.numpy()
    weights, values = None, b""
    # Of others it is not known what they do with a kernel besides masking it.
    if type(layer.frozen_initializer) in _FROZEN.values() and type(layer.selector) in (TopK, Bernoulli):
        drawn = layer.frozen_initializer.values(shape, fans)
        if np.array_equal(drawn.astype(frozen.dtype, copy=False), frozen):
            weights = _coding.weight_bins(drawn)
            check = _ticket_file.checksum(frozen)
        del drawn
    from_seed = weights is not None
    if not from_seed:
        baked, kept = layer.baked_kernel().numpy(), mask.astype(bool)
        if np.any(baked[~kept]):
            raise ValueError(
                f"The kernel of layer '{layer.name}' is not 0 where its mask is. (Is it finite?) No ticket holds it."
            )
        values, check = _ticket_file.pack(baked[kept]), _ticket_file.checksum(baked[kept])
        del baked, kept
    starts = None
    if type(layer.scores_initializer) in _FROZEN.values():
        starts = _coding.start_bins(layer.scores_initializer.values(shape, fans))
    tables, stream = _coding.encode(mask, starts, weights)
    config = layer.get_config()
    return Mask(
        layer=where,
        kind=type(layer).__name__,
        key=key,
        shape=shape,
        dtype=frozen.dtype.name,
        kept=int(mask.sum(dtype=np.int64)),
        fans=fans,
        initializer=config[f"{layer.kernel_argument}_initializer"],
        from_seed=from_seed,
        starts=starts is not None,
        arguments={parameter.name: config[parameter.name] for parameter in layers._own_parameters()},
        kernel_check=check,
        mask_check=_ticket_file.checksum(np.packbits(mask)),
        tables=tables,
        stream=stream,
        values=values,
    )


def unpacked(record: Mask) -> tuple[Any, Any]:
    """Returns (mask, masked kernel) of a record: the inverse of `packed`.

    Raises:
        TicketError: if they are not those that were packed.
    """
    shape, dtype = record.shape, _ticket_file.DTYPES[record.dtype]
    starts = weights = None
    try:
        if record.starts:
            starts = _coding.start_bins(_initializer(record.arguments.get("scores_initializer"))(shape, record.fans))
        if record.from_seed:
            values = _initializer(record.initializer)(shape, record.fans)
            weights = _coding.weight_bins(values)
        else:
            values = _ticket_file.unpack(record.values, (record.kept,), record.dtype)
        mask = _coding.decode(record.tables, record.stream, shape, record.kept, starts, weights)
    except ValueError as error:
        raise TicketError(f"{record}: {error}") from None
    del starts, weights
    kernel = values.astype(dtype, copy=False)
    for what, array, check in (
        ("mask", np.packbits(mask), record.mask_check),
        ("kernel", kernel, record.kernel_check),
    ):
        if _ticket_file.checksum(array) != check:
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
