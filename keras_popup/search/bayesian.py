"""Keras Tuner's Bayesian optimization, which can take a trial that it proposed before without searching for it."""

from typing import Any

import keras_tuner
import numpy as np

_STARTS = 50  # of Keras Tuner's search for a trial, each from a random point


class RepeatableBayesianOptimization(keras_tuner.oracles.BayesianOptimizationOracle):
    """Proposes trials as its base class does, or takes them from a record.

    To propose a trial, the base class fits a Gaussian process to all scores, and then searches for its best point. This
    takes seconds, the longer the more trials there are. But all that later proposals see of it are the random numbers
    that were drawn, and the length scale that the fit has found. So a trial with a recorded scale is taken at once, and
    later proposals are as if it had been searched for.

    Attributes:
        length_scale: float, what the fit for the last proposal has found; None for a trial that was drawn at random.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.length_scale: float | None = None
        self._recorded: tuple[dict[str, Any], float] | None = None

    def take_next(self, values: dict[str, Any], length_scale: float) -> None:
        """Takes the next proposal from a record: its values, and what `length_scale` was after it."""
        self._recorded = values, length_scale

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        if self._recorded:
            values, self.length_scale = self._recorded
            self._recorded = None
            self._fit(self.length_scale)
            self._random_state.uniform(size=(_STARTS, len(self._get_hp_bounds())))
            return {"status": "RUNNING", "values": dict(values)}
        before = self._find_kernel()
        answer: dict[str, Any] = super().populate_space(trial_id)
        fitted = self._find_kernel()  # each fit makes a new one
        self.length_scale = None if fitted is before else float(fitted.length_scale)
        return answer

    def _fit(self, length_scale: float) -> None:
        """Fits the process to the scores as the base class does, with a known length scale."""
        points, scores = self._vectorize_trials()  # for a running trial, the score that the last fit expects
        self.gpr = self._make_gpr()
        self.gpr.kernel.set_params(length_scale=length_scale)
        self.gpr.set_params(optimizer=None)
        self.gpr.fit(np.nan_to_num(points, posinf=0, neginf=0), np.nan_to_num(scores, posinf=0, neginf=0))
        self.gpr.set_params(**self._make_gpr().get_params())

    def _find_kernel(self) -> Any:
        return getattr(self.gpr, "kernel_", None)
