"""Checks a search before its first trial. Values that cannot work in any trial are an error, or are left out."""

import logging
from typing import Protocol

from keras_popup import tickets
from keras_popup.search import ranges
from keras_popup.search.config import BRANCH, SearchConfig
from keras_popup.search.tasks import Measurement, MeasureTask

_logger = logging.getLogger("keras_popup")

_LONGEST_MEASUREMENT = 3600.0  # seconds


class Process(Protocol):
    """A process that answers a `MeasureTask`, such as a `ChildProcess`."""

    def ask(self, task: MeasureTask, seconds: float) -> Measurement: ...


def check_space(config: SearchConfig, process: Process, *, here: bool) -> tuple[dict[str, ranges.Space], Measurement]:
    """Returns the hyperparameters, without widths that cannot fit into the budget, and the sizes of tickets.

    Args:
        config: the search's arguments.
        process: the process that reads the data and builds the networks.
        here: whether trials run on this machine.

    Raises:
        ValueError: if a width or k leaves a layer empty, if a selector cannot have a k or a layer, or if no ticket
            fits into the budget.
        TimeoutError: if reading the data takes too long.
    """
    space = config.hyperparameters()
    widths = ranges.endpoints(space.get("width", config.run.width))
    initializers = ranges.endpoints(config.space.get("kernel_initializer", config.run.kernel_initializer))
    values = {name: min(ranges.endpoints(each)) for name, each in config.space.items()}
    values["kernel_initializer"] = initializers[0]
    fractions = config.space.get("k")
    if config.budget is not None:
        values["k"] = config.k_limits()[1]
        fractions = None  # limits of k, not its values
    run = config.with_values(values)
    task = MeasureTask(
        run=run,
        widths=widths if config.budget is not None else (min(widths),),
        initializers=initializers,
        selectors=ranges.endpoints(config.space.get("selector", config.run.selector)),
        fractions=fractions if isinstance(fractions, tuple) else (),
        tickets=config.budget is not None,
        here=here,
    )
    measurement = process.ask(task, _LONGEST_MEASUREMENT)
    if config.budget is not None:
        sizes = {width: measurement.sizes[width, run.kernel_initializer] for width in widths}
        space = _fit_into_budget(config, space, sizes, config.budget)
    return space, measurement


def branches(config: SearchConfig) -> list[str]:
    """Returns the branches of k that a budget can choose."""
    low, high = config.k_limits()
    return ([tickets.SPARSE] if low < 0.5 else []) + ([tickets.DENSE] if high > 0.5 else [])


def _fit_into_budget(
    config: SearchConfig,
    space: dict[str, ranges.Space],
    sizes: dict[float, tickets.TicketSize],
    budget: int,
) -> dict[str, ranges.Space]:
    """Returns the hyperparameters without the widths and the branch for which no ticket fits."""
    widths = list(sizes)
    low, high = config.k_limits()
    fits: dict[str, list[float]] = {branch: [] for branch in branches(config)}
    smallest = []
    for width, size in sizes.items():
        for branch, of_branch in fits.items():
            try:
                size.fitting_k(budget, branch, low, high)
                of_branch.append(width)
            except tickets.BudgetError as error:
                smallest.append((error.smallest, width, branch))
    fitting = [width for width in widths if any(width in of_branch for of_branch in fits.values())]
    if not fitting or (len(fitting) < len(widths) and isinstance(space.get("width"), ranges.Range)):
        least, width, branch = min(smallest)
        raise ValueError(
            f"`budget` is too small: {budget:,} bytes, for widths {ranges.format_space(tuple(widths))} and k from "
            f"{low:g} to {high:g}. The smallest possible ticket of width {width:g} takes {least:,} bytes, with a "
            f"{branch} mask. "
            + (f"Search widths nearer to {fitting[0]:g}, which fits." if fitting else "Use a larger budget.")
        )
    if left_out := [width for width in widths if width not in fitting]:
        text = ranges.format_space(tuple(left_out))
        _logger.warning("Left out, as no ticket fits into the budget: width %s.", text)
        space["width"] = ranges.normalise_values(fitting)
    # If all widths fit on one branch, a branch on which some do not fit is not tried.
    for_all = tuple(branch for branch, of_branch in fits.items() if of_branch == fitting)
    if BRANCH in space and for_all:
        space[BRANCH] = ranges.normalise_values(for_all)
    return space
