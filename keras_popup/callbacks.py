"""Callbacks for training: schedules of k, and statistics of masks."""

import functools
import importlib.util
import logging
import math
import os
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from keras_popup import conversion, selectors
from keras_popup.layers import MaskedKernel, pick_one_of_each

__all__ = [
    "SCHEDULES",
    "Cubic",
    "Geometric",
    "KSchedule",
    "Linear",
    "MaskStatistics",
    "RestrictSwaps",
    "Schedule",
]

_logger = logging.getLogger("keras_popup")


class Schedule:
    """Base of schedules: k as a function of the training step. It falls from 1 to `k` in `steps` steps, then stays.

    Subclass it to write your own schedule with a config, like those of `keras.optimizers.schedules`.

    Args:
        k: float in (0, 1], the final fraction.
        steps: int, 1 or more, the first step with the final fraction.

    Call arguments:
        step: int, counted from 0.

    Returns:
        float in (0, 1], the fraction at this step.

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
    """k falls in a straight line: `1 - (1 - k) * t / steps` at step t."""

    def __call__(self, step: int) -> float:
        return self.k + (1 - self.k) * (1 - step / self.steps) if step < self.steps else self.k


@keras.saving.register_keras_serializable("keras_popup")
class Cubic(Schedule):
    """k falls fast at first, then more slowly: `k + (1 - k) * (1 - t / steps)**3` at step t.

    Reference:
        Zhu and Gupta, [To prune, or not to prune](https://arxiv.org/abs/1710.01878).
    """

    def __call__(self, step: int) -> float:
        return self.k + (1 - self.k) * (1 - step / self.steps) ** 3 if step < self.steps else self.k


@keras.saving.register_keras_serializable("keras_popup")
class Geometric(Schedule):
    """k falls by the same factor at every step: `k**(t / steps)` at step t."""

    def __call__(self, step: int) -> float:
        return float(self.k ** min(1.0, step / self.steps))


SCHEDULES = {"linear": Linear, "cubic": Cubic, "geometric": Geometric}
"""The ready-made schedules, by name."""


class KSchedule(keras.callbacks.Callback):
    """Sets k, the fraction kept, of all masked layers before every training step.

    Validation and the saved model use the last value of k: after n steps, that is `schedule(n)`. Steps are batches,
    counted from the first epoch. `fit(..., initial_epoch=...)` continues the schedule if Keras knows how many steps an
    epoch has; otherwise the schedule starts again at step 0. With `steps_per_execution`, k is set for the first of the
    steps that run at once, and kept for the others.

    k is a weight. A callback that restores the weights of an earlier step, such as
    `EarlyStopping(restore_best_weights=True)`, restores the larger k of that step with them. A warning says so at the
    end of training. `EarlyStopping(start_from_epoch=callback.end_epoch(steps_per_epoch))` looks at the epochs with the
    final k only.

    Args:
        schedule: a function that takes the step, an int counted from 0, and returns k in (0, 1]: a `Linear`, `Cubic`
            or `Geometric` of this module, your own function, or a
            `keras.optimizers.schedules.LearningRateSchedule`.

    Raises:
        TypeError: if `schedule` cannot be called.
        ValueError: when training begins, if no layer has a k: no layer is masked, or the selectors draw their
            masks. During training, if the schedule returns a k that is outside (0, 1] or keeps no weight of a layer.

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
            raise TypeError(f"`schedule` must be a function that takes the step and returns k. Received: {schedule!r}.")
        self._schedule = schedule
        self._kernels: list[MaskedKernel] = []
        self._k = 0.0  # the last k that was set; reading it from a layer would wait for the device
        self._first_step = self._step = 0

    def on_train_begin(self, logs: Any = None) -> None:
        masked = [kernel for _, kernel in conversion.masked_kernels(self.model)]
        self._kernels = pick_one_of_each(kernel for kernel in masked if not kernel.selector.draws)
        if not self._kernels:
            reason = "the selectors of its layers draw their masks, and ignore k" if masked else "no layer is masked"
            raise ValueError(
                f"Model '{self.model.name}' has no k to schedule: {reason}. Leave KSchedule out, or mask the model "
                "with selector='top_k'."
            )
        self._k, self._step = 0.0, 0
        self._watch_end()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        # For some datasets, Keras does not know how many batches an epoch has.
        self._first_step = epoch * self.params["steps"] if self.params.get("steps") else self._step
        self._set(self._first_step)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._set(self._first_step + batch + 1)

    def _set(self, step: int) -> None:
        self._step = step
        k = _to_float(self._schedule(step))
        if k != self._k:
            for kernel in self._kernels:
                kernel.k = k
        self._k = k

    def end_epoch(self, steps_per_epoch: int) -> int:
        """Returns the first epoch, counted from 0, that ends with the final k.

        Args:
            steps_per_epoch: int, the number of batches in an epoch.

        Raises:
            ValueError: if the schedule does not say when it ends, because it is not a `Schedule` of this module.
        """
        steps = getattr(self._schedule, "steps", None)
        if not isinstance(steps, int):
            raise ValueError(
                "Only a schedule with the attribute `steps` says when it ends, such as callbacks.Cubic. Received: "
                f"{self._schedule!r}."
            )
        return max(0, -(-steps // steps_per_epoch) - 1)

    def _watch_end(self) -> None:
        """Has k checked after the last callback of the training, which may be one that restores weights."""
        # Keras appends the callback History after those of the user.
        history = getattr(self.model, "history", None)
        if not isinstance(history, keras.callbacks.History):
            return

        def end(logs: Any = None) -> None:
            del history.on_train_end  # the method of the class again
            history.on_train_end(logs)
            self._check_end()

        history.on_train_end = end

    def _check_end(self) -> None:
        k = self._kernels[0].k
        final = getattr(self._schedule, "k", self._k)
        if k != self._k:
            _logger.warning(
                "The model has k = %g at the end, and not %g as after the last step: a callback has restored earlier "
                "weights, and their k. Pass start_from_epoch=KSchedule.end_epoch(steps_per_epoch) to EarlyStopping.",
                k,
                self._k,
            )
        elif k != final:
            _logger.warning(
                "The training has ended at k = %g, before the schedule has reached its last k, %g.", k, final
            )


def _to_float(value: Any) -> float:
    # The float32 nearest to 0.7 is less than 0.7. It would keep 3 of 5 weights instead of 4.
    return float(str(np.float32(value))) if getattr(value, "dtype", None) == np.float32 else float(value)


class MaskStatistics(keras.callbacks.Callback):
    """Records statistics of each mask after every epoch, and warns of layers that have collapsed.

    For a masked layer with the path `dense1` in the model:

    - `dense1/changed`: share of the mask's entries that have changed since the last epoch.
    - `dense1/threshold`: the smallest magnitude among the scores of kept weights; 0 if no weight is kept.
    - `dense1/kept`: share of the weights that are kept.
    - `dense1/dead_outputs`: number of output channels without a kept weight.
    - `dense1/kept_rows_min` and `_max`: for each input channel, the share of its weights that are kept: the smallest
      and the largest of these.
    - `dense1/kept_columns_min` and `_max`: the same for output channels.

    All statistics are floats. They are in the history that `model.fit` returns, but not in its progress line. The
    masks are those that the model uses outside of training. A layer has collapsed if half of its output channels or
    more have no kept weight. A warning in the log "keras_popup" names each such layer once.

    Args:
        log_dir: directory for TensorBoard files with the statistics, and with histograms of the shares of input and
            output channels. None writes no files.

    Attributes:
        latest: dict of the statistics of the last epoch, by the names above.

    Raises:
        ImportError: if `log_dir` is given and TensorBoard is not installed.
        ValueError: when training begins, if no layer of the model is masked, or if the model is not built.

    Example:

    >>> import keras_popup
    >>> statistics = keras_popup.callbacks.MaskStatistics()
    """

    def __init__(self, log_dir: str | os.PathLike[str] | None = None) -> None:
        super().__init__()
        if log_dir is not None and importlib.util.find_spec("tensorboard") is None:
            raise ImportError(
                "`log_dir` needs TensorBoard, which is not installed. Install the extra, '.[tuning]', or omit "
                "`log_dir`."
            )
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
            raise ValueError(
                f"Model '{self.model.name}' has no masked layer, so there are no masks to record. Mask it with "
                "keras_popup.mask_model first."
            )
        if not all(kernel.scores is not None for _, kernel in masked):
            raise ValueError(
                f"Model '{self.model.name}' is not built, so it has no masks yet. Give it an Input, or call it on data "
                "first."
            )
        self._masks, self._collapsed = {}, set()

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if not self._masks:  # not in on_train_begin: only now has a KSchedule set k
            self._masks = {path: _read_mask(kernel) for path, kernel in conversion.masked_kernels(self.model)}

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.latest = {}
        for path, kernel in conversion.masked_kernels(self.model):
            mask, before = _read_mask(kernel), self._masks[path]
            self._masks[path] = mask
            kept = mask != 0
            shares = _compute_shares(kernel, kept)
            scores = np.abs(kernel.scores.numpy()[kept])
            statistics: dict[str, Any] = {
                "changed": (mask != before).mean(),
                "threshold": scores.min() if scores.size else 0.0,
                "kept": kept.mean(),
                "dead_outputs": np.count_nonzero(shares["columns"] == 0),
                **{
                    f"kept_{axis}_{limit.__name__}": limit(values)
                    for axis, values in shares.items()
                    for limit in (min, max)
                },
            }
            self.latest |= {f"{path}/{name}": float(value) for name, value in statistics.items()}
            self._warn(path, int(statistics["dead_outputs"]), shares["columns"].size)
            self._write(path, statistics, shares, epoch)
        if self._writer is not None:
            self._writer.flush()  # else a killed run would lose this epoch, which a resumed run does not write again
        history: Any = getattr(self.model, "history", None)
        if history is not None:
            for name, value in self.latest.items():
                history.history.setdefault(name, []).append(value)

    def _warn(self, path: str, dead: int, outputs: int) -> None:
        if 2 * dead < outputs or path in self._collapsed:
            return
        self._collapsed.add(path)
        _logger.warning(
            "Layer '%s' has collapsed: %d of its %d output channels have no weight left. These may help: a lower "
            "learning rate, less weight decay of the scores, or a larger k (if the selector uses k).",
            path,
            dead,
            outputs,
        )

    def _write(self, path: str, statistics: dict[str, Any], shares: dict[str, Any], epoch: int) -> None:
        if self._writer is None:
            return
        with self._writer.as_default(step=epoch):
            for name, value in statistics.items():
                tf.summary.scalar(f"{path}/{name}", value)
            for axis, values in shares.items():
                tf.summary.histogram(f"{path}/kept_{axis}", values)


class RestrictSwaps(keras.callbacks.Callback):
    """Lets only a part of the weights change sides that a training step would exchange.

    Of n weights that enter the mask in a step, the `ceil(rate * n)` with the largest scores do, and as many of those
    that leave it, with the smallest scores. The others get scores right beside the threshold, on the side where they
    were. It is for masks that begin well, such as those of `scores_initializer="magnitude"`.

    It reads all scores after every step, in NumPy, which takes longer than a step of a small network.

    Args:
        rate: float in (0, 1], the part of the exchanges that are made. 1 restricts nothing.

    Raises:
        ValueError: if `rate` is outside (0, 1]; when training begins, if no layer is masked, or a selector is not
            `TopK`.

    Reference:
        Zhang et al., [Lottery Jackpots Exist in Pre-trained Models](https://arxiv.org/abs/2104.08700). There a mask is
        kept beside the scores; here the scores always give the mask.

    Example:

    >>> import keras_popup
    >>> restrict = keras_popup.callbacks.RestrictSwaps(rate=0.1)
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 < rate <= 1:
            raise ValueError(f"`rate` must be a number in (0, 1]. Received: {rate!r}.")
        self.rate = float(rate)
        self._masks: dict[str, NDArray[np.bool_]] = {}

    def on_train_begin(self, logs: Any = None) -> None:
        self._masks = {}
        kernels = conversion.find_kernels(self.model, "RestrictSwaps")
        if other := [(path, kernel) for path, kernel in kernels if not isinstance(kernel.selector, selectors.TopK)]:
            path, kind = other[0][0], type(other[0][1].selector).__name__
            raise ValueError(f"RestrictSwaps is for the selector 'top_k'. Layer '{path}' has the selector {kind}.")

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if not self._masks:  # not in on_train_begin: only now has a KSchedule set k
            masks = conversion.masked_kernels(self.model)
            self._masks = {path: _read_mask(kernel).astype(bool) for path, kernel in masks}

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        for path, kernel in conversion.masked_kernels(self.model):
            self._masks[path] = _undo_swaps(kernel, self._masks[path], self.rate)


def _undo_swaps(kernel: MaskedKernel, before: NDArray[np.bool_], rate: float) -> NDArray[np.bool_]:
    """Changes scores so that only a part of the swaps since the mask `before` remain. Returns the mask."""
    after = _read_mask(kernel).astype(bool)
    entered, left = np.flatnonzero(after & ~before), np.flatnonzero(before & ~after)
    swaps = min(entered.size, left.size)  # the rest follow from another k
    undone = swaps - math.ceil(rate * swaps)
    scores = kernel.scores.numpy()
    flat = scores.reshape(-1)
    sizes = np.abs(flat)
    threshold = sizes[after.reshape(-1)].min() if undone else np.float32(0)
    if not threshold:
        return after
    out = entered[np.argsort(sizes[entered], kind="stable")[:undone]]
    back = left[np.argsort(-sizes[left], kind="stable")[:undone]]
    flat[out] = np.copysign(np.nextafter(threshold, np.float32(0)), flat[out])
    flat[back] = np.copysign(np.nextafter(threshold, np.float32(np.inf)), flat[back])
    kernel.scores.assign(scores)
    after.reshape(-1)[out], after.reshape(-1)[back] = False, True
    return after


def _read_mask(kernel: MaskedKernel) -> NDArray[np.int8]:
    with selectors.without_compiling():
        mask: NDArray[np.int8] = kernel.mask().numpy().astype(np.int8)
    return mask


def _compute_shares(kernel: MaskedKernel, mask: NDArray[np.bool_]) -> dict[str, NDArray[np.float64]]:
    """Returns the share of kept weights for each input channel ("rows") and for each output channel ("columns")."""
    rows, columns = kernel.channel_axes()
    return {
        name: mask.mean(axis=tuple(set(range(mask.ndim)) - set(axes)), dtype=np.float64).ravel()
        for name, axes in (("rows", rows), ("columns", columns))
    }
