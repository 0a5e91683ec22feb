"""TaskMasks: many tasks over one base model, each with a mask of its own."""

import collections
import dataclasses
import json
import math
import os
import threading
import weakref
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from keras_popup import _keras
from keras_popup._versions import package_versions
from keras_popup.tickets import architecture, file_format, limits, mask_record, pack_format, task_inference
from keras_popup.tickets.base import LEAST_BYTES, Base
from keras_popup.tickets.file_format import MAX_BYTES, Mask, Ticket, TicketError
from keras_popup.tickets.info import PACKAGES, read_classes
from keras_popup.tickets.pack_format import Pack, PackedTask
from keras_popup.tickets.task_model import TaskModel
from keras_popup.tickets.task_network import Key, NetworkOrigin, TaskNetwork
from keras_popup.tickets.unpacking import add_path, read_files, read_stores, unpack


class TaskMasks(Mapping[str, keras.Model]):
    """Many tasks over the weights of one base model.

    A task is a ticket that was saved with `save_ticket(..., base=base)`, or whose kernels come from the same seeds as
    the base's. `tasks["birds"]` is a Keras model for inference, with its own head, biases and statistics. It uses the
    kernels of the base: a task adds one bit per weight of them, and what it has beside masks. The masked kernels of
    the tasks that were used last are kept.

    Tasks do not share state that a call changes, so threads may use different tasks, or the same, at one time.

    Args:
        base: a plain, built `keras.Model`, or the path of its `.keras` file. Its present weights are used, also if
            it is trained later.
        max_in_use: int >= 1, the number of tasks whose masked kernels are kept. Each takes as much memory as the
            kernels of the base. Another task takes milliseconds longer to answer.

    Raises:
        TypeError: if `base` is neither.
        ValueError: if the base has masks, or if `max_in_use` is not a positive integer.

    Reference:
        Mallya et al., [Piggyback](https://arxiv.org/abs/1801.06519), and Wortsman et al.,
        [Supermasks in Superposition](https://arxiv.org/abs/2006.14769).

    Example:

    >>> import tempfile, keras_popup
    >>> base = keras_popup.models.FullyConnected((8, 8, 1))
    >>> model = keras_popup.replace_head(base, classes=3)
    >>> masked = keras_popup.mask_model(model, k=0.5, weights="keep", exclude="classes", seed=1)
    >>> tasks = keras_popup.TaskMasks(base)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     info = keras_popup.save_ticket(masked, folder + "/birds.ticket", base=base)
    ...     tasks.add("birds", folder + "/birds.ticket")
    >>> list(tasks), tasks["birds"].output_shape
    (['birds'], (None, 3))
    """

    def __init__(self, base: Any, *, max_in_use: int = 4) -> None:
        _keras.require_tensorflow("TaskMasks")
        if type(max_in_use) is not int or max_in_use < 1:
            raise ValueError(f"`max_in_use` must be a positive integer. Received: {max_in_use!r}.")
        self._base = Base(base)
        self._kernels = _KernelCache(max_in_use)
        self._tasks: dict[str, _Task] = {}
        self._lock = threading.Lock()

    def __getitem__(self, name: str) -> keras.Model:
        return self._find(name).model

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._tasks))

    def __len__(self) -> int:
        return len(self._tasks)

    def __contains__(self, name: object) -> bool:
        return name in self._tasks

    def add(
        self,
        name: str,
        ticket: str | os.PathLike[str],
        *,
        custom_objects: dict[str, Any] | None = None,
        trust: Sequence[str] = (),
        max_bytes: int = MAX_BYTES,
    ) -> None:
        """Adds a task.

        Args:
            name: str, its name.
            ticket: path of its ticket.
            custom_objects, trust, max_bytes: as in `keras_popup.load_ticket`.

        Raises:
            OSError: if the file cannot be read.
            ValueError: if there is a task of this name.
            TicketError: (a ValueError) as in `load_ticket`, and if the ticket has a mask for a kernel that the base
                does not have. The tasks stay as they were.
        """
        self._check_new(name)
        with add_path(ticket):
            made = self._make(name, file_format.read(Path(ticket), max_bytes), custom_objects, trust, max_bytes)
        with self._lock:
            self._check_new(name)
            self._tasks[name] = made

    def remove(self, name: str) -> None:
        """Removes a task. Raises KeyError if there is none of this name."""
        task = self._find(name)
        with self._lock:
            del self._tasks[name]
        self._kernels.forget(task)

    def unpack(self, name: str) -> keras.Model:
        """Returns the plain model of a task, with all its weights, as `load_ticket` does: to save it, or to export it.

        Raises:
            KeyError: if there is no task of this name.
        """
        task = self._find(name)
        return unpack(self._write_ticket(task), self._base, task.custom_objects, task.trust, task.max_bytes)[0]

    def infer(self, x: Any, *, rule: str = "gradient", from_logits: bool = True) -> str:
        """Finds out which task a batch belongs to.

        The outputs of the right task are the surest: their entropy H is low. `rule="gradient"` finds it by one
        gradient, however many tasks there are. The network gets the mean of the tasks' masks,
        `w * sum_i alpha_i m_i` with `alpha_i = 1 / T`, and the task is the one with the largest `-dH/dalpha_i`.
        (Weights that the tasks have beside masks are averaged too.) `rule="halving"` keeps the better half of the
        tasks and asks again, until one is left: log2 T gradients. Both need many outputs, also some that mean no
        class. `rule="each"` asks each task in turn, and takes the one with the lowest H: T answers. docs/tasks.md
        has how often they were right.

        Args:
            x: a batch of inputs of one task, as the models take them.
            rule: "gradient", "halving" or "each".
            from_logits: bool. False says that the models return probabilities.

        Returns:
            The name of the task.

        Raises:
            ValueError: if there is no task, or if two tasks have different networks, such as heads of other sizes.

        Reference:
            Wortsman et al., [Supermasks in Superposition](https://arxiv.org/abs/2006.14769), section 3.3: the rules
            "One-Shot" and "Binary".
        """
        scores = self.score_tasks(x, rule=rule, from_logits=from_logits)
        return max(scores, key=scores.__getitem__)

    def score_tasks(self, x: Any, *, rule: str = "gradient", from_logits: bool = True) -> dict[str, float]:
        """Returns the scores by which `infer` chooses, by the tasks' names.

        They are `-dH/dalpha_i` ("gradient"), the number of halves that a task was in ("halving"), or `-H` ("each").

        The arguments are those of `infer`, and so are the errors.
        """
        if rule not in task_inference.RULES:
            raise ValueError(f"`rule` must be one of {', '.join(task_inference.RULES)}. Received: {rule!r}.")
        tasks = dict(self._tasks)
        if not tasks:
            raise ValueError("There are no tasks yet. Add them first, with `add`.")
        first, *others = tasks
        for other in others:
            if tasks[other].network is not tasks[first].network:
                raise ValueError(
                    f"The tasks '{first}' and '{other}' have different networks: other layers, layers of other names, "
                    "or heads of other sizes. Only tasks of one network can be told apart. Keras numbers layers "
                    "without a name: give names, or use replace_head, which keeps those of the base."
                )
        weights = [lambda task=task: task.read_weights(_compute_kernels(task)) for task in tasks.values()]
        values = task_inference.RULES[rule](tasks[first].network, weights, x, from_logits)
        return dict(zip(tasks, values, strict=True))

    def save(self, filepath: str | os.PathLike[str], *, include_base: bool = False) -> int:
        """Saves all tasks in one file, a pack.

        Args:
            filepath: path of the file. An existing file is replaced when the pack is complete.
            include_base: bool. True puts the weights of the base into the file. With False, `load` needs the same
                base.

        Returns:
            The size of the file in bytes.

        Raises:
            ValueError: if the base cannot be stored: it has code, such as a lambda.
            OSError: if the file cannot be written. An existing file is not changed.
        """
        target = Path(filepath)
        if not target.absolute().parent.is_dir() or target.is_dir():
            raise FileNotFoundError(f"`filepath` must be a file in a folder that exists. Received: '{target}'.")
        base = _write_base(self._base) if include_base else None
        tasks = [
            PackedTask(name, task.network.describe_inputs(), self._write_ticket(task))
            for name, task in list(self._tasks.items())
        ]
        return pack_format.write(target, Pack(self._base.name, base, tuple(tasks)))

    @classmethod
    def load(
        cls,
        filepath: str | os.PathLike[str],
        base: Any = None,
        *,
        max_in_use: int = 4,
        custom_objects: dict[str, Any] | None = None,
        trust: Sequence[str] = (),
        max_bytes: int = MAX_BYTES,
    ) -> "TaskMasks":
        """Loads a pack. It may come from a stranger, as a ticket may.

        Args:
            filepath: path of the file.
            base: the base that the tasks were saved with: a plain `keras.Model`, or the path of its `.keras` file.
                Not needed if the file holds it.
            max_in_use: as in the constructor.
            custom_objects, trust, max_bytes: as in `keras_popup.load_ticket`, for each task.

        Raises:
            OSError: if the file cannot be read.
            TicketError: (a ValueError) if the file is not a pack, is damaged or too large, if a task in it is not what
                the pack says, or if `base` is missing or another model.
        """
        with add_path(filepath, "Pack"):
            pack = pack_format.read(Path(filepath), max_bytes)
            if base is None and pack.base is None:
                raise TicketError(f"it does not hold its base, '{pack.base_name}'. Pass that model as `base`")
            if base is None and pack.base is not None:
                base = unpack(pack.base, None, custom_objects, trust, max_bytes)[0]
            tasks = cls(base, max_in_use=max_in_use)
            for packed in pack.tasks:
                try:
                    _check_name(packed.name)
                    made = tasks._make(packed.name, packed.ticket, custom_objects, trust, max_bytes)
                    if (inputs := made.network.describe_inputs()) != packed.inputs:
                        raise TicketError(f"its inputs are {inputs}, but the list of tasks says {packed.inputs}")
                except ValueError as error:
                    raise TicketError(f"task '{packed.name[:_LONGEST_NAME]}': {error}") from error.__cause__
                tasks._tasks[packed.name] = made
        return tasks

    def __reduce__(self) -> NoReturn:
        raise TypeError("TaskMasks cannot be copied or pickled. Save them with `save`, and load them elsewhere.")

    def __repr__(self) -> str:
        return f"TaskMasks('{self._base.name}', {len(self)} tasks: {', '.join(self)})"

    def _find(self, name: str) -> "_Task":
        if (task := self._tasks.get(name)) is None:
            raise KeyError(f"There is no task {name!r}. There are: {', '.join(self._tasks) or 'none'}.")
        return task

    def _check_new(self, name: Any) -> None:
        _check_name(name)
        if name in self._tasks:
            raise ValueError(f"There is a task '{name}' already. Remove it first, or choose another name.")

    def _make(
        self,
        name: str,
        ticket: Ticket,
        custom_objects: dict[str, Any] | None,
        trust: Sequence[str],
        max_bytes: int,
    ) -> "_Task":
        """Returns the task of a ticket, whose weights are all checked."""
        limits.check(ticket, max_bytes)
        masks: dict[Key, _KernelMask] = {}
        weights: dict[Key, tf.Tensor] = {}
        for record in ticket.masks:
            mask, masked_kernel = mask_record.decode_kernel(record, self._base)
            if masked_kernel.nbytes < LEAST_BYTES:
                weights[record.layer, record.key] = tf.convert_to_tensor(masked_kernel)
            elif record.from_seed or mask_record.is_of_base(record):
                kernel = self._read_kernel(record)
                factor = float(mask_record.find_factor(record))
                masks[record.layer, record.key] = _KernelMask(kernel, *_pack_levels(mask), factor)
            else:
                raise TicketError(
                    f"the kernel of layer '{record.layer}' is stored in it, as it is not that of a base. Save the "
                    "ticket with `base`, the model that was masked with weights='keep', and leave a new head out of "
                    "the masks with `exclude`"
                )
        stores = read_stores(ticket, self._base)
        origin = NetworkOrigin(ticket, stores, read_files(ticket), custom_objects, trust)
        networks = {id(task.network): task.network for task in list(self._tasks.values())}
        network = next((each for each in networks.values() if each.serves(origin)), None)
        if network is None:
            network = TaskNetwork(origin, max_bytes)
        network.check_weights(ticket)
        weights |= {
            (path, key): tf.convert_to_tensor(value) for path, store in stores.items() for key, value in store.items()
        }
        # What the task holds already is not kept twice. `_write_ticket` puts it back.
        model = zlib.compress(json.dumps(ticket.model).encode())
        shell = dataclasses.replace(
            ticket,
            model={},
            masks=tuple(
                dataclasses.replace(record, tables=b"", stream=b"") if (record.layer, record.key) in masks else record
                for record in ticket.masks
            ),
            tensors=tuple(dataclasses.replace(tensor, data=b"") for tensor in ticket.tensors),
        )
        task = _Task(shell, model, network, masks, weights, custom_objects, tuple(trust), max_bytes)
        # A name of Keras's may not have a slash.
        classes = read_classes(ticket.made)
        task.model = TaskModel(name.replace("/", "_"), network, lambda: self._kernels.read(task), classes)
        return task

    def _read_kernel(self, record: Mask) -> tf.Tensor:
        """Returns the kernel of the base that a mask is for. Raises TicketError if the base does not have it."""
        where = f"the kernel of layer '{record.layer}'"
        try:
            return self._base.read(where, record.shape, record.dtype, record.kernel_check)
        except TicketError:
            if mask_record.is_of_base(record):
                raise
            raise TicketError(
                f"{where} is drawn from a seed, and the base '{self._base.name}' has other weights. A task over "
                "trained weights is masked with weights='keep'"
            ) from None

    def _write_ticket(self, task: "_Task") -> Ticket:
        """Returns the ticket that a task was made of."""
        masks = []
        for record in task.ticket.masks:
            if (found := task.masks.get((record.layer, record.key))) is not None:
                mask = _unpack_levels(found, record.shape)
                record = mask_record.encode_again(record, mask, self._base)
            masks.append(record)
        tensors = [
            dataclasses.replace(tensor, data=file_format.pack(task.weights[tensor.layer, tensor.name].numpy()))
            for tensor in task.ticket.tensors
        ]
        model = json.loads(zlib.decompress(task.architecture))
        return dataclasses.replace(task.ticket, model=model, masks=tuple(masks), tensors=tuple(tensors))


