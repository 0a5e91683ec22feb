"""The record of a masked kernel in a ticket: the coded mask, and the seed of the kernel or its kept weights."""

import contextlib
import dataclasses
import sys
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from keras_popup import _keras, initializers, selectors
from keras_popup.layers import KernelArguments, MaskArguments, MaskedKernel, kernels_of, stock_of
from keras_popup.selectors import NM, Bernoulli, Block, GlobalTopK, MultiCoat, Signed, TopK
from keras_popup.tickets import allowlist, file_format, mask_coding, mask_planes, redraws
from keras_popup.tickets.base import Base
from keras_popup.tickets.file_format import Mask, TicketError

# The selectors whose masked kernel is kernel * mask * factor, so that the kernel may follow from its seed. Others may
# change a kernel in other ways than by its mask.
_PRODUCTS = {
    f"keras_popup>{kind.__name__}": kind for kind in (TopK, GlobalTopK, Signed, MultiCoat, NM, Block, Bernoulli)
}

# The initializers that a ticket may name.
_FROZEN = {f"keras_popup>{kind.__name__}": kind for kind in initializers.INITIALIZERS.values()}


def encode_kernel(
    kernel: MaskedKernel, path: str, key: str, values_dtype: str | None = None, base: Base | None = None
) -> Mask:
    """Returns the record of a masked kernel.

    Args:
        kernel: the masked kernel.
        path: str, the path of its layer in the model.
        key: str, the key under which the stock layer saves the kernel.
        values_dtype: str, the dtype of kept weights that no seed gives; None for the kernel's own.
        base: the base model. A kernel that it has is not in the record.

    Raises:
        ValueError: if the masked kernel is not 0 where the mask is 0, or if a weight is too large for `values_dtype`.
    """
    mask = kernel.read_mask().astype(np.int8)
    coding = mask_planes.describe(kernel.selector, mask.shape, kernel.k, kernel.fixed_seed, kernel.takes())
    if coding is None:
        mask = mask.view(np.uint8)
    shape, fans = mask.shape, kernel.fans(mask.shape)
    frozen = kernel.kernel.numpy()
    weights, values = None, b""
    more: dict[str, Any] = {}
    is_product = type(kernel.selector) in _PRODUCTS.values()
    if type(kernel.initializer) in _FROZEN.values() and is_product:
        drawn = kernel.initializer.values(shape, fans)
        if np.array_equal(drawn.astype(frozen.dtype, copy=False), frozen):
            weights = mask_coding.weight_bins(drawn)
            check = file_format.checksum(frozen)
        elif found := redraws.encode(kernel.initializer, drawn, frozen, mask != 0, fans):
            weights = mask_coding.weight_bins(drawn)
            check, values, more = file_format.checksum(frozen[mask != 0]), found[1], {_REDRAWS: found[0]}
        del drawn
    from_seed = weights is not None
    of_base = base.find(frozen) if base is not None and not from_seed and is_product else None
    if of_base is not None:
        weights, check, more = mask_coding.weight_bins(_to_float32(frozen)), of_base, {_BASE: True}
    elif not from_seed:
        baked, kept = kernel.baked().numpy(), mask.astype(bool)
        if np.any(baked[~kept]):
            raise ValueError(
                f"A ticket cannot hold the kernel of layer '{kernel.layer.name}': the masked kernel is not 0 where the "
                "mask is 0. Check that all weights of the kernel are finite."
            )
        stored = baked[kept]
        if values_dtype not in (None, frozen.dtype.name):
            stored, more = _round(stored, values_dtype, kernel), {_VALUES: values_dtype}
        values, check = file_format.pack(stored), file_format.checksum(stored)
        del baked, kept, stored
    starts = None
    if type(kernel.scores_initializer) in _FROZEN.values():
        starts = mask_coding.start_bins(kernel.scores_initializer.values(shape, fans))
    elif of_base is not None and isinstance(kernel.scores_initializer, initializers.Magnitude):
        starts = mask_coding.start_bins(_to_float32(frozen))  # the bins of scores that are w times a constant
    tables, stream, coded = _encode_mask(mask, coding, starts, weights)
    more |= coded
    arguments = kernel.arguments().to_json()
    initializer = arguments.pop("initializer")
    layer = kernel.layer
    regularizer = keras.regularizers.serialize(kernel.scores_regularizer)
    layer_arguments = MaskArguments.of(layer)
    return Mask(
        layer=path,
        kind=f"Masked{stock_of(layer).__name__}",
        key=key,
        shape=shape,
        dtype=frozen.dtype.name,
        kept=int(np.count_nonzero(mask)),
        fans=fans,
        initializer=initializer,
        from_seed=from_seed,
        starts=starts is not None,
        arguments={
            **arguments,
            "scores_regularizer": regularizer,
            "train_bias": layer_arguments.train_bias,
            **({_KERNEL: kernel.name} if len(layer.kernel_specs) > 1 else {}),
            # Left out if True, so that earlier versions can read the file.
            **({} if layer_arguments.train_others else {"train_others": False}),
            **layer_arguments.describe_training(),
            **more,
        },
        kernel_check=check,
        mask_check=file_format.checksum(pack_mask(mask)),
        tables=tables,
        stream=stream,
        values=values,
    )


