"""Tickets: a trained network as its seed and its mask, in about one bit per weight or less."""

import contextlib
import importlib.metadata
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import rich.console
import rich.progress

from keras_popup import _keras, conversion, selectors
from keras_popup.conversion import find_different_arrays
from keras_popup.layers import MaskedLayer, freeze_layer, freeze_weights, mask_layer, pair_layers, remember_parts
from keras_popup.tickets import allowlist, architecture, file_format, mask_record
from keras_popup.tickets.file_format import MAX_BYTES, TicketError
from keras_popup.tickets.info import TicketInfo, describe

_logger = logging.getLogger("keras_popup")

_SHOW_PROGRESS_FROM = 20_000_000  # weights: about a second of work


def save_ticket(
    model: keras.Model,
    filepath: str | os.PathLike[str],
    *,
    dataset: str | None = None,
    metrics: dict[str, float] | None = None,
    notes: Any = None,
) -> TicketInfo:
    """Saves a masked model as its seeds and its masks.

    What follows from a seed is not stored: frozen kernels, and the initial scores, of which the masks are told
    apart. A mask that training has found takes less than log2 C(n, kept) bits that way. The rest that the outputs
    depend on is stored without loss: biases, moving statistics, excluded layers, of pretrained kernels the weights
    kept. Not stored are scores, optimizer and training configuration.

    Args:
        model: a masked `keras.Model`, built.
        filepath: of the file. It is replaced once the ticket is whole.
        dataset: what the model was trained on, for the reader.
        metrics: by their names, for the reader.
        notes: text for the reader, or anything that JSON holds.

    Returns:
        A `TicketInfo`. Its str is a table of what takes how many bytes.

    Raises:
        TypeError: if `model` is no model, if the notes are not JSON, or if the metrics are no numbers.
        ValueError: if the model has no masked layer, if its masks cannot be stripped, or if nobody could load the
            ticket: what is to be written is read back first.
        OSError: if the file cannot be written. One that was there is left as it is.

    Example:

    >>> import tempfile, keras_popup
    >>> masked = keras_popup.mask_model(keras_popup.models.FullyConnected(), k=0.3, seed=1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     info = keras_popup.save_ticket(masked, folder + "/fc.ticket")
    ...     plain = keras_popup.load_ticket(folder + "/fc.ticket")
    >>> info.weights, type(plain.get_layer("dense1")).__name__
    (266200, 'Dense')
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"save_ticket takes a keras.Model. Received: {type(model).__name__}.")
    if not conversion.masked_layers(model):
        raise ValueError(f"Model '{model.name}' has no masked layer. Mask it with keras_popup.mask_model first.")
    if metrics is not None:
        try:
            metrics = {str(name): float(value) for name, value in metrics.items()}
        except (AttributeError, TypeError, ValueError):
            raise TypeError(f"`metrics` must be a dict of numbers by their names. Received: {metrics!r}.") from None
    said = {"dataset": dataset, "metrics": metrics, "notes": notes}
    made = {"versions": _versions(), **{name: value for name, value in said.items() if value is not None}}
    json.dumps(made)  # a TypeError now rather than after the work
    target = Path(filepath)
    if not target.absolute().parent.is_dir() or target.is_dir():
        raise FileNotFoundError(f"A ticket is a file in a folder that exists. Received: '{target}'.")

    # The plain model's architecture is stored, and the arguments of masked layers beside their masks: a reader needs
    # stock layers only, in Keras's safe mode. `masked=True` is then a conversion like any other.
    plain = conversion.strip_masks(model)
    plain_architecture = architecture.serialize_plain(plain)
    twins = {id(twin): layer for layer, twin in pair_layers(model, plain)}
    masks: list[file_format.Mask] = []
    tensors: list[file_format.Tensor] = []
    assets: list[file_format.Asset] = []
    untrainable: list[str] = []
    frozen: dict[str, list[str]] = {}
    with _progress("packing", sum(kernel.size for _, kernel in conversion.masked_kernels(model))) as advance:
        for where, twin in architecture.list_places(plain):
            layer, variables = twins.get(id(twin), twin), architecture.own_variables(twin)
            if isinstance(layer, MaskedLayer):
                for kernel in layer.masked_kernels.values():
                    key = architecture.key_of(variables, kernel.spec.plain_variable(twin))
                    masks.append(mask_record.encode_kernel(kernel, where, key))
                    del variables[key]
                    advance(masks[-1].size)
            if names := _frozen(layer):
                frozen[where] = names
            untrainable += [] if layer.trainable else [where]
            tensors += architecture.collect_tensors(where, variables)
            assets += architecture.collect_assets(where, twin)
    content_parts = tuple(masks), tuple(tensors), tuple(assets)
    ticket = file_format.Ticket(plain_architecture, untrainable, frozen, made, *content_parts)
    content = file_format.to_bytes(ticket)
    _read_back(content, plain)
    file_format.write(target, content)
    return describe(target, len(content), ticket)


def load_ticket(
    filepath: str | os.PathLike[str],
    masked: bool = False,
    *,
    custom_objects: dict[str, Any] | None = None,
    trust: Sequence[str] = (),
    max_bytes: int = MAX_BYTES,
) -> keras.Model:
    """Loads the model of a ticket.

    The file may come from a stranger: no code of it is run, all counts are checked before memory is taken for
    them, and what was damaged, or would not give the same weights, is an error.

    Args:
        filepath: of the file.
        masked: bool, whether to return a masked model, for further training. Its scores are not those it was
            saved with, which a ticket does not hold, but new ones with the same masks; of pretrained kernels, the
            weights that were not kept are 0.
        custom_objects: classes and functions of the model that are not registered with Keras, by name.
        trust: names of installed packages whose registered classes the model may have, such as ("keras_hub",). They
            are imported, and run with the arguments that the file gives them. What you have imported and
            registered yourself needs no such word.
        max_bytes: int, how much the weights may take unpacked, as may the file; and how many layers there may be,
            one per 512 KiB, at least 256.

    Returns:
        A `keras.Model`, not compiled: stock layers whose weights are, bit for bit, those that
        `keras_popup.strip_masks` gave, or a masked model with the same outputs.

    Raises:
        OSError: if the file cannot be read.
        ImportError: if a package of `trust` is not installed.
        TicketError: a ValueError, if it is no ticket, if it is damaged or too large, or if this machine's
            random numbers are not those that it was made with.
    """
    trusted = allowlist.import_trusted(trust)
    with _named(filepath):
        ticket = file_format.read(Path(filepath), max_bytes)
        plain = architecture.build_plain(ticket, custom_objects, max_bytes, trust=trusted)
        stores: dict[str, dict[str, Any]] = {}
        files: dict[str, dict[str, bytes]] = {}
        for tensor in ticket.tensors:
            stores.setdefault(tensor.layer, {})[tensor.name] = file_format.array(tensor)
        for asset in ticket.assets:
            files.setdefault(asset.layer, {})[asset.name] = file_format.content(asset)
        records: dict[str, list[Any]] = {}
        for record in ticket.masks:
            records.setdefault(record.layer, []).append(record)
        masks: dict[tuple[str, str], Any] = {}
        with _progress("unpacking", sum(record.size for record in ticket.masks)) as advance:
            for where, layer in architecture.list_places(plain):
                store = stores.pop(where, {})
                for record in records.get(where, ()):
                    mask, store[record.key] = mask_record.decode_kernel(record)
                    masks[where, record.key] = np.packbits(mask)
                    del mask
                    advance(record.size)
                architecture.load(layer, where, store, files.pop(where, {}))
                _keras.set_trainable(layer, where not in ticket.untrainable)
        if files:
            raise TicketError(f"it holds files of layers that are not in its model: {sorted(files)}")
        if not masked:
            return plain
        try:
            return _masked(ticket, plain, masks, custom_objects)
        except TicketError:
            raise
        except Exception as error:  # any kind: the arguments of masked layers are those of the file
            raise TicketError(f"its masked layers cannot be made: {error}") from error


def ticket_info(filepath: str | os.PathLike[str], *, max_bytes: int = MAX_BYTES) -> TicketInfo:
    """Returns what is in a ticket, without unpacking its weights.

    Args:
        filepath: of the file.
        max_bytes: as in `load_ticket`.

    Raises:
        OSError: if the file cannot be read.
        TicketError: if it is no ticket, or damaged.
    """
    with _named(filepath):
        return describe(Path(filepath), os.path.getsize(filepath), file_format.read(Path(filepath), max_bytes))


def verify_ticket(filepath: str | os.PathLike[str], *, max_bytes: int = MAX_BYTES) -> TicketInfo:
    """Unpacks all weights of a ticket and checks them, without building the model.

    Args:
        filepath: of the file.
        max_bytes: as in `load_ticket`.

    Returns:
        A `TicketInfo`, as `ticket_info` does.

    Raises:
        OSError: if the file cannot be read.
        TicketError: as `load_ticket` does.
    """
    with _named(filepath):
        ticket = file_format.read(Path(filepath), max_bytes)
        with _progress("verifying", sum(record.size for record in ticket.masks)) as advance:
            for record in ticket.masks:
                mask_record.decode_kernel(record)
                advance(record.size)
        for tensor in ticket.tensors:
            file_format.array(tensor)
        for asset in ticket.assets:
            file_format.content(asset)
        return describe(Path(filepath), os.path.getsize(filepath), ticket)


def _read_back(content: bytes, plain: keras.Model) -> None:
    """Checks that the bytes of a ticket can be loaded.

    Raises:
        ValueError: if not.
    """
    classes = architecture.find_own_classes(plain)

    def attempt(max_bytes: int) -> None:
        model = architecture.build_plain(
            file_format.from_bytes(content, max_bytes), classes, max_bytes, initialized=False
        )
        for layer, twin in pair_layers(plain, model):
            if type(layer).__module__.startswith("keras."):
                continue  # which knows what it needs
            if lost := [name for name, _ in find_different_arrays(layer, twin)]:
                raise TicketError(
                    f"layer '{layer.name}' ({type(layer).__name__}) keeps {', '.join(lost)} as an array or "
                    "tf.Variable, which neither its config tells nor Keras saves. Make a weight of it, by add_weight"
                )

    try:
        attempt(MAX_BYTES)
        return
    except TicketError:
        pass  # for its size alone, or for good
    try:
        attempt(sys.maxsize)
    except TicketError as error:
        raise ValueError(
            f"Model '{plain.name}' cannot be saved as a ticket, as nobody could load it: {error}. Nothing was written."
        ) from error
    _logger.warning("This ticket is large: load_ticket needs max_bytes, with more than %s.", f"{MAX_BYTES:,}")


_ALL_WEIGHTS = "*"


def _frozen(layer: Any) -> list[str]:
    """Returns which weights of its own a layer does not train: all of them, or the numbers of some."""
    if getattr(layer, "_popup_frozen", False):
        return [_ALL_WEIGHTS]
    weights = _keras.own_variables(layer, _keras.TRAINABLE)
    return [str(number) for number, weight in enumerate(weights) if not weight.trainable] if layer.trainable else []


def _freeze(layer: Any, names: list[str]) -> None:
    """Freezes the weights that `_frozen` names; files of earlier versions have the weights' names."""
    if _ALL_WEIGHTS in names:
        freeze_weights(layer)
    for number, weight in enumerate(_keras.own_variables(layer, _keras.TRAINABLE)):
        if str(number) in names or weight.name in names:
            weight.trainable = False