_LONGEST_NAME = 200


def _check_name(name: Any) -> None:
    if not isinstance(name, str) or not name or not name.isprintable() or len(name) > _LONGEST_NAME:
        raise ValueError(
            f"The name of a task must be a text of at most {_LONGEST_NAME} characters, without control characters. "
            f"Received: {str(name)[:_LONGEST_NAME]!r}."
        )


@dataclasses.dataclass(frozen=True)
class _KernelMask:
    """A masked kernel of a task: `kernel * mask * factor`.

    Attributes:
        kernel: the kernel of the base.
        levels: int8 array of shape `(levels,)`: the values of the mask other than 0.
        bits: uint8 tensor of shape `(levels, bytes)`: for each level the packed bits of the weights that have it.
        factor: float, the scale of the selector.
    """

    kernel: tf.Tensor
    levels: NDArray[np.int8]
    bits: tf.Tensor
    factor: float


def _pack_levels(mask: NDArray[Any]) -> tuple[NDArray[np.int8], tf.Tensor]:
    """Returns the levels of a mask and their bits, as a `_KernelMask` has them."""
    levels = np.setdiff1d(mask, [0]).astype(np.int8)
    return levels, tf.convert_to_tensor(np.packbits(mask.reshape(1, -1) == levels[:, None], axis=1))