def _encode_mask(
    mask: NDArray[Any], coding: dict[str, Any] | None, starts: Any, weights: Any
) -> tuple[bytes, bytes, dict[str, Any]]:
    """Returns the tables, the stream, and what the arguments of the record say of them."""
    if coding is None:
        return *mask_coding.encode(mask, starts, weights), {}
    counts, stream = mask_planes.pack(mask_planes.encode(mask, coding, starts, weights))
    return b"", stream, {_CODING: {**coding, _PLANES: counts}}


def _decode_mask(record: Mask, starts: Any, weights: Any) -> NDArray[Any]:
    """Returns the mask of a record, uint8, or int8 if it is coded in planes."""
    if _CODING not in record.arguments:
        return mask_coding.decode(record.tables, record.stream, record.shape, record.kept, starts, weights)
    coding, planes = _read_planes(record)
    mask = mask_planes.decode(planes, coding, record.shape, starts, weights)
    if (kept := int(np.count_nonzero(mask))) != record.kept:
        raise mask_coding.CodingError(f"its mask keeps {kept:,} weights, not {record.kept:,}")
    return mask


def _read_planes(record: Mask) -> tuple[dict[str, Any], list[mask_planes.Plane]]:
    coding = record.arguments[_CODING]
    if not isinstance(coding, dict) or record.tables:
        raise mask_coding.CodingError(f"its mask is coded as {str(coding)[:60]}")
    planes = mask_planes.unpack(coding.get(_PLANES), record.stream)
    return {name: value for name, value in coding.items() if name != _PLANES}, planes


def pack_mask(mask: NDArray[Any]) -> NDArray[Any]:
    """Returns a mask as it is held in memory: packed bits, or int8 if it has levels or is coded in planes."""
    return np.packbits(mask) if mask.dtype == np.uint8 else mask


def unpack_mask(packed: NDArray[Any], record: Mask) -> NDArray[Any]:
    """Returns the mask of a record from `pack_mask`."""
    if packed.dtype == np.int8:
        return packed
    return np.unpackbits(packed, count=record.size).reshape(record.shape)


def compute_limit(record: Mask) -> float:
    """Returns the bits that the mask of a record takes if nothing but its kind and counts is known."""
    if _CODING not in record.arguments:
        return selectors.entropy_bits(record.size, record.kept)
    try:
        return sum(selectors.entropy_bits(plane.size, plane.kept) for plane in _read_planes(record)[1])
    except ValueError as error:
        raise TicketError(f"{record}: {error}") from None


