"""Saves, loads, describes and verifies tickets."""

import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from keras_popup import _keras, conversion
from keras_popup._versions import package_versions
from keras_popup.conversion import find_different_arrays
from keras_popup.layers import (
    MaskedKernel,
    MaskedLayer,
    begin_anew,
    freeze_layer,
    freeze_weights,
    mask_layer,
    pair_layers,
    remember_parts,
)
from keras_popup.tickets import architecture, file_format, limits, mask_record, pack_format
from keras_popup.tickets.base import LEAST_BYTES, Base
from keras_popup.tickets.file_format import MAX_BYTES, TicketError, bytes_of
from keras_popup.tickets.info import PACKAGES, UNKNOWN_INPUT, PackInfo, TicketInfo, describe
from keras_popup.tickets.unpacking import add_path, read_files, read_stores, show_progress, unpack

_logger = logging.getLogger("keras_popup")


def save_ticket(
    model: keras.Model,
    filepath: str | os.PathLike[str],
    *,
    preprocess: Sequence[Any] | None = None,
    values_dtype: str | None = None,
    fold_norms: bool = False,
    base: Any = None,
    classes: Sequence[str] | None = None,
    dataset: str | None = None,
    arguments: dict[str, Any] | None = None,
    metrics: dict[str, float] | None = None,
    notes: Any = None,
) -> TicketInfo:
    """Saves a masked model as its seeds and its masks.

    A ticket does not store what follows from a seed: frozen kernels and initial scores. The masks are coded relative
    to the initial scores, so a trained mask takes less than log2 C(n, kept) bits. All other values that the outputs
    depend on are stored without loss: biases, moving statistics, excluded layers, and the kept weights of pretrained
    kernels. The scores, the optimizer and the training configuration are not stored.

    Args:
        model: a masked `keras.Model`, built.
        filepath: path of the file. An existing file is replaced when the ticket is complete.
        preprocess: list of Keras layers that the model's inputs went through in training, such as
            `[keras.layers.Rescaling(1 / 255)]`. They come first in the saved model, which then takes inputs as they
            are. The list may begin with a `keras.Input`, if they have another shape or dtype. An empty list says that
            the model takes them already. With None, the ticket says that this is unknown, unless the model begins
            with preprocessing layers.
        values_dtype: "float16", "bfloat16", "float32" or "float64", the dtype in which kept weights are stored where no
            seed gives them: those of pretrained and of finetuned kernels. None keeps them without loss. The model of
            the ticket then has the rounded weights.
        fold_norms: bool. True puts the moving statistics of each BatchNormalization into its gamma and beta, if it has
            them: two numbers per channel are stored instead of four. The model of the ticket then has the same outputs
            up to rounding, and is for use, not for further training.
        base: a plain `keras.Model`, or the path of its `.keras` file, such as the pretrained model that was masked.
            Weights that it has are not in the file: kernels, of which the masks remain, and all others that are the
            same. `load_ticket` then needs the same base.
        classes: the names of the classes, in the order of the model's outputs. Stored as information only, like the
            next four.
        dataset: str, the dataset that the model was trained on.
        arguments: dict, how the model was trained.
        metrics: dict of numbers by name.
        notes: text, or another JSON-serializable value.

    Returns:
        A `TicketInfo`. Its `str()` is a table with the sizes of all parts.

    Raises:
        TypeError: if `model` is not a `keras.Model`, if `preprocess` has other things than layers, if `classes` are
            not strings, if `dataset`, `arguments` or `notes` is not JSON-serializable, or if `metrics` is not a dict
            of numbers.
        ValueError: if the model has no masked layer, if its masks cannot be stripped, if the layers of `preprocess`
            do not give what it takes, if norms are to be folded of a model that does not know its inputs, or if the
            ticket could not be loaded. (It is loaded as a test before it is written.)
        RuntimeError: if folded norms change the outputs by more than rounding.
        OSError: if the file cannot be written. An existing file is not changed.

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
    if values_dtype not in (None, *mask_record.VALUES_DTYPES):
        expected = ", ".join(mask_record.VALUES_DTYPES)
        raise ValueError(f"`values_dtype` must be None or one of {expected}. Received: {values_dtype!r}.")
    if metrics is not None:
        try:
            metrics = {str(name): float(value) for name, value in metrics.items()}
        except (AttributeError, TypeError, ValueError):
            raise TypeError(f"`metrics` must be a dict of numbers by name. Received: {metrics!r}.") from None
    if classes is not None and not (isinstance(classes, (list, tuple)) and all(type(name) is str for name in classes)):
        raise TypeError(f"`classes` must be a list of strings. Received: {classes!r}.")
    outputs = getattr(model, "output_shape", None)
    if classes is not None and isinstance(outputs, tuple) and isinstance(outputs[-1], int):
        numbers = {outputs[-1]} if outputs[-1] > 1 else {1, 2}  # one output tells two classes apart
        if len(classes) not in numbers or len(set(classes)) != len(classes):
            raise ValueError(
                f"`classes` must be different names for the {outputs[-1]} outputs of the model. Received: {classes!r}."
            )
    if fold_norms:
        model = conversion.fold_norms(model)
    if preprocess is not None:
        preprocess = [preprocess] if isinstance(preprocess, keras.layers.Layer) else list(preprocess)
        model = conversion.put_first(preprocess, model)
    information = {
        "preprocessing": _name_layers(
            conversion.find_preprocessing(model) or None if preprocess is None else preprocess
        ),
        "classes": None if classes is None else list(classes),
        "dataset": dataset,
        "arguments": arguments,
        "metrics": metrics,
        "notes": notes,
    }
    made: dict[str, Any] = {"versions": package_versions(PACKAGES)}
    made |= {name: value for name, value in information.items() if value is not None}
    json.dumps(made)  # raises TypeError now instead of after the work
    index = None if base is None else Base(base)
    target = Path(filepath)
    if not target.absolute().parent.is_dir() or target.is_dir():
        raise FileNotFoundError(f"`filepath` must be a file in a folder that exists. Received: '{target}'.")

    # A ticket stores the architecture of the plain model, and the arguments of masked layers with their masks. So a
    # reader needs stock layers only, in Keras's safe mode. `load_ticket(masked=True)` then masks the plain model.
    plain = conversion.strip_masks(model)
    plain_architecture = architecture.serialize_plain(plain)
    twins = {id(twin): layer for layer, twin in pair_layers(model, plain)}
    masks: list[file_format.Mask] = []
    tensors: list[file_format.Tensor] = []
    assets: list[file_format.Asset] = []
    untrainable: list[str] = []
    frozen: dict[str, list[str]] = {}
    of_base: list[file_format.BaseTensor] = []
    with show_progress("packing", sum(kernel.size for _, kernel in conversion.masked_kernels(model))) as advance:
        for path, twin in architecture.list_layers(plain):
            layer, variables = twins.get(id(twin), twin), architecture.collect_variables(twin)
            if isinstance(layer, MaskedLayer):
                for kernel in layer.masked_kernels.values():
                    key = architecture.find_key(variables, kernel.spec.plain_variable(twin))
                    masks.append(mask_record.encode_kernel(kernel, path, key, values_dtype, index))
                    del variables[key]
                    advance(masks[-1].size)
            if names := _name_frozen_weights(layer):
                frozen[path] = names
            untrainable += [] if layer.trainable else [path]
            if index is not None:
                of_base += index.take(path, variables)
            tensors += architecture.collect_tensors(path, variables)
            assets += architecture.collect_assets(path, twin)
    stored = [mask.layer for mask in masks if mask.values and bytes_of(mask.shape, mask.dtype) >= LEAST_BYTES]
    if index is not None and stored:
        _logger.warning(
            "The base '%s' does not have the kernels of these masked layers, so the ticket stores their weights: %s.",
            index.name,
            ", ".join(stored),
        )
    records = tuple(masks), tuple(tensors), tuple(assets)
    relation = file_format.BaseWeights(index.name, tuple(of_base)) if index else None
    ticket = file_format.Ticket(plain_architecture, untrainable, frozen, made, *records, relation)
    content = file_format.to_bytes(ticket)
    _read_back(content, plain)
    file_format.write(target, content)
    return describe(target, len(content), ticket)


def load_ticket(
    filepath: str | os.PathLike[str],
    masked: bool = False,
    *,
    base: Any = None,
    custom_objects: dict[str, Any] | None = None,
    trust: Sequence[str] = (),
    max_bytes: int = MAX_BYTES,
) -> keras.Model:
    """Loads the model of a ticket.

    The file may come from a stranger: loading runs no code of the file, and checks all counts before it takes memory
    for them. A damaged file is an error, and so is a file whose weights would differ from the saved ones.

    A plain model works under every backend of Keras: TensorFlow, JAX and PyTorch.

    Args:
        filepath: path of the file.
        masked: bool. True returns a masked model, for further training. A ticket does not store the scores, so the
            model gets new scores that give the same masks. In pretrained kernels, weights that were not kept are 0,
            unless the ticket has a base.
        base: the base that the ticket was saved with: a plain `keras.Model`, or the path of its `.keras` file.
        custom_objects: dict from names to classes and functions of the model that are not registered with Keras.
        trust: names of installed packages whose registered classes the model may have, such as ("keras_hub",). They
            are imported, and their code runs with arguments from the file. Classes that you have imported and
            registered yourself do not need this.
        max_bytes: int, the limit for the size of the file, and for the memory that loading takes at its peak: some 5
            bytes for each weight, 9 with `masked`, and for the largest kernel 12 to 28 in addition. It also limits the
            number of layers and of their calls, each to one per 2 MiB, but not below 256, and the work of decoding.

    Returns:
        A `keras.Model`, not compiled. With `masked=False`, it has stock layers, and its weights are those of
        `keras_popup.strip_masks`, bit for bit. With `masked=True`, it is a masked model with the same outputs: to the
        rounding of a product if the ticket stores kernels, and their masks have a scale or levels above 1.

    Raises:
        OSError: if the file cannot be read.
        RuntimeError: for `masked=True`, if Keras's backend is not TensorFlow.
        ImportError: if a package of `trust` is not installed.
        TicketError: (a ValueError) if the file is not a ticket, is damaged or too large, if the random numbers of
            this machine or version differ from those that it was saved with, or if it needs a base and `base` is
            missing or another model.
    """
    if masked:
        _keras.require_tensorflow("load_ticket(masked=True)")
    with add_path(filepath):
        ticket = file_format.read(Path(filepath), max_bytes)
        if "preprocessing" not in ticket.made:
            _logger.warning("%s", f"'{filepath}': {UNKNOWN_INPUT}")
        index = None if base is None else Base(base)
        with show_progress("unpacking", sum(record.size for record in ticket.masks)) as advance:
            plain, masks = unpack(ticket, index, custom_objects, trust, max_bytes, advance, masked=masked)
        if not masked:
            return plain
        try:
            return _mask_plain(ticket, plain, masks, custom_objects, index)
        except TicketError:
            raise
        except Exception as error:  # any kind: the arguments of masked layers come from the file
            raise TicketError(f"its masked layers cannot be made: {error}") from error


def ticket_info(filepath: str | os.PathLike[str], *, max_bytes: int = MAX_BYTES) -> TicketInfo:
    """Returns a description of a ticket, without unpacking its weights.

    Args:
        filepath: path of the file.
        max_bytes: as in `load_ticket`.

    Returns:
        A `TicketInfo`. Its `str()` is a table with the sizes of all parts.

    Raises:
        OSError: if the file cannot be read.
        TicketError: if the file is not a ticket, or is damaged.
    """
    with add_path(filepath):
        return describe(Path(filepath), os.path.getsize(filepath), file_format.read(Path(filepath), max_bytes))


def pack_info(filepath: str | os.PathLike[str], *, max_bytes: int = MAX_BYTES) -> PackInfo:
    """Returns a description of a pack, which `TaskMasks.save` has written, without unpacking its weights.

    Args:
        filepath: path of the file.
        max_bytes: as in `load_ticket`.

    Returns:
        A `PackInfo`. Its `str()` is a table of the tasks.

    Raises:
        OSError: if the file cannot be read.
        TicketError: if the file is not a pack, or is damaged.
    """
    path = Path(filepath)
    with add_path(filepath, "Pack"):
        pack = pack_format.read(path, max_bytes)
        tasks = {task.name: describe(path, task.bytes, task.ticket) for task in pack.tasks}
        return PackInfo(str(path), os.path.getsize(path), pack.base_name, pack.base_bytes, tasks)


def verify_ticket(filepath: str | os.PathLike[str], *, base: Any = None, max_bytes: int = MAX_BYTES) -> TicketInfo:
    """Unpacks and checks all weights of a ticket, without building the model.

    Args:
        filepath: path of the file.
        base: as in `load_ticket`.
        max_bytes: as in `load_ticket`.

    Returns:
        A `TicketInfo`, as `ticket_info` does.

    Raises:
        OSError: if the file cannot be read.
        TicketError: as `load_ticket` does.
    """
    with add_path(filepath):
        ticket = file_format.read(Path(filepath), max_bytes)
        limits.check(ticket, max_bytes)
        index = None if base is None else Base(base)
        with show_progress("verifying", sum(record.size for record in ticket.masks)) as advance:
            for record in ticket.masks:
                mask_record.decode_kernel(record, index)
                advance(record.size)
        read_stores(ticket, index)
        read_files(ticket)
        return describe(Path(filepath), os.path.getsize(filepath), ticket)


def _name_layers(layers: Sequence[Any] | None) -> list[str] | None:
    if layers is None:
        return None
    return [type(layer).__name__ for layer in layers if isinstance(layer, keras.layers.Layer)]


def _read_back(content: bytes, plain: keras.Model) -> None:
    """Checks that the content of a ticket can be loaded.

    Raises:
        ValueError: if it cannot.
    """
    classes = architecture.find_user_classes(plain)

    def attempt(max_bytes: int) -> None:
        ticket = file_format.from_bytes(content, max_bytes)
        limits.check(ticket, max_bytes)
        model = architecture.build_plain(ticket, classes, max_bytes, initialized=False)
        for layer, twin in pair_layers(plain, model):
            if type(layer).__module__.startswith("keras."):
                continue  # layers of Keras save all they need
            if lost := [name for name, _ in find_different_arrays(layer, twin)]:
                raise TicketError(
                    f"layer '{layer.name}' ({type(layer).__name__}) has {', '.join(lost)} as an array or tf.Variable, "
                    "which is not in its config and which Keras does not save. Make it a weight, with add_weight"
                )

    try:
        attempt(MAX_BYTES)
        return
    except TicketError:
        pass  # is it only too large for the default max_bytes?
    try:
        attempt(sys.maxsize)
    except TicketError as error:
        raise ValueError(
            f"Model '{plain.name}' cannot be saved as a ticket, because load_ticket would refuse it: {error}. Nothing "
            "was written."
        ) from error
    ticket = file_format.from_bytes(content, sys.maxsize)
    _logger.warning(
        "This ticket is large: to load it, pass max_bytes of more than %s to load_ticket. At its peak, loading takes "
        "some %s bytes, and some %s with masked=True.",
        f"{MAX_BYTES:,}",
        *(f"{limits.compute_peak(ticket, masked=masked):,}" for masked in (False, True)),
    )


_ALL_WEIGHTS = "*"


def _name_frozen_weights(layer: Any) -> list[str]:
    """Returns which of its own weights a layer does not train: ["*"] for all, or the indices of some as strings."""
    if getattr(layer, "_popup_frozen", False):
        return [_ALL_WEIGHTS]
    weights = _keras.own_variables(layer, _keras.TRAINABLE)
    return [str(index) for index, weight in enumerate(weights) if not weight.trainable] if layer.trainable else []


def _freeze(layer: Any, names: list[str]) -> None:
    """Freezes the weights that `_name_frozen_weights` returned. Files of earlier versions have the weights' names."""
    if _ALL_WEIGHTS in names:
        freeze_weights(layer)
    for index, weight in enumerate(_keras.own_variables(layer, _keras.TRAINABLE)):
        if str(index) in names or weight.name in names:
            weight.trainable = False


