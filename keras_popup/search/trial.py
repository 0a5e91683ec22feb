"""The worker of a search. It trains one trial at a time, each with the library's own training run.

`python -m keras_popup.search.trial` reads pickled tasks from standard input and writes pickled answers to standard
output. It ends when its standard input is closed: a search that was killed leaves no trial behind.
"""

import contextlib
import dataclasses
import functools
import itertools
import json
import logging
import math
import os
import pickle
import queue
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_popup import conversion, initializers, selectors, tickets, training
from keras_popup._files import write_atomically
from keras_popup.datasets import Dataset
from keras_popup.records import (
    ALIVE,
    DamagedError,
    Execution,
    Heartbeat,
    History,
    LayerRecord,
    RunFolder,
    TrialResult,
)
from keras_popup.search.tasks import Measurement, MeasureTask, TrialTask
from keras_popup.tickets import TicketSize
from keras_popup.training import RunConfig

try:
    import resource
except ImportError:  # Windows does not have it
    resource = None  # type: ignore[assignment]

_logger = logging.getLogger("keras_popup")

_SECONDS_BETWEEN_HEARTBEATS = 2.0
_LONGEST_LEASE = 120.0  # seconds, of a lock on a network file system


def try_measure(task: MeasureTask) -> Measurement | Exception:
    """Returns the answer of `measure`, or the error: of a type of Python's own, which every process can unpickle."""
    try:
        return measure(task)
    except FileNotFoundError as error:
        return FileNotFoundError(str(error))
    except ImportError as error:
        return ImportError(str(error))
    except Exception as error:  # of any type: the traceback of this process is not shown
        return ValueError(str(error) or repr(error))


def measure(task: MeasureTask) -> Measurement:
    """Builds the smallest network of a search, reads the shape of its data, and measures tickets.

    Raises:
        ValueError: if there are no validation images or devices, if an initializer is unknown, if a width or k leaves
            a layer empty, or if a selector cannot have a k or a layer.
    """
    if task.here:
        training.place(task.run)
    data = _load_data(task.run)
    if data.validation is None:
        raise ValueError("A search chooses by validation images. `validation` must be more than 0.")
    for name, selector in itertools.product(task.initializers, task.selectors):
        run = dataclasses.replace(task.run, kernel_initializer=name, selector=selector, width=min(task.widths))
        model = _build(run, data)
        if task.tickets and task.run.base is None and not _follow_from_seed(conversion.masked_layers(model)):
            raise ValueError(
                "With a budget, kernels must follow from a seed. A ticket stores the kernels of "
                f"'{name}' themselves. Use one of this library's initializers."
            )
        for k in task.fractions:
            conversion.set_k(model, k)
    sizes = {}
    for width in task.widths if task.tickets else ():
        run = dataclasses.replace(task.run, width=width)
        keras.backend.clear_session()
        if size := _measure_size(_with_long_numbers(run)):
            sizes[width, run.kernel_initializer] = size
    return Measurement(sizes=sizes)


