"""What a worker of a search does: one trial at a time, each by the library's own training run.

`python -m keras_popup.search.trial` reads tasks from standard input, a line of JSON each, and writes results to
standard output. It ends with its standard input: a search that was killed leaves no trial behind.
"""

import contextlib
import dataclasses
import functools
import json
import logging
import math
import os
import queue
import resource
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

from keras_popup import conversion, initializers, tickets, training
from keras_popup._files import write_atomically
from keras_popup.records import ALIVE, RunFolder
from keras_popup.training import RunConfig

_SECONDS_BETWEEN_SIGNS = 2.0
_LONGEST_LEASE = 120.0  # seconds, of a lock on a file system of the network


def look(task: dict[str, Any]) -> dict[str, Any]:
    """Returns what `measure` does, or its "error" and the "type" of that."""
    try:
        return measure(task)
    except Exception as error:  # any kind: nobody sees the traceback of this process
        return {"error": str(error) or repr(error), "type": type(error).__name__}


def measure(task: dict[str, Any]) -> dict[str, Any]:
    """Checks what can be known before the first trial.

    Args:
        task: "config", the arguments of a run; "widths" and "initializers" to look at; "tickets", whether to
            measure their sizes; "here", whether trials run on this machine.

    Returns:
        "sizes" and "others" of `_budget.Layout` for each width, in order.

    Raises:
        ValueError: if there are no validation images or devices, if there is no such initializer, or if a width or
            k leaves a layer empty.
    """
    config = RunConfig(**task["config"]).with_protocol()
    if task["here"]:
        training.place(config)
    data = training.load_data(config)
    if data.validation is None:
        raise ValueError("A search chooses by validation images. `validation` must be more than 0.")
    shape, classes = data.image_shape, len(data.classes)
    for name in task["initializers"]:
        smallest = dataclasses.replace(config, kernel_initializer=name, width=min(task["widths"]))
        model = training.build_model(smallest, shape, classes)
        if task["tickets"] and not _follow_from_seed(conversion.masked_layers(model)):
            raise ValueError(
                f"A budget is for kernels that follow from a seed. Those of '{name}' are stored in the ticket. Use "
                "one of this library's initializers."
            )
    layouts = []
    for width in task["widths"]:
        sized = dataclasses.replace(config, width=width)
        sized = _for_layout(sized) if task["tickets"] else sized
        layouts.append(_layout(sized, shape, classes, task["tickets"]))
    return {"layouts": layouts}