def _check_mask(kernel: MaskedKernel, path: str, mask: NDArray[Any]) -> None:
    """Raises TicketError if a kernel of the layer at `path` has another mask."""
    try:
        chosen = kernel.read_mask()
    except ValueError as error:  # of a group of kernels that are not all in the file
        raise TicketError(f"the selector of layer '{path}' cannot choose: {error}") from error
    if not np.array_equal(chosen, mask):
        raise TicketError(f"the selector of layer '{path}' does not choose the saved mask from new scores")


@begin_anew()
def _mask_plain(
    ticket: file_format.Ticket,
    model: keras.Model,
    masks: dict[tuple[str, str], Any],
    custom_objects: dict[str, Any] | None,
    base: Base | None,
) -> keras.Model:
    """Masks the plain model of a ticket in place.

    Args:
        ticket: the ticket.
        model: its plain model, with weights.
        masks: the masks as of `mask_record.pack_mask`, by (path of the layer, key of the kernel).
        custom_objects: as in `load_ticket`.
        base: the base model, whose kernels have all their weights.
    """
    layers = dict(architecture.list_layers(model))
    masked: list[tuple[MaskedKernel, str, file_format.Mask]] = []
    for path in dict.fromkeys(record.layer for record in ticket.masks):
        layer = layers[path]
        records = mask_record.name_kernels(layer, [record for record in ticket.masks if record.layer == path])
        mask_layer(layer, mask_record.to_mask_arguments(records, custom_objects), draw=False)
        for name, record in records.items():
            kernel = layer.masked_kernels[name]
            mask = mask_record.unpack_mask(masks[path, record.key], record)
            if record.from_seed:
                drawn = kernel.initializer.values(record.shape, record.fans).astype(file_format.DTYPES[record.dtype])
                kernel.kernel.assign(mask_record.redraw(record, drawn, mask))
            elif (of_base := mask_record.read_base_kernel(record, base)) is not None:
                kernel.kernel.assign(of_base)
            else:
                scale = kernel.selector.factor(record.kept, record.size) * np.where(mask == 0, 1, mask)
                kernel.kernel.assign(kernel.kernel.numpy() / scale)  # the file has the product
            kernel.scores.assign(kernel.make_scores(mask))
            masked.append((kernel, path, record))
    for kernel, path, record in masked:  # when all are there: some selectors choose for the whole network
        _check_mask(kernel, path, mask_record.unpack_mask(masks[path, record.key], record))
    for path, layer in layers.items():
        _keras.set_trainable(layer, path not in ticket.untrainable)
    in_code = conversion.find_in_code(model)
    for path, layer in layers.items():
        if path in ticket.untrainable:
            freeze_layer(layer, id(layer) in in_code)
        _freeze(layer, ticket.frozen.get(path, []))
    remember_parts(model)
    _logger.warning(
        "The scores of '%s' are not those of its training, because a ticket does not store them. They are new scores "
        "that give the same masks.",
        model.name,
    )
    return model