def _unpack_levels(mask: _KernelMask, shape: tuple[int, ...]) -> NDArray[Any]:
    bits = np.unpackbits(mask.bits.numpy(), axis=1, count=math.prod(shape))
    values: NDArray[np.int8] = (mask.levels[:, None] * bits).sum(0, dtype=np.int8)
    return values.reshape(shape)


@dataclasses.dataclass(eq=False)
class _Task:
    """A task.

    Attributes:
        ticket: its ticket, without the model, and without what `masks` and `weights` have.
        architecture: bytes, the model of its ticket, compressed.
        network: the network that it shares with other tasks.
        masks: its masked kernels.
        weights: all other weights.
        custom_objects, trust, max_bytes: as in `TaskMasks.add`.
        model: its Keras model.
    """

    ticket: Ticket
    architecture: bytes
    network: TaskNetwork
    masks: dict[Key, _KernelMask]
    weights: dict[Key, tf.Tensor]
    custom_objects: dict[str, Any] | None
    trust: tuple[str, ...]
    max_bytes: int
    model: Any = None

    def read_weights(self, kernels: dict[Key, tf.Tensor]) -> list[Any]:
        """Returns all weights in the order of the network's, given the masked kernels."""
        found = {**self.weights, **kernels}
        return [None if key is None else found[key] for key in self.network.keys]


