"""`SearchConfig`: the arguments of a search, each with its help and its range. Loads no TensorFlow."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from keras_popup.search import ranges
from keras_popup.training import MOST, OF_MASKS, PLACES, RunConfig, between, check_options, option

SEARCHED = ("k", "width", "learning_rate", "l2", "kernel_initializer", "selector")
"""The arguments of a run that a search can choose. "k[PATTERN]" is the k of some layers."""

EXTENSIBLE = (*PLACES, "max_trials", "baseline", "retries")
"""Arguments that may differ when a search is resumed."""

BRANCH = "branch"
"""The hyperparameter that stands for k where a budget is given: "sparse" or "dense"."""


def layer_k_name(pattern: str) -> str:
    """Returns the name of the hyperparameter for the k of some layers."""
    return f"k[{pattern}]"


def layer_k_pattern(name: str) -> str | None:
    """Returns the pattern of layers in the name of a hyperparameter; None for another hyperparameter."""
    return name[2:-1] if name.startswith("k[") and name.endswith("]") else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """The arguments of a search.

    Args:
        run: `RunConfig`, the arguments that all trials share. Its seed is the seed of the search: execution number i
            of every trial has the seed `run.seed + i`, so trials differ in their hyperparameters only.
        space: dict from names in `SEARCHED`, or "k[PATTERN]", to the values to choose from: a tuple of values, or a
            `keras_popup.search.Range`. For "k[PATTERN]" a single number is allowed too. With a budget, "k" is the
            limits of k, (0, 1] if it is left out.
        tuner, max_trials, executions, budget, baseline, retries: as their help says.

    Raises:
        ValueError: if an argument, or a value in the space, is out of its range.

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
        "How Keras Tuner chooses the next trial. 'grid' tries all values (ten of a range). 'hyperband' begins with few "
        "epochs and continues the best trials.",
        ("random", "grid", "bayesian", "hyperband"),
    )
    max_trials: int | None = option(
        None,
        "How many trials. If left out, 30, and all for 'grid'. For 'hyperband' it follows from the epochs.",
        bounds=between(1, MOST),
    )
    executions: int = option(
        1, "Training runs of each trial, each with its own seed. Their mean counts.", bounds=between(1, 1000)
    )
    budget: int | None = option(
        None,
        "The most bytes that the ticket may take, such as 100kB. k then follows from the width: it is the largest k up "
        "to 0.5 that fits, or the smallest k from 0.5 on.",
        bounds=between(1, 1 << 40, "a number of bytes, from 1 to 1 TiB"),
    )
    baseline: bool = option(True, "Whether to train the same networks with learned weights at the end.")
    retries: int = option(2, "How often a trial is continued after its process has died.", bounds=between(0, 1000))

    def __post_init__(self) -> None:
        check_options(self, SearchConfig)
        if self.budget is None and all(isinstance(each, (int, float)) for each in self.space.values()):
            raise ValueError("There is nothing to search. Give a range, such as --k 0.1:0.9 or --width 0.5,1,2.")
        if self.run.method == "finetune":
            raise ValueError("A search finds masks, and 'finetune' has those of a run. Finetune the winner instead.")
        if self.run.method == "dense" and any(name not in ("width", "learning_rate", "l2") for name in self.space):
            raise ValueError(
                "Networks with learned weights have a width, a learning rate and L2 to search. "
                f"Received: {list(self.space)}."
            )
        for name, space in self.space.items():
            self._check_space(name, space)
        if self.max_trials is not None and self.tuner == "hyperband":
            raise ValueError("The number of trials of 'hyperband' follows from the epochs. Leave `max_trials` out.")
        if self.run.strategy == "multiworker":
            raise ValueError("A trial is trained on one machine. Leave `strategy` out, and see `ray_address`.")
        if self.run.seed + self.executions > 2**32:
            raise ValueError(
                f"`seed` must be at most 2**32 - {self.executions} for {self.executions} executions. "
                f"Received: {self.run.seed}."
            )
        self._check_k()
        self.arguments()  # raises an error if the protocol is missing
        if self.baseline:
            self.learned_weights()

    def _check_k(self) -> None:
        """Checks that k is given in one way only: as an argument, as a space, or by a budget."""
        per_layer = isinstance(self.run.k, dict) or any(layer_k_pattern(name) is not None for name in self.space)
        draws = self.run.draws or "bernoulli" in self._list_selectors()
        if draws and (self.budget is not None or per_layer or "k" in self.space or self.run.k != RunConfig.k):
            raise ValueError("bernoulli learns how many weights are kept. Leave `k` and `budget` out, or bernoulli.")
        if self.budget is None:
            return
        if self.run.method == "dense" or per_layer:
            raise ValueError(
                "A budget needs masks with one k in all layers. Leave `method` and fractions of layers out."
            )
        if "selector" in self.space or self._has_n_m() or self.run.redraw_every:
            raise ValueError(
                "With a budget, k follows from the size of tickets. Give one selector, other than n_m, which has few "
                "values of k. Leave `redraw_every` out: its bits are known after training only."
            )
        if self.run.k != RunConfig.k:
            raise ValueError("With a budget, k follows from the width. Give a range of k as limits, or leave k out.")

    def _list_selectors(self) -> tuple[str, ...]:
        return ranges.endpoints(self.space.get("selector", self.run.selector or "top_k"))

    def _has_n_m(self) -> bool:
        return any(name.startswith("n_m") for name in self._list_selectors())

    def _check_space(self, name: str, space: ranges.Space) -> None:
        pattern = layer_k_pattern(name)
        is_of_k = name == "k" or pattern is not None
        if pattern is None and name not in SEARCHED:
            raise ValueError(f"A search chooses {', '.join(SEARCHED)} or k[PATTERN]. Received: {name!r}.")
        if is_of_k and isinstance(self.run.k, dict):
            raise ValueError("`run` must have no dict of k if k is searched. Give fixed fractions as k[PATTERN] too.")
        if not isinstance(space, (tuple, ranges.Range)) and (pattern is None or not isinstance(space, (int, float))):
            raise ValueError(f"`{name}` must be a range, or a tuple of values. Received: {space!r}.")
        if isinstance(space, tuple) and ranges.normalise_values(space) != space:
            raise ValueError(f"`{name}` has one value only. Give it to `run`. Received: {space!r}.")
        for value in ranges.endpoints(space):
            self.with_values({name: value})
        if is_of_k and isinstance(space, ranges.Range) and self._has_n_m():
            raise ValueError(
                "n_m has few values of k: N / M. Give values, such as 0.25,0.5, or leave n_m out. Received: "
                f"{name} from {space}."
            )

    def k_limits(self) -> tuple[float, float]:
        """Returns the smallest and the largest k that a budget may choose."""
        limits = ranges.endpoints(self.space.get("k", (0.0, 1.0)))
        return min(limits), max(limits)

    def with_values(self, values: Mapping[str, Any]) -> RunConfig:
        """Returns the configuration of a run with these hyperparameters."""
        named = {name: value for name, value in values.items() if name in SEARCHED}
        patterns = {name: layer_k_pattern(name) for name in values}
        of_layers = {pattern: values[name] for name, pattern in patterns.items() if pattern is not None}
        if of_layers:
            named["k"] = of_layers if "*" in of_layers else {**of_layers, "*": named.get("k", self.run.k)}
        return dataclasses.replace(self.run, **named)

    def learned_weights(self) -> RunConfig:
        """Returns the configuration of the same network with learned weights, with the protocol for them."""
        protocol = ("optimizer", "learning_rate", "momentum", "l2", "schedule")
        arguments = self.run.to_json()
        for name in (*protocol, "selector", *OF_MASKS):
            del arguments[name]
        return RunConfig(**{**arguments, "method": "dense"})

    def hyperparameters(self) -> dict[str, ranges.Space]:
        """Returns the space of the tuner. With a budget, the branch of k takes the place of k."""
        if self.budget is None:
            return dict(self.space)
        space = {name: each for name, each in self.space.items() if name != "k"}
        low, high = self.k_limits()
        if low < 0.5 < high:
            space[BRANCH] = ("sparse", "dense")
        return space

    def arguments(self) -> dict[str, Any]:
        """Returns all arguments as search.json records them: ranges are text."""
        own = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in ("run", "space")}
        space = {name: ranges.format_space(each) for name, each in self.space.items()}
        some = self.with_values({name: ranges.endpoints(each)[0] for name, each in self.space.items()})
        return {**some.with_protocol().to_json(), **own, **space}