def run(task: dict[str, Any]) -> dict[str, Any]:
    """Trains the executions of a trial, or goes on with them.

    Args:
        task: "config", the arguments of a run; "folder"; "executions", how many; "until", the epoch to stop
            after, None for all; "budget", None or the arguments of `_budget.Layout.fitting_k`.

    Returns:
        What is recorded of the trial: "executions", "error" and "traceback", None if there is none, and the
        largest memory that the process has had so far.
    """
    folder = Path(task["folder"])
    result: dict[str, Any] = {"executions": [], "error": None, "traceback": None}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _output_to(folder / "log.txt"), _traceback_printed():
            # The first sign that it has begun, which on Ray may be long after it was asked for.
            epochs = task["until"] or RunConfig(**task["config"]).with_protocol().epochs
            _Alive(folder / ALIVE, 0, epochs).say({"epoch": 0})
            for execution in range(task["executions"]):
                result["executions"].append(_execute(task, folder, execution))
    except Exception as error:  # any kind: the search goes on
        result["error"] = f"{type(error).__name__}: {error}"
        result["traceback"] = traceback.format_exc()
    result["peak_memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return result


def _execute(task: dict[str, Any], folder: Path, execution: int) -> dict[str, Any]:
    config = RunConfig(**task["config"])
    masked = config.method != "dense"
    training.place(config.with_protocol())  # before TensorFlow starts
    keras.backend.clear_session()
    layout = _known_layout(json.dumps(dataclasses.asdict(_for_layout(config)))) if masked else None
    run_folder = RunFolder(folder / str(execution))
    if task["budget"] and layout:
        # Of a run that goes on its own k: another version's tickets may be a byte longer.
        begun = run_folder.is_one()
        k = run_folder.read(run_folder.arguments)["config"]["k"] if begun else layout.fitting_k(**task["budget"])
        config = dataclasses.replace(config, k=k)
    config = dataclasses.replace(config, seed=config.seed + execution)
    with run_folder.locked(_LONGEST_LEASE):
        pass  # a process on a machine that was lost may hold it for a while yet
    summary = training.train(
        config,
        run_folder.path,
        resume=True,
        test=task["test"],
        until=task["until"],
        ticket=masked,
        callbacks=[_Alive(folder / ALIVE, execution, task["until"] or config.with_protocol().epochs)],
    )
    predicted = layout.bytes_of([layer["kept"] for layer in summary["layers"]]) if layout else None
    if task["budget"] and summary["ticket_bytes"] > task["budget"]["budget"]:
        raise ValueError(f"The ticket takes {summary['ticket_bytes']:,} bytes, and {predicted} were expected at most.")
    return {
        "seed": config.seed,
        "k": summary["kept"] / summary["weights"] if config.layer_k or config.draws or not masked else config.k,
        "width": config.width,
        "weights": summary["weights"],
        "kept": summary["kept"],
        "layers": summary["layers"],
        "predicted_bytes": predicted,
        "ticket_bytes": summary.get("ticket_bytes"),
        "train": summary["train"],
        "validation": summary["validation"],
        "test": summary["test"],
        "seconds": summary["seconds"],
        "history": run_folder.history(),
        "config": summary["config"],
    }


def _for_layout(config: RunConfig) -> RunConfig:
    """Returns a configuration that is the same for all of one layout, its k of as many digits as any."""
    k = config.k if config.draws else 0.5234567890123456  # its digits are in the file
    return dataclasses.replace(config, l2=0.0, k=k, learning_rate=0.0 if config.method == "random" else 0.1)


def _layout(config: RunConfig, shape: tuple[int, int, int], classes: int, measured: bool) -> dict[str, Any] | None:
    """Returns the arguments of `_budget.Layout`. None for kernels that a ticket has to store."""
    keras.backend.clear_session()
    model = training.build_model(config, shape, classes)
    masked = conversion.masked_layers(model)
    sizes = [kernel.size for layer in masked for kernel in layer.masked_kernels.values()]
    if not measured:
        return {"sizes": sizes, "others": 0}
    if not _follow_from_seed(masked):
        return None
    of_masks = {id(weight) for layer in masked for weight in layer.weights}
    others = [weight for weight in model.weights if id(weight) not in of_masks]
    numbers = np.random.default_rng(0)
    for weight in others:  # such as moving averages: training makes numbers of them that do not compress
        if "float" in weight.dtype:
            weight.assign(numbers.normal(size=weight.shape))
    with tempfile.TemporaryDirectory() as folder:
        metrics = {"val_loss": 0.123456789, "val_accuracy": 0.123456789}
        info = tickets.save_ticket(model, Path(folder) / "a.ticket", dataset=config.dataset, metrics=metrics)
    stored = info.tensor_bytes + sum(row.other_bytes for row in info.layers)
    at_most = sum(_most_bytes(weight) for weight in others)
    return {"sizes": sizes, "others": info.bytes - info.mask_bytes - stored + max(stored, at_most)}


def _follow_from_seed(masked: list[Any]) -> bool:
    kernels = [kernel for layer in masked for kernel in layer.masked_kernels.values()]
    return all(isinstance(kernel.initializer, initializers.FrozenInitializer) for kernel in kernels)


def _most_bytes(weight: Any) -> int:
    """Returns what a weight takes that cannot be compressed at all (RFC 1951: stored blocks)."""
    size = math.prod(weight.shape) * np.dtype(keras.backend.standardize_dtype(weight.dtype)).itemsize
    return size + 5 * (size // 16383 + 1) + 6


@functools.lru_cache(maxsize=16)
def _known_layout(arguments: str) -> tickets.TicketSize | None:
    config = RunConfig(**json.loads(arguments)).with_protocol()
    data = training.load_data(config)
    found = _layout(config, data.image_shape, len(data.classes), measured=True)
    return tickets.TicketSize(**found) if found else None


class _Alive(keras.callbacks.Callback):
    """Says now and then how far a trial is."""

    def __init__(self, path: Path, execution: int, epochs: int | None) -> None:
        super().__init__()
        self._path = path
        self._about = {"host": socket.gethostname(), "pid": os.getpid(), "execution": execution, "epochs": epochs}
        self._epoch = 0
        self._said = -_SECONDS_BETWEEN_SIGNS

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if time.monotonic() - self._said >= _SECONDS_BETWEEN_SIGNS:
            self.say({"epoch": self._epoch, "batch": batch})

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        if time.monotonic() - self._said >= _SECONDS_BETWEEN_SIGNS:
            self.say({"epoch": self._epoch, "validation_batch": batch})

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.say({"epoch": epoch + 1})

    def say(self, progress: dict[str, int]) -> None:
        self._said = time.monotonic()
        text = json.dumps({**self._about, **progress})
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
    """Adds all that the process prints and logs to a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    with open(path, "a") as file:
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
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal, meant for the search
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    tasks: queue.Queue[dict[str, Any]] = queue.Queue()

    def read() -> None:
        for line in sys.stdin:
            tasks.put(json.loads(line))
        os._exit(0)  # the search is gone, or done with this process

    threading.Thread(target=read, daemon=True).start()
    while True:
        task = tasks.get()
        answer = run(task) if task["kind"] == "run" else look(task)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    _main()