def _compute_kernels(task: _Task) -> dict[Key, tf.Tensor]:
    """Returns the masked kernels of a task, in the base's dtypes."""
    keys = sorted(task.masks)
    masks = [task.masks[key] for key in keys]
    kernels = task.network.apply_masks(
        [mask.kernel for mask in masks],
        [mask.bits for mask in masks],
        [tf.constant(mask.levels) for mask in masks],
        [tf.constant(mask.factor) for mask in masks],
    )
    return dict(zip(keys, kernels, strict=True))


class _KernelCache:
    """The masked kernels of the tasks that were used last."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: collections.OrderedDict[_Task, list[Any]] = collections.OrderedDict()
        self._removed: weakref.WeakSet[_Task] = weakref.WeakSet()
        self._lock = threading.Lock()

    def read(self, task: _Task) -> list[Any]:
        """Returns all weights of a task."""
        with self._lock:
            if (weights := self._kept.get(task)) is not None:
                self._kept.move_to_end(task)
                return weights
        with tf.init_scope():  # also if a function is traced: what is kept must be values
            weights = task.read_weights(_compute_kernels(task))  # outside of the lock: other threads go on
        with self._lock:
            if task not in self._removed:
                self._kept[task] = weights
            while len(self._kept) > self._limit:
                self._kept.popitem(last=False)
        return weights

    def forget(self, task: _Task) -> None:
        """Keeps nothing of a task from now on."""
        with self._lock:
            self._removed.add(task)
            self._kept.pop(task, None)


def _write_base(base: Base) -> Ticket:
    """Returns a ticket without masks that holds the base."""
    model = base.model
    if not base.has_weights_of(Base(model)):
        raise ValueError(
            f"The base '{base.name}' was trained after its tasks were added, so it is not their base any more. Make "
            "TaskMasks of the model that it was."
        )
    layers = architecture.list_layers(model)
    variables = {path: architecture.collect_variables(layer) for path, layer in layers}
    return Ticket(
        model=architecture.serialize_plain(model),
        untrainable=[],
        frozen={},
        made={"versions": package_versions(PACKAGES)},
        masks=(),
        tensors=tuple(tensor for path in variables for tensor in architecture.collect_tensors(path, variables[path])),
        assets=tuple(asset for path, layer in layers for asset in architecture.collect_assets(path, layer)),
        base=None,
    )