def _round(values: NDArray[Any], dtype: str, kernel: MaskedKernel) -> NDArray[Any]:
    with np.errstate(over="ignore"):
        rounded = values.astype(file_format.DTYPES[dtype])
    if not np.array_equal(np.isfinite(rounded.astype(values.dtype)), np.isfinite(values)):
        raise ValueError(
            f"A weight of layer '{kernel.layer.name}' is too large for {dtype}. Store them as {kernel.kernel.dtype}."
        )
    return rounded


def _to_float32(kernel: NDArray[Any]) -> NDArray[np.float32]:
    return kernel.astype(np.float32, copy=False)


def is_of_base(record: Mask) -> bool:
    """Tells whether the file has no kernel for a mask, because the base has it."""
    return bool(record.arguments.get(_BASE))


def read_base_kernel(record: Mask, base: Base | None) -> NDArray[Any] | None:
    """Returns the kernel that a record takes from the base, or None if it takes none.

    Raises:
        TicketError: if there is no base, or if it does not have the kernel.
    """
    if not is_of_base(record):
        return None
    if base is None:
        raise TicketError(NEEDS_BASE)
    kernel = base.read(f"the kernel of layer '{record.layer}'", record.shape, record.dtype, record.kernel_check)
    return np.asarray(kernel)


def decode_kernel(record: Mask, base: Base | None = None) -> tuple[NDArray[Any], NDArray[Any]]:
    """Returns (mask, masked kernel) from a record: the inverse of `encode_kernel`.

    The mask is uint8, or int8 if it is coded in planes.

    Args:
        record: the record.
        base: the base model that the ticket was saved with; None if it has none.

    Raises:
        TicketError: if the record is not valid, or if the result is not what was saved.
    """
    dtype = file_format.DTYPES[record.dtype]
    of_base = read_base_kernel(record, base)
    try:
        values, starts, weights = _find_values(record, of_base)
        mask = _decode_mask(record, starts, weights)
    except ValueError as error:
        raise TicketError(f"{record}: {error}") from None
    del starts, weights
    kernel = values.astype(dtype, copy=False) if record.from_seed else values
    checked = kernel
    if record.from_seed and _REDRAWS in record.arguments:
        kernel = redraw(record, kernel, mask)
        checked = kernel[mask != 0]
    for what, array, check in (
        ("mask", pack_mask(mask), record.mask_check),
        ("kernel", checked, record.kernel_check),
    ):
        if file_format.checksum(array) != check:
            raise TicketError(
                f"the {what} of layer '{record.layer}' is not the one that was saved. The file is not damaged, so "
                "numbers drawn from a seed have changed. Use the versions that `keras-popup ticket info` shows, and "
                "report this"
            )
    if record.from_seed or of_base is not None:
        return mask, _apply_mask(kernel, mask, find_factor(record))
    baked = np.zeros(record.shape, dtype)
    baked[mask.astype(bool)] = kernel
    return mask, baked


def redraw(record: Mask, kernel: NDArray[Any], mask: NDArray[Any]) -> NDArray[Any]:
    """Returns the kernel of a record's seed with the values of its redraws, if it has any.

    Raises:
        TicketError: if they are not valid.
    """
    if _REDRAWS not in record.arguments:
        return kernel
    initializer = _read_initializer(record.initializer)
    try:
        return redraws.decode(record.arguments[_REDRAWS], record.values, initializer, kernel, mask != 0, record.fans)
    except ValueError as error:
        raise TicketError(f"{record}: {error}") from None


def encode_again(record: Mask, mask: NDArray[Any], base: Base | None) -> Mask:
    """Returns a record with the coded mask that `decode_kernel` has decoded."""
    _, starts, weights = _find_values(record, read_base_kernel(record, base))
    described = record.arguments.get(_CODING)  # of a record that was decoded before
    coding = described and {name: value for name, value in described.items() if name != _PLANES}
    tables, stream, more = _encode_mask(mask, coding, starts, weights)
    return dataclasses.replace(record, tables=tables, stream=stream, arguments={**record.arguments, **more})


