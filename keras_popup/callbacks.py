"""Callbacks of training: schedules of k, and statistics of masks."""

import functools
import importlib.util
import logging
import os
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_popup import conversion, selectors

_logger = logging.getLogger("keras_popup")


class Schedule:
    """A fraction k as a function of the training step: from 1 down to `k` in `steps` steps, where it stays.

    Subclass it for a schedule of your own that is saved with a config, as `keras.optimizers.schedules` are.

    Args:
        k: float in (0, 1], the fraction at the end.
        steps: int, 1 or more, the step at which the end is reached.

    Call arguments:
        step: int, counted from 0.

    Raises:
        ValueError: if `k` is outside (0, 1], or `steps` is not a positive integer.
    """

    def __init__(self, k: float, steps: int) -> None:
        if isinstance(steps, bool) or not isinstance(steps, (int, np.integer)) or steps < 1:
            raise ValueError(f"`steps` must be an integer, 1 or more. Received: {steps=}.")
        self.k = selectors.check_k(k)
        self.steps = int(steps)

    def __call__(self, step: int) -> float:
        raise NotImplementedError(f"{type(self).__name__} must implement __call__(step).")

    def get_config(self) -> dict[str, Any]:
        return {"k": self.k, "steps": self.steps}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Schedule":
        return cls(**config)


@keras.saving.register_keras_serializable("keras_popup")
class Linear(Schedule):
    """k falls in a straight line: `1 - (1 - k) * t / steps`."""

    def __call__(self, step: int) -> float:
        return self.k + (1 - self.k) * (1 - step / self.steps) if step < self.steps else self.k


@keras.saving.register_keras_serializable("keras_popup")
class Cubic(Schedule):
    """k falls quickly at first: `k + (1 - k) * (1 - t / steps)**3`.

    Reference:
        Zhu and Gupta, [To prune, or not to prune](https://arxiv.org/abs/1710.01878).
    """

    def __call__(self, step: int) -> float:
        return self.k + (1 - self.k) * (1 - step / self.steps) ** 3 if step < self.steps else self.k


@keras.saving.register_keras_serializable("keras_popup")
class Geometric(Schedule):
    """k falls by the same factor at every step: `k**(t / steps)`."""

    def __call__(self, step: int) -> float:
        return self.k ** min(1.0, step / self.steps)


SCHEDULES = {"linear": Linear, "cubic": Cubic, "geometric": Geometric}
"""The ready-made schedules, by name."""


class KSchedule(keras.callbacks.Callback):
    """Sets the fraction kept of all masked layers, for every step of training.

    After n steps it is that of step n, with which validation and the trained model go. Steps are batches, counted from
    the first epoch: a training that goes on with `fit(..., initial_epoch=...)` goes on where the schedule was, if Keras
    knows how many steps an epoch has. With `steps_per_execution`, k is that of the first of the steps run at once.

    Args:
        schedule: a function of the step, an int counted from 0, that returns k in (0, 1]: a `Linear`, `Cubic` or
            `Geometric` of this module, your own function, or a `keras.optimizers.schedules.LearningRateSchedule`.

    Raises:
        TypeError: if `schedule` cannot be called.
        ValueError: as training begins if no layer has a k: none is masked, or selectors draw their masks. During
            training if the schedule returns a k that is outside (0, 1], or keeps no weight of a layer.

    Example:

    >>> from keras_popup import callbacks
    >>> schedule = callbacks.Cubic(k=0.3, steps=100)
    >>> [round(schedule(step), 4) for step in (0, 50, 100, 200)]
    [1.0, 0.3875, 0.3, 0.3]
    >>> callback = callbacks.KSchedule(schedule)
    """

    def __init__(self, schedule: Callable[[int], Any]) -> None:
        super().__init__()
        if not callable(schedule):
            raise TypeError(f"`schedule` must be a function of the step that returns k. Received: {schedule!r}.")
        self._schedule = schedule
        self._kernels: list[Any] = []
        self._k = 0.0  # what was set last: to read it from a layer would wait for the device
        self._first_step = self._step = 0

    def on_train_begin(self, logs: Any = None) -> None:
        masked = [kernel for _, kernel in conversion.masked_kernels(self.model)]
        self._kernels = [kernel for kernel in masked if not kernel.selector.draws]
        if not self._kernels:
            have = "draw their masks, and have no k" if masked else "are not masked"
            raise ValueError(f"There is no k to schedule: the layers of model '{self.model.name}' {have}.")
        self._k, self._step = 0.0, 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        # How many batches an epoch has is not known of every dataset.
        self._first_step = epoch * self.params["steps"] if self.params.get("steps") else self._step
        self._set(self._first_step)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._set(self._first_step + batch + 1)

    def _set(self, step: int) -> None:
        self._step = step
        k = _number(self._schedule(step))
        if k != self._k:
            for kernel in self._kernels:
                kernel.k = k
        self._k = k


def _number(value: Any) -> float:
    # The float32 nearest to 0.7 is below it, and would keep 3 of 5 weights instead of 4.
    return float(str(np.float32(value))) if getattr(value, "dtype", None) == np.float32 else float(value)