def _masked(ticket: Any, model: keras.Model, masks: dict[tuple[str, str], Any], custom_objects: Any) -> keras.Model:
    """Masks the plain model of a ticket, in place, as the model was that it was made of."""
    at = dict(architecture.list_places(model))
    for where in dict.fromkeys(record.layer for record in ticket.masks):
        records = [record for record in ticket.masks if record.layer == where]
        layer = at[where]
        by_name = mask_record.name_kernels(layer, records)
        mask_layer(layer, mask_record.arguments_of(by_name, custom_objects), draw=False)
        for name, record in by_name.items():
            kernel = layer.masked_kernels[name]
            mask = np.unpackbits(masks[where, record.key], count=record.size).reshape(record.shape)
            if record.from_seed:
                kernel.kernel.assign(kernel.initializer(record.shape, record.dtype, fans=record.fans))
            kernel.scores.assign(kernel.selector.scores_for(mask, kernel.scores.numpy()))
            with selectors.without_compiling():
                if not np.array_equal(kernel.mask().numpy(), mask):
                    raise TicketError(f"the selector of layer '{where}' does not choose its mask again")
    for where, layer in at.items():
        _keras.set_trainable(layer, where not in ticket.untrainable)
    in_code = conversion.find_in_code(model)
    for where, layer in at.items():
        if where in ticket.untrainable:
            freeze_layer(layer, id(layer) in in_code)
        _freeze(layer, ticket.frozen.get(where, []))
    remember_parts(model)
    _logger.warning(
        "The scores of '%s' are not those of its training, which a ticket does not hold: they are new ones that choose "
        "the same weights.",
        model.name,
    )
    return model


def _versions() -> dict[str, str]:
    names = ("keras-popup", "keras", "tensorflow", "numpy", "constriction")
    return {name: importlib.metadata.version(name) for name in names}


@contextlib.contextmanager
def _named(path: Any) -> Iterator[None]:
    """Puts the file's name before what is wrong with it."""
    try:
        yield
    except TicketError as error:
        raise TicketError(f"Ticket '{path}' cannot be used: {file_format.printable(str(error))}.") from error.__cause__


@contextlib.contextmanager
def _progress(what: str, weights: int) -> Iterator[Callable[[int], Any]]:
    """Shows a bar on a terminal, for as many weights as take seconds."""
    console = rich.console.Console(stderr=True)
    hidden = weights < _SHOW_PROGRESS_FROM or not console.is_terminal
    with rich.progress.Progress(console=console, transient=True, disable=hidden) as progress:
        task = progress.add_task(what, total=weights)
        yield lambda done: progress.advance(task, done)