def _find_values(record: Mask, of_base: NDArray[Any] | None) -> tuple[NDArray[Any], Any, Any]:
    """Returns the weights of a record, and what its mask was coded with: bins of initial scores and of weights.

    Args:
        record: the record.
        of_base: the kernel that it takes from the base, or None.

    Raises:
        ValueError: if the record does not say where its weights or initial scores come from.
    """
    stored = record.arguments.get(_VALUES, record.dtype)
    starts = None
    if record.starts and of_base is not None and _is_magnitude(record):
        starts = mask_coding.start_bins(_to_float32(of_base))
    elif record.starts:
        initializer = _get_initializer(record.arguments.get("scores_initializer"))
        starts = mask_coding.start_bins(initializer(record.shape, record.fans))
    if record.from_seed:
        values = _get_initializer(record.initializer)(record.shape, record.fans)
        return values, starts, mask_coding.weight_bins(values)
    if of_base is not None:
        # A copy, as the mask is applied in place.
        return np.array(of_base), starts, mask_coding.weight_bins(_to_float32(of_base))
    if stored not in VALUES_DTYPES and stored != record.dtype:
        raise ValueError(f"its weights are stored as {str(stored)[:40]!r}, which is none of {VALUES_DTYPES}")
    return file_format.unpack(record.values, (record.kept,), stored), starts, None


def _is_magnitude(record: Mask) -> bool:
    serialized = record.arguments.get("scores_initializer")
    return isinstance(serialized, dict) and serialized.get("registered_name") == "keras_popup>Magnitude"


def _apply_mask(kernel: NDArray[Any], mask: NDArray[Any], factor: np.float32) -> NDArray[Any]:
    """Returns kernel * mask * factor, computed in place; -0.0 becomes +0.0. As `MaskedKernel.baked` does."""
    np.copyto(kernel, 0, where=mask == 0)
    if mask.dtype == np.int8:
        kernel *= mask.astype(kernel.dtype)
    if factor != 1:
        kernel *= factor.astype(kernel.dtype)
    kernel += np.zeros((), kernel.dtype)
    return kernel


def find_factor(record: Mask) -> np.float32:
    """Returns the scale that the selector of a record applies to the kept weights."""
    serialized = record.arguments.get("selector")
    parts = serialized if isinstance(serialized, dict) else {}
    kind = _PRODUCTS.get(str(parts.get("registered_name")))
    if kind is not None and parts.get("class_name") == kind.__name__ and isinstance(parts.get("config"), dict):
        with contextlib.suppress(TypeError, ValueError):  # of a config that is not one of the class
            selector = kind(**parts["config"])
            if selector.get_config() == parts["config"]:
                return selector.factor(record.kept, record.size)
    raise TicketError(
        f"{record}: its selector is {str(serialized)[:80]!r}; weights from a seed need one of the selectors "
        f"{', '.join(kind.__name__ for kind in _PRODUCTS.values())}"
    )


def _get_initializer(serialized: Any) -> Callable[[tuple[int, ...], tuple[int, int]], NDArray[np.float32]]:
    """Returns the `values` method of a serialized initializer. It must be one of this library."""
    return _read_initializer(serialized).values


def _read_initializer(serialized: Any) -> initializers.FrozenInitializer:
    parts = serialized if isinstance(serialized, dict) else {}
    name, config = parts.get("registered_name"), parts.get("config")
    if (
        not isinstance(name, str)
        or name not in _FROZEN
        or not isinstance(config, dict)
        or set(config) != {"seed", "scaled", "k"}
    ):
        raise ValueError(f"its numbers come from {str(serialized)[:80]!r}, which is not an initializer with a seed")
    k = config["k"]
    if k is not None or config["scaled"]:
        file_format.check_number_k(k)
    return _FROZEN[name](initializers.check_seed(config["seed"]), bool(config["scaled"]), k)