class MaskStatistics(keras.callbacks.Callback):
    """Records, after every epoch, what became of each mask, and warns of layers that have collapsed.

    Of a masked layer with the path `dense1` in the model:

    - `dense1/changed`: share of the mask that is other than an epoch before.
    - `dense1/threshold`: the smallest magnitude of a score whose weight is kept; 0 if none is.
    - `dense1/kept`: share of the weights that is kept.
    - `dense1/dead_outputs`: number of output channels that no weight is left of.
    - `dense1/kept_rows_min` and `_max`: the smallest and the largest share kept of the weights of one input channel.
    - `dense1/kept_columns_min` and `_max`: likewise, of one output channel.

    They are in the history that `model.fit` returns, and not in its progress line. The masks are those outside of
    training. A layer has collapsed when half of its output channels, or more, have no weight left; it is named once
    in a warning of the log "keras_popup".

    Args:
        log_dir: directory to write them to for TensorBoard, with histograms of the shares of rows and columns. None
            writes none.

    Attributes:
        latest: dict, by the names above, of the last epoch.

    Raises:
        ImportError: if `log_dir` is given and TensorBoard is not installed.
        ValueError: as training begins, if no layer of the model is masked, or if it is not built.

    Example:

    >>> import keras_popup
    >>> statistics = keras_popup.callbacks.MaskStatistics()
    """

    def __init__(self, log_dir: str | os.PathLike[str] | None = None) -> None:
        super().__init__()
        if log_dir is not None and importlib.util.find_spec("tensorboard") is None:
            raise ImportError("Statistics for TensorBoard need it. Install the extra, '.[tuning]', or leave them out.")
        self.latest: dict[str, float] = {}
        self._log_dir = log_dir
        self._masks: dict[str, Any] = {}
        self._collapsed: set[str] = set()

    @functools.cached_property
    def _writer(self) -> Any:
        return tf.summary.create_file_writer(os.fspath(self._log_dir)) if self._log_dir is not None else None

    def on_train_begin(self, logs: Any = None) -> None:
        masked = conversion.masked_kernels(self.model)
        if not masked:
            raise ValueError(f"Model '{self.model.name}' has no masked layer to keep statistics of.")
        if not all(kernel.scores is not None for _, kernel in masked):
            raise ValueError(
                f"Model '{self.model.name}' is not built, so there are no masks yet to compare with. Give it an Input, "
                "or call it on data first."
            )
        self._masks, self._collapsed = {}, set()

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if not self._masks:  # now, and not as training begins: a KSchedule has set its k
            self._masks = {path: _mask(kernel) for path, kernel in conversion.masked_kernels(self.model)}

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.latest = {}
        for path, kernel in conversion.masked_kernels(self.model):
            mask, before = _mask(kernel), self._masks[path]
            self._masks[path] = mask
            shares = _shares(kernel, mask)
            scores = np.abs(kernel.scores.numpy()[mask])
            found = {
                "changed": (mask != before).mean(),
                "threshold": scores.min() if scores.size else 0.0,
                "kept": mask.mean(),
                "dead_outputs": np.count_nonzero(shares["columns"] == 0),
                **{f"kept_{axis}_{of.__name__}": of(values) for axis, values in shares.items() for of in (min, max)},
            }
            self.latest |= {f"{path}/{name}": float(value) for name, value in found.items()}
            self._warn(path, int(found["dead_outputs"]), shares["columns"].size)
            self._write(path, found, shares, epoch)
        if self._writer is not None:
            self._writer.flush()  # a resumed run does not write this epoch again
        history: Any = getattr(self.model, "history", None)
        if history is not None:
            for name, value in self.latest.items():
                history.history.setdefault(name, []).append(value)

    def _warn(self, path: str, dead: int, outputs: int) -> None:
        if 2 * dead < outputs or path in self._collapsed:
            return
        self._collapsed.add(path)
        _logger.warning(
            "Layer '%s' has collapsed: %d of its %d output channels have no weight left. A lower learning "
            "rate, less decay of the scores, or a larger k where there is one, may help.",
            path,
            dead,
            outputs,
        )

    def _write(self, path: str, found: dict[str, Any], shares: dict[str, Any], epoch: int) -> None:
        if self._writer is None:
            return
        with self._writer.as_default(step=epoch):
            for name, value in found.items():
                tf.summary.scalar(f"{path}/{name}", value)
            for axis, values in shares.items():
                tf.summary.histogram(f"{path}/kept_{axis}", values)


def _mask(kernel: Any) -> Any:
    with selectors.without_compiling():
        return kernel.mask().numpy().astype(bool)


def _shares(kernel: Any, mask: Any) -> dict[str, Any]:
    """Returns the shares kept of the weights of each input channel, and of each output channel."""
    rows, columns = kernel.channel_axes()
    every = range(mask.ndim)
    return {
        axis: mask.mean(axis=tuple(set(every) - set(own)), dtype=np.float64).ravel()
        for axis, own in (("rows", rows), ("columns", columns))
    }
