"""Records a training run: history and checkpoints after every epoch, a summary at the end."""

import math
import os
import platform
import time
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_popup import __version__, datasets, distribution, layers
from keras_popup._processor import find_processor
from keras_popup._versions import package_versions
from keras_popup.callbacks import MaskStatistics
from keras_popup.distribution import Placement
from keras_popup.records import History, RunFolder
from keras_popup.training.config import ResolvedRunConfig

STEPS_BETWEEN_LOSS_CHECKS = 50


class DivergenceError(ArithmeticError):
    """The loss is no longer a finite number."""


class Recorder(keras.callbacks.Callback):
    """Records the history and a checkpoint after every epoch. Stops a run that diverges."""

    def __init__(
        self, folder: RunFolder, history: History, seconds: float, instruments: Sequence[keras.callbacks.Callback]
    ) -> None:
        super().__init__()
        self._statistics = [each for each in instruments if isinstance(each, MaskStatistics)]
        self.seconds = seconds
        self.first_step: float | None = None  # seconds, of this process
        self._folder = folder
        self.history = history

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch
        self._started = time.perf_counter()

    # Validation is not training time.
    def on_test_begin(self, logs: Any = None) -> None:
        self.seconds += time.perf_counter() - self._started

    def on_test_end(self, logs: Any = None) -> None:
        self._started = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self.first_step is None:
            self.first_step = time.perf_counter() - self._started
        if batch % STEPS_BETWEEN_LOSS_CHECKS == 0:  # reading the loss waits for the device
            self._check_loss(float(logs["loss"]), f"step {batch + 1} of ")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._check_loss(logs["loss"], "")
        self.seconds += time.perf_counter() - self._started
        learning_rate = float(self.model.optimizer.learning_rate)
        self.history.append({"epoch": epoch + 1, "learning_rate": learning_rate, **logs})
        for statistics in self._statistics:
            self.history[-1] |= statistics.latest
        self._folder.save_checkpoint(self.model, self.history, self.seconds)

    def _check_loss(self, loss: float, step: str) -> None:
        if math.isfinite(loss):
            return
        variables = [v.path for v in self.model.variables if not bool(tf.reduce_all(tf.math.is_finite(v.value)))]
        cause = f"not finite: {', '.join(variables)}" if variables else "all weights are finite, the logits overflow"
        kept = (
            f"The checkpoint of epoch {len(self.history)} is kept in '{self._folder.path}'."
            if self.history
            else "No epoch was finished."
        )
        raise DivergenceError(
            f"The loss became {loss} at {step}epoch {self._epoch + 1}, at a learning rate of "
            f"{float(self.model.optimizer.learning_rate):.3g}; {cause}. {kept} Start again in another folder with a "
            "lower learning rate" + (" or in float32." if self.model.dtype_policy.name != "float32" else ".")
        )


def summarize(
    config: ResolvedRunConfig,
    data: datasets.Dataset,
    model: keras.Model,
    history: History,
    test: dict[str, float] | None,
    seconds: float,
    placement: Placement,
) -> dict[str, Any]:
    """Returns the content of summary.json. `seconds` is the time that training took."""
    last = history[-1]
    records = [_layer_record(layer) for layer in model.layers if _kernel(layer) is not None]
    return {
        "train": {name: last[name] for name in ("loss", "accuracy")},
        "validation": {name: last[f"val_{name}"] for name in ("loss", "accuracy")} if data.validation else None,
        "test": test,
        "weights": sum(record["weights"] for record in records),
        "kept": sum(record["kept"] for record in records),
        "layers": records,
        "epochs": len(history),
        "seconds": round(seconds, 1),
        "images_per_second": round(len(history) * data.train.size / seconds, 1),
        "data": {
            "name": data.name,
            "image_shape": data.image_shape,
            "classes": len(data.classes),
            "train": data.train.size,
            "validation": data.validation.size if data.validation else 0,
            "test": data.test.size,
            "augment": data.augment,
            "mean": data.mean,
            "std": data.std,
        },
        "devices": {"strategy": placement.name, "names": placement.devices, "replicas": placement.replicas},
        "config": config.to_json(),
        "versions": find_versions(),
    }


def _kernel(layer: keras.layers.Layer) -> Any:
    return layer.frozen_kernel if isinstance(layer, layers.MaskedLayer) else getattr(layer, "kernel", None)


def _layer_record(layer: keras.layers.Layer) -> dict[str, Any]:
    weights = math.prod(_kernel(layer).shape)
    if isinstance(layer, layers.MaskedLayer):
        fraction = {} if layer.selector.draws else {"k": layer.k}
        return {"name": layer.name, "weights": weights, "kept": layer.kept, **fraction, "seed": layer.seed}
    return {"name": layer.name, "weights": weights, "kept": weights}


def find_versions() -> dict[str, str]:
    """Returns the versions of the libraries, and the system that they run on."""
    return {
        "keras_popup": __version__,
        **package_versions(("tensorflow", "keras", "numpy")),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": find_processor(),
        "devices": ", ".join(distribution.find_devices()),
        "cpus": str(os.cpu_count()),
    }