# The keys of `Mask.arguments`: arguments of the kernel, arguments of the layer, and the name of the kernel. What is
# trained has these values where a file does not tell.
_KERNEL_ARGUMENTS = ("k", "seed", "selector", "scores_initializer")
_TRAINED: dict[str, Any] = {"train_bias": None, "train_others": True, "train_scores": True, "train_kernel": False}
_LAYER_ARGUMENTS = ("scores_regularizer", *_TRAINED)
_KERNEL = "kernel"
_VALUES = "values_dtype"  # if it is not that of the kernel
_BASE = "base"  # whether the kernel is in the base
_CODING = "coding"  # how the mask is coded, if in planes: `mask_planes.describe`, and the numbers of the planes
_PLANES = "planes"
_REDRAWS = "redraws"  # of kept weights, if the kernel is not all of one seed: as of `redraws.encode`

NEEDS_BASE = "it holds only what differs from a base model. Pass that model, or its .keras file, as `base`"

VALUES_DTYPES = ("float16", "bfloat16", "float32", "float64")
"""The dtypes in which kept weights can be stored."""


def name_kernels(layer: Any, records: list[Mask]) -> dict[str, Mask]:
    """Returns the records of a plain layer's kernels, by the names of the kernels.

    Raises:
        TicketError: if the layer does not have these kernels.
    """
    specs = kernels_of(layer)
    kind = f"Masked{type(layer).__name__}"
    if not specs or any(record.kind != kind for record in records):
        path, kinds = records[0].layer, sorted({record.kind for record in records})
        raise TicketError(f"layer '{path}' is a {type(layer).__name__}, which is not the stock layer of {kinds[0]}")
    named = {record.arguments.get(_KERNEL, specs[0].name): record for record in records}
    if len(named) != len(records) or not {spec.name for spec in specs} >= set(named):
        raise TicketError(
            f"layer '{records[0].layer}' has the kernels {[spec.name for spec in specs]}, not {list(named)}"
        )
    return named


def to_mask_arguments(records: dict[str, Mask], custom_objects: dict[str, Any] | None) -> MaskArguments:
    """Returns the arguments with which a layer is masked.

    Args:
        records: the records of its kernels by the names of the kernels.
        custom_objects: as in `load_ticket`.

    Raises:
        TicketError: if the records do not have valid arguments of a masked layer.
    """
    for record in records.values():
        # Arguments of the stock layer, such as another number of units, are not allowed here.
        if unknown := set(record.arguments) - {
            *_KERNEL_ARGUMENTS,
            *_LAYER_ARGUMENTS,
            _KERNEL,
            _VALUES,
            _BASE,
            _CODING,
            _REDRAWS,
        }:
            raise TicketError(f"masked layer '{record.layer}' has no arguments {str(sorted(unknown))[:60]}")
        try:
            allowlist.check({**record.arguments, "initializer": record.initializer}, custom_objects, sys.maxsize)
            with keras.saving.custom_object_scope(custom_objects or {}), _keras.SafeModeScope(True):
                kernels = {
                    name: KernelArguments.fill(
                        **{argument: item.arguments[argument] for argument in _KERNEL_ARGUMENTS},
                        initializer=item.initializer,
                    )
                    for name, item in records.items()
                }
                regularizer = keras.regularizers.get(record.arguments["scores_regularizer"])
        except Exception as error:  # any kind: the arguments come from the file
            raise TicketError(f"the arguments of masked layer '{record.layer}' are wrong: {error}") from error
    trained: dict[str, Any] = {name: record.arguments.get(name, default) for name, default in _TRAINED.items()}
    if wrong := {name: value for name, value in trained.items() if type(value) is not bool}:
        raise TicketError(
            f"the arguments of masked layer '{record.layer}' are wrong: {wrong}; they must be true or false"
        )
    return MaskArguments(kernels, regularizer, **trained)
