"""Schedules of k during training."""

import logging
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_popup import conversion, selectors
from keras_popup.layers import MaskedKernel, pick_one_of_each

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

    A selector that cannot have every k, such as `NM`, gets the nearest that it can have.

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
        k = selectors.check_k(self._schedule(step))
        if k != self._k:
            for kernel in self._kernels:
                kernel.k = kernel.round_k(k)
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
        kernel = self._kernels[0]
        k, last = kernel.k, kernel.round_k(self._k)
        final = kernel.round_k(getattr(self._schedule, "k", self._k))
        if k != last:
            _logger.warning(
                "The model has k = %g at the end, and not %g as after the last step: a callback has restored earlier "
                "weights, and their k. Pass start_from_epoch=KSchedule.end_epoch(steps_per_epoch) to EarlyStopping.",
                k,
                last,
            )
        elif k != final:
            _logger.warning(
                "The training has ended at k = %g, before the schedule has reached its last k, %g.", k, final
            )