def run(task: TrialTask) -> TrialResult:
    """Trains the executions of a trial, or continues them. An error is part of the result."""
    executions: list[Execution] = []
    failure: dict[str, Any] = {}
    try:
        task.folder.mkdir(parents=True, exist_ok=True)
        with _output_to(task.folder / "log.txt"), _traceback_printed():
            _Alive(task, 0).write(epoch=0)  # on Ray, a trial may begin long after it was sent
            for number in range(task.executions):
                executions.append(_execute(task, number))
    except Exception as error:  # of any type: the search goes on
        failure = {"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
    return TrialResult(executions=tuple(executions), peak_memory_mb=_measure_peak_memory(), **failure)


def _measure_peak_memory() -> int | None:
    """Returns the most memory that this process has had so far, in MB; None where the system does not say."""
    if resource is None:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak // (1024**2 if sys.platform == "darwin" else 1024))


def _execute(task: TrialTask, number: int) -> Execution:
    config = dataclasses.replace(task.run, seed=task.run.seed + number)
    masked = config.method != "dense"
    training.place(config)  # before TensorFlow starts
    keras.backend.clear_session()
    size = (task.size or _measure_size(_with_long_numbers(task.run))) if masked else None
    run_folder = RunFolder(task.folder / str(number))
    with run_folder.locked(_LONGEST_LEASE):
        pass  # a process on a machine that was lost may still hold it for a while

    def train() -> tuple[RunConfig, dict[str, Any], History]:
        if task.budget and size:
            # A run that is continued keeps its k: the tickets of another version may be a byte longer.
            of_budget = run_folder.config()["k"] if run_folder.is_one() else task.budget.find_k(size)
            run = dataclasses.replace(config, k=of_budget)
        else:
            run = config
        summary = training.train(
            run,
            run_folder.path,
            resume=True,
            test=task.test,
            until=task.until,
            ticket=masked,
            callbacks=[_Alive(task, number)],
            data=_load_data(run),
        )
        return run, summary, run_folder.history()

    try:
        config, summary, history = train()
    except DamagedError as error:
        # The folder is the search's own, and the same run gives the same files again.
        _logger.warning("'%s' %s. The run begins anew.", error.path, error.wrong)
        shutil.rmtree(run_folder.path)
        config, summary, history = train()
    layers = tuple(LayerRecord.from_json(layer) for layer in summary["layers"])
    predicted = size.bytes_of([layer.kept for layer in layers]) if size else None
    if task.budget and summary["ticket_bytes"] > task.budget.bytes:
        raise ValueError(f"The ticket takes {summary['ticket_bytes']:,} bytes. At most {predicted:,} were expected.")
    k = config.k
    if not masked or config.draws or isinstance(k, dict):
        k = summary["kept"] / summary["weights"]
    return Execution(
        seed=config.seed,
        k=k,
        width=config.width,
        weights=summary["weights"],
        kept=summary["kept"],
        layers=layers,
        predicted_bytes=predicted,
        ticket_bytes=summary.get("ticket_bytes"),
        train=summary["train"],
        validation=summary["validation"],
        test=summary["test"],
        seconds=summary["seconds"],
        history=history,
        config=summary["config"],
    )


_DATA = ("dataset", "data_dir", "image_size", "validation", "augment", "seed")
"""The arguments that the data depend on."""


def _load_data(config: RunConfig) -> Dataset:
    """Returns the data of a configuration. They are read once for all trials of this process."""
    return _load_once(tuple(config.resolve(name) if name == "augment" else getattr(config, name) for name in _DATA))


# Two, as trials of two executions take turns between their splits.
@functools.lru_cache(maxsize=2)
def _load_once(arguments: tuple[Any, ...]) -> Dataset:
    return training.load_data(RunConfig(**dict(zip(_DATA, arguments, strict=True))))


def _with_long_numbers(config: RunConfig) -> RunConfig:
    """Returns a configuration whose ticket is as long as any: the digits of its numbers are in the ticket."""
    long = 0.5234567890123456
    selector = selectors.get(config.selector or "top_k")
    if config.draws or isinstance(config.k, dict) or isinstance(selector, selectors.NM):
        k = config.k
    else:
        low, high = selector.k_range
        k = low + (high - low) * long
    return dataclasses.replace(config, k=k, l2=long / 1e6, learning_rate=0.0 if config.method == "random" else long)


def _build(config: RunConfig, data: Dataset) -> Any:
    return training.build_model(config, data.image_shape, len(data.classes), [data.preprocessing()])


@functools.lru_cache(maxsize=16)
def _measure_size(config: RunConfig) -> TicketSize | None:
    """Measures an untrained network's ticket. Returns None if the ticket has to store kernels.

    With a base, it is the ticket relative to the base.
    """
    data = _load_data(config)
    model = _build(config, data)
    masked = conversion.masked_layers(model)
    base = training.find_base(config)
    if base is None and not _follow_from_seed(masked):
        return None
    of_masks = {id(weight) for layer in masked for weight in layer.weights}
    others = [weight for weight in model.weights if id(weight) not in of_masks]
    if base is not None:
        others = [weight for weight in others if weight.trainable or _is_stored(weight, tickets.Base(base))]
    numbers = np.random.default_rng(0)
    for weight in others:  # such as moving averages: after training, their numbers do not compress
        if "float" in weight.dtype:
            weight.assign(numbers.normal(size=weight.shape))
    with tempfile.TemporaryDirectory() as folder:
        metrics = {"val_loss": 0.123456789, "val_accuracy": 0.123456789}
        origin = training.describe_origin(config.with_protocol(), data)
        info = tickets.save_ticket(model, Path(folder) / "a.ticket", base=base, metrics=metrics, **origin)
    stored = info.tensor_bytes + sum(row.other_bytes for row in info.layers)
    at_most = sum(_most_bytes(weight) for weight in others)
    kernels = [kernel for layer in masked for kernel in layer.masked_kernels.values()]
    return TicketSize(
        tuple(kernel.size for kernel in kernels),
        info.bytes - info.mask_bytes - stored + max(stored, at_most),
        config.selector or "top_k",
        tuple(tuple(kernel.scores.shape) for kernel in kernels),
        tuple(kernel.spec.axes(kernel.layer, len(kernel.scores.shape)) for kernel in kernels),
    )


def _is_stored(weight: Any, base: tickets.Base) -> bool:
    """Tells whether a ticket has a weight that is not trained, because the base does not have it, or it is small."""
    return base.find(np.asarray(weight.numpy())) is None


def _follow_from_seed(masked: list[Any]) -> bool:
    kernels = [kernel for layer in masked for kernel in layer.masked_kernels.values()]
    return all(isinstance(kernel.initializer, initializers.FrozenInitializer) for kernel in kernels)


def _most_bytes(weight: Any) -> int:
    """Returns the bytes of a weight that cannot be compressed at all (RFC 1951: stored blocks)."""
    size: int = math.prod(weight.shape) * np.dtype(keras.backend.standardize_dtype(weight.dtype)).itemsize
    return size + 5 * (size // 16383 + 1) + 6


class _Alive(keras.callbacks.Callback):
    """Writes the heartbeat of a trial, at most every few seconds within an epoch."""

    def __init__(self, task: TrialTask, execution: int) -> None:
        super().__init__()
        self._path = task.folder / ALIVE
        epochs = task.until or task.run.with_protocol().epochs
        self._start = Heartbeat(epoch=0, epochs=epochs, execution=execution, host=socket.gethostname(), pid=os.getpid())
        self._epoch = 0
        self._written = -_SECONDS_BETWEEN_HEARTBEATS

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if time.monotonic() - self._written >= _SECONDS_BETWEEN_HEARTBEATS:
            self.write(epoch=self._epoch, batch=batch)

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        if time.monotonic() - self._written >= _SECONDS_BETWEEN_HEARTBEATS:
            self.write(epoch=self._epoch, validation_batch=batch)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.write(epoch=epoch + 1)

    def write(self, epoch: int, batch: int | None = None, validation_batch: int | None = None) -> None:
        self._written = time.monotonic()
        alive = dataclasses.replace(self._start, epoch=epoch, batch=batch, validation_batch=validation_batch)
        text = json.dumps(alive.to_json())
        write_atomically(self._path, lambda path: path.write_text(text))


@contextlib.contextmanager
def _traceback_printed() -> Iterator[None]:
    try:
        yield
    except Exception:
        traceback.print_exc()
        raise


@contextlib.contextmanager
def _output_to(path: Path) -> Iterator[None]:
    """Appends everything that the process prints and logs to a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    with open(path, "a", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    log, logger = logging.FileHandler(path), logging.getLogger("keras_popup")
    logger.addHandler(log)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(log)
        log.close()
        sys.stdout.flush()
        sys.stderr.flush()
        for number, saved in enumerate(kept, 1):
            os.dup2(saved, number)
            os.close(saved)


def _main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is meant for the search
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    tasks: queue.Queue[MeasureTask | TrialTask] = queue.Queue()

    def read() -> None:
        with contextlib.suppress(EOFError):
            while True:
                tasks.put(pickle.load(sys.stdin.buffer))
        os._exit(0)  # the search has ended, or has closed this process

    threading.Thread(target=read, daemon=True).start()
    while True:
        task = tasks.get()
        pickle.dump(run(task) if isinstance(task, TrialTask) else try_measure(task), answers)
        answers.flush()


if __name__ == "__main__":
    _main()
