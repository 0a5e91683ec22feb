"""The tasks that a search sends to other processes, and the answer to the first of them. They are pickled."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from keras_popup.training import RunConfig

if TYPE_CHECKING:  # it imports Keras, which takes seconds
    from keras_popup.tickets import TicketSize


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeasureTask:
    """Asks for a `Measurement`, before the first trial.

    Attributes:
        run: the arguments of a run with the smallest values of the space.
        widths: the widths to measure.
        initializers: the kernel initializers to check.
        selectors: the selectors to check; None is the default of the method.
        fractions: the values of k to check with each of these selectors.
        tickets: whether to measure the tickets.
        here: whether trials run on this machine. If so, its devices are checked.
    """

    run: RunConfig
    widths: tuple[float, ...]
    initializers: tuple[str, ...]
    selectors: tuple[str | None, ...]
    fractions: tuple[float, ...]
    tickets: bool
    here: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measurement:
    """The answer to a `MeasureTask`.

    Attributes:
        sizes: the sizes of tickets by (width, kernel initializer), if they were measured.
    """

    sizes: dict[tuple[float, str], TicketSize]

    def size_of(self, run: RunConfig) -> TicketSize | None:
        """Returns the size of a run's ticket, if it was measured."""
        return self.sizes.get((run.width, run.kernel_initializer))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Budget:
    """The bytes that a trial's ticket may take.

    Attributes:
        bytes: int.
        branch: "sparse" for a k up to 0.5, "dense" for one from 0.5 on.
        low, high: the limits of k.
    """

    bytes: int
    branch: str
    low: float
    high: float

    def find_k(self, size: TicketSize) -> float:
        """Returns the k that fits into the budget. Raises `BudgetError` if none does."""
        return size.fitting_k(self.bytes, self.branch, self.low, self.high)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrialTask:
    """Trains the executions of a trial, or continues them.

    Attributes:
        run: the arguments of the first execution.
        folder: the trial's folder.
        size: the size of the ticket as a function of k; None if it was not measured.
        executions: int, how many training runs.
        until: int, the epoch to stop after; None for all epochs.
        budget: `Budget` that k follows from; None without one.
        test: whether to use the test images.
    """

    run: RunConfig
    folder: Path
    size: TicketSize | None = None
    executions: int = 1
    until: int | None = None
    budget: Budget | None = None
    test: bool = False
