"""`SearchConfig`: the one place where the arguments of a search live. Loads no TensorFlow."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from keras_popup.search import ranges
from keras_popup.training import OF_MASKS, PLACES, RunConfig, check_options, option

SEARCHED = ("k", "width", "learning_rate", "l2", "kernel_initializer", "selector")
"""The arguments of a run that a search may choose. Beside these, "k[PATTERN]" is the k of some layers."""

EXTENSIBLE = (*PLACES, "max_trials", "baseline", "retries")
"""Arguments of a search that may differ when it goes on."""

BRANCH = "branch"
"""The hyperparameter that stands for k where a budget is given: "sparse" or "dense"."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """The arguments of a search.

    Args:
        run: `RunConfig`, what is the same in all trials. Its seed is that of the search: execution number i of
            every trial has `run.seed + i`, so that trials differ in nothing but their hyperparameters.
        space: dict from names in `SEARCHED`, or "k[PATTERN]", to what is chosen from: a tuple of values, or a
            `keras_popup.search.Range`; for "k[PATTERN]" one number as well. With a budget, "k" is the limits
            of k, (0, 1] if it is left out.
        tuner, max_trials, executions, budget, baseline, retries: as their texts say.

    Raises:
        ValueError: if an argument, or any value in the space, is out of its range.

    Example:

    >>> from keras_popup.training import RunConfig
    >>> from keras_popup.search import SearchConfig
    >>> from keras_popup.search import Range
    >>> config = SearchConfig(run=RunConfig(model="fc"), space={"k": Range(0.1, 0.9), "width": (0.5, 1.0)})
    >>> config.arguments()["k"]
    '0.1:0.9'
    """

    run: RunConfig = dataclasses.field(default_factory=RunConfig)
    space: Mapping[str, ranges.Space] = dataclasses.field(default_factory=dict)
    tuner: str = option(
        "bayesian",
        "How Keras Tuner chooses the next trial. 'grid' tries all values (ten of a range), 'hyperband' begins with "
        "few epochs and goes on with the best.",
        ("random", "grid", "bayesian", "hyperband"),
    )
    max_trials: int | None = option(
        None, "How many trials. 30 if not given, all for 'grid'; 'hyperband' has a number of its own, by the epochs."
    )
    executions: int = option(1, "Runs of each trial, with seeds of their own. Their mean counts.")
    budget: int | None = option(
        None,
        "Bytes that the ticket may take, such as 100kB. k follows from the width then: the largest up to 0.5 that "
        "fits, or the smallest from 0.5 on.",
    )
    baseline: bool = option(True, "Whether the same networks with learned weights are trained at the end.")
    retries: int = option(2, "How often a trial goes on whose process has died.")

    def __post_init__(self) -> None:
        if self.budget is None and all(isinstance(each, (int, float)) for each in self.space.values()):
            raise ValueError("There is nothing to search. Give a range, such as --k 0.1:0.9 or --width 0.5,1,2.")
        check_options(self)
        if self.run.method == "dense" and any(name not in ("width", "learning_rate", "l2") for name in self.space):
            raise ValueError(f"Learned weights have a width, a learning rate and L2. Received: {list(self.space)}.")
        for name, space in self.space.items():
            self._check_space(name, space)
        for name, least in (("executions", 1), ("retries", 0)):
            if type(getattr(self, name)) is not int or getattr(self, name) < least:
                raise ValueError(f"`{name}` must be {least} or more. Received: {name}={getattr(self, name)!r}.")
        if self.max_trials is not None and (type(self.max_trials) is not int or self.max_trials < 1):
            raise ValueError(f"`max_trials` must be 1 or more. Received: {self.max_trials!r}.")
        if self.max_trials is not None and self.tuner == "hyperband":
            raise ValueError("The number of trials of 'hyperband' follows from the epochs. Leave `max_trials` out.")
        if self.run.strategy == "multiworker":
            raise ValueError("A trial is trained on one machine. Leave `strategy` out, and see `ray_address`.")
        if self.run.seed + self.executions > 2**32:
            raise ValueError(f"`seed` leaves no room for {self.executions} executions. Received: {self.run.seed}.")
        draws = self.run.draws or "bernoulli" in ranges.ends(self.space.get("selector", "top_k"))
        has_k = self.budget is not None or any(name == "k" or name.startswith("k[") for name in self.space)
        if draws and (has_k or self.run.k != RunConfig.k):
            raise ValueError("bernoulli learns how many weights are kept. Leave `k` and `budget` out, or bernoulli.")
        if self.budget is not None:
            if type(self.budget) is not int or self.budget < 1:
                raise ValueError(f"`budget` must be a number of bytes. Received: {self.budget!r}.")
            if self.run.method == "dense" or self.run.layer_k or any(name.startswith("k[") for name in self.space):
                raise ValueError("A budget is for tickets with one k in all layers. Leave `method` and `layer_k` out.")
            if self.run.k != RunConfig.k:
                raise ValueError("With a budget, k follows from the width. Give a range of k, as limits, or none.")
        self.arguments()  # a protocol that is missing is an error
        if self.baseline:
            self.learned_weights()

    def _check_space(self, name: str, space: ranges.Space) -> None:
        pattern = name[2:-1] if name.startswith("k[") and name.endswith("]") else None
        if pattern is None and name not in SEARCHED:
            raise ValueError(f"A search chooses {', '.join(SEARCHED)} or k[PATTERN]. Received: {name!r}.")
        if not isinstance(space, (tuple, ranges.Range)) and (pattern is None or not isinstance(space, (int, float))):
            raise ValueError(f"`{name}` must be a range, or a tuple of values. Received: {space!r}.")
        if isinstance(space, tuple) and ranges.several(space) != space:
            raise ValueError(f"`{name}` has one value only. Give it to `run`. Received: {space!r}.")
        for value in ranges.ends(space):
            self.with_values({name: value})
        if pattern is not None and self.run.layer_k is not None:
            raise ValueError("`layer_k` is chosen by the search. Give fixed fractions as k[PATTERN] too.")

    def k_limits(self) -> tuple[float, float]:
        """Returns the least and the largest k that are allowed."""
        limits = ranges.ends(self.space.get("k", (0.0, 1.0) if self.budget is not None else self.run.k))
        return min(limits), max(limits)

    def with_values(self, values: Mapping[str, Any]) -> RunConfig:
        """Returns the configuration of a run with these hyperparameters."""
        fractions = {name[2:-1]: value for name, value in values.items() if name.startswith("k[")}
        named = {name: value for name, value in values.items() if name in SEARCHED}
        if fractions:
            named["layer_k"] = ";".join(f"{pattern}={ranges.written(k)}" for pattern, k in fractions.items())
        return dataclasses.replace(self.run, **named)

    def learned_weights(self) -> RunConfig:
        """Returns the configuration of the same network with learned weights, by the protocol of that."""
        protocol = ("optimizer", "learning_rate", "momentum", "l2", "schedule")
        defaults: dict[str, Any] = {name: getattr(RunConfig, name) for name in (*protocol, "selector", *OF_MASKS)}
        return dataclasses.replace(self.run, method="dense", **defaults)

    def hyperparameters(self) -> dict[str, ranges.Space]:
        """Returns what a tuner chooses: the space, but with a budget the branch of k in place of k."""
        space = {name: each for name, each in self.space.items() if self.budget is None or name != "k"}
        low, high = self.k_limits()
        if self.budget is not None and low < 0.5 < high:
            space[BRANCH] = ("sparse", "dense")
        return space

    def arguments(self) -> dict[str, Any]:
        """Returns all arguments, as they are recorded: ranges as their text."""
        own = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in ("run", "space")}
        space = {name: ranges.written(each) for name, each in self.space.items()}
        some = self.with_values({name: ranges.ends(each)[0] for name, each in self.space.items()})
        return {**dataclasses.asdict(some.with_protocol()), **own, **space}
