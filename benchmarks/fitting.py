"""Trains, measures and ships the networks of methods.py, optimizers.py and recipe.py, and describes the runs."""

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras

import keras_popup
from keras_popup._processor import find_processor
from keras_popup.datasets import Dataset


def prepare_with(data: Dataset) -> Callable[[Any, Any], Any]:
    """Returns a function that prepares a batch."""
    scale = data.preprocessing()
    return lambda images, labels: (scale(images), labels)


def count_steps(data: Dataset, batch: int) -> int:
    """Returns the steps of an epoch."""
    return -(-data.train.size // batch)


def fit(
    model: keras.Model,
    data: Dataset,
    optimizer: Any,
    *,
    batch: int,
    epochs: int,
    seed: int,
    smoothing: float = 0.0,
    validate: bool = False,
    callbacks: Sequence[Any] = (),
) -> tuple[float, dict[str, list[float]]]:
    """Trains a network. Returns the seconds, and the curves."""
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing)
    model.compile(optimizer, loss, metrics=["accuracy"])
    begin = time.perf_counter()
    history = model.fit(
        data.training_batches(batch, seed=seed, epochs=epochs).map(prepare_with(data)),
        epochs=epochs,
        steps_per_epoch=count_steps(data, batch),
        shuffle=False,
        verbose=0,
        callbacks=list(callbacks),
        validation_data=data.evaluation_batches("validation", 500).map(prepare_with(data)) if validate else None,
    ).history
    return time.perf_counter() - begin, history


def measure(model: keras.Model, data: Dataset, splits: Sequence[str] = ("validation", "test")) -> dict[str, float]:
    """Returns the accuracies of a compiled network."""
    return {
        split: model.evaluate(data.evaluation_batches(split, 500).map(prepare_with(data)), verbose=0)[1]
        for split in splits
    }


def ship(model: keras.Model, data: Dataset) -> Any:
    """Returns the `TicketInfo` of a network's ticket."""
    with tempfile.TemporaryDirectory() as folder:
        return keras_popup.save_ticket(model, Path(folder, "a.ticket"), preprocess=[data.preprocessing()])


def describe_run(seconds: float) -> dict[str, Any]:
    """Returns what each row says of its time and place."""
    return {"seconds": round(seconds, 1), "machine": f"{os.cpu_count()} cores of {find_processor()}"}


def spread(accuracies: Sequence[float]) -> str:
    """Returns the mean of accuracies from 0 to 1 in percent, and of several the standard deviation."""
    percent = [100 * accuracy for accuracy in accuracies]
    deviation = f" ± {statistics.stdev(percent):.2f}" if len(percent) > 1 else " (one seed)"
    return f"{statistics.mean(percent):.2f}{deviation}"
