"""Asks Keras Tuner for trials, and repeats its answers after a kill."""

import logging
import math
import shutil
import sys
import tempfile
import warnings
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from keras_popup.records import StartedRecord
from keras_popup.search import ranges
from keras_popup.search.config import SearchConfig

try:
    import keras_tuner

    from keras_popup.search.bayesian import RepeatableBayesianOptimization
except ImportError as error:
    raise ImportError(
        f"A search needs Keras Tuner. Install the extra: pip install 'keras-popup[tuning]'. ({error})"
    ) from None

_logger = logging.getLogger("keras_popup")

_DEFAULT_TRIALS = 30
_FACTOR = 3  # of Hyperband: a third of the trials continues, for three times as many epochs

OBJECTIVE = "val_accuracy"


class Proposal(NamedTuple):
    """A trial to run.

    Attributes:
        number: int, from 1.
        values: dict, its hyperparameters.
        until: int, the epoch to stop after; None for all epochs.
        root: int, the trial whose run it continues; its own number for a new run.
    """

    number: int
    values: dict[str, Any]
    until: int | None
    root: int


class Ended(Protocol):
    """A trial that has ended, such as a `TrialRecord`."""

    @property
    def trial(self) -> int: ...
    @property
    def score(self) -> float | None: ...
    @property
    def error(self) -> str | None: ...


class Proposals:
    """The trials that Keras Tuner's oracle proposes.

    The oracle's own files are not used. A kill while they are written damages them, and they lack a part of the state
    of Bayesian optimization and grids. Instead, the same questions are asked again in the same order, and the oracle
    gives the same answers. Those of Bayesian optimization take seconds each: all but the last are taken from the
    records. The last is asked for again, and compared.

    Args:
        config: `SearchConfig`.
        space: dict from hyperparameters to the values that each is chosen from.
    """

    def __init__(self, config: SearchConfig, space: Mapping[str, ranges.Space]) -> None:
        self.space = dict(space)
        hp = keras_tuner.HyperParameters()
        self._fixed = {name: each for name, each in space.items() if not isinstance(each, (tuple, ranges.Range))}
        for name, each in space.items():
            ranges.add_hyperparameter(hp, name, each)
        options: dict[str, Any] = {
            "objective": keras_tuner.Objective(OBJECTIVE, "max"),
            "hyperparameters": hp,
            "allow_new_entries": False,
            # Keras Tuner takes 0 as no seed, and neighbouring seeds give it nearly the same trials.
            "seed": 1 + int(np.random.SeedSequence(config.run.seed).generate_state(1)[0]) % (2**31 - 1),
            "max_consecutive_failed_trials": sys.maxsize,  # the search goes on
        }
        self._epochs = epochs = config.run.with_protocol().epochs
        if config.tuner == "hyperband":
            self._oracle = keras_tuner.oracles.HyperbandOracle(max_epochs=epochs, factor=_FACTOR, **options)
        else:
            kinds = {
                "random": keras_tuner.oracles.RandomSearchOracle,
                "grid": keras_tuner.oracles.GridSearchOracle,
                "bayesian": RepeatableBayesianOptimization,
            }
            number = config.max_trials or (None if config.tuner == "grid" else _DEFAULT_TRIALS)
            self._oracle = kinds[config.tuner](max_trials=number, **options)
        self._oracle.verbose = 0
        files = tempfile.mkdtemp()  # the oracle needs a folder; its files are not used
        weakref.finalize(self, shutil.rmtree, files, ignore_errors=True)
        self._oracle._set_project_dir(files, "oracle")
        self._trials: dict[int, Any] = {}
        # How many different trials there are, for the oracle that does not avoid equal ones itself.
        self._finite = self._count() if config.tuner == "bayesian" else None
        self._choices = hp.space
        self.exhausted = False
        self.total = self._total(config)
        if config.tuner == "hyperband" and (count := self._count()) is not None:
            sizes = [self._oracle._get_size(bracket, 0) for bracket in range(self._oracle._get_num_brackets())]
            # The oracle draws at random, and stops for good when it draws equal ones several times in a row.
            if count < 2 * sum(sizes):
                raise ValueError(
                    f"'hyperband' begins with {sum(sizes)} networks for {epochs} epochs, and needs at least twice as "
                    f"many to choose from. The space has {count}. Use 'grid', or give ranges such as 0.1:0.9."
                )

    def _total(self, config: SearchConfig) -> int | None:
        """Returns how many trials there will be at most."""
        if config.tuner == "hyperband":
            brackets = self._oracle._get_num_brackets()
            return sum(int(self._oracle._get_size(b, r)) for b in range(brackets) for r in range(b + 1))
        counts = [self._count(10 if config.tuner == "grid" else None), self._oracle.max_trials]
        return min([count for count in counts if count], default=None)

    def _count(self, of_range: int | None = None) -> int | None:
        """Returns how many different trials there can be; None if there is no limit."""
        choices = [each for name, each in self.space.items() if name not in self._fixed]
        counts = [len(each) if isinstance(each, tuple) else of_range for each in choices]
        return None if None in counts else math.prod(count or 0 for count in counts)

    def propose(self) -> Proposal | None:
        """Returns the next trial, or None if there is none at present. With `exhausted`, there will be none again."""
        if self._finite is not None and len(self._trials) >= self._finite:
            self.exhausted = True
            return None
        return self._ask()

    def _ask(self) -> Proposal | None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of scikit-learn, about a fit to few trials
            trial = self._oracle.create_trial(f"trial {len(self._trials) + 1}")
        if trial.status != "RUNNING":
            self.exhausted = trial.status == "STOPPED"
            return None
        number = len(self._trials) + 1
        self._trials[number] = trial
        if self._finite is not None:
            self._make_new(number, self._finite)
        return self._proposal(number)

    def _make_new(self, number: int, finite: int) -> None:
        """Replaces the values of a trial if they were tried before, which Bayesian optimization proposes again."""
        values = self._trials[number].hyperparameters.values
        tried = [trial.hyperparameters.values for each, trial in self._trials.items() if each != number]
        numbers = np.random.default_rng([self._oracle.seed, number])
        while values in tried and len(tried) < finite:
            values = {each.name: each.values[numbers.integers(len(each.values))] for each in self._choices}
        self._trials[number].hyperparameters.values = values

    def _proposal(self, number: int) -> Proposal:
        values = self._trials[number].hyperparameters.values
        until = values.get("tuner/epochs")
        root = number
        while parent := self._trials[root].hyperparameters.values.get("tuner/trial_id"):
            root = int(parent) + 1
        own = {name: self._fixed.get(name, values.get(name)) for name in self.space}
        own = {name: value for name, value in own.items() if value is not None}
        return Proposal(number, own, None if until in (None, self._epochs) else until, root)

    def tell(self, number: int, score: float | None, error: str | None) -> None:
        """Tells the oracle the score of a trial that has ended, or None for one that has failed."""
        trial = self._trials[number]
        if score is not None:
            self._oracle.update_trial(trial.trial_id, {OBJECTIVE: score})
        trial.status = "FAILED" if score is None else "COMPLETED"
        trial.message = error
        self._oracle.end_trial(trial)

    def replay(self, started: Sequence[StartedRecord], ended: Sequence[Ended]) -> list[Proposal]:
        """Repeats all questions and answers of an earlier start. Returns the trials that have not ended.

        Args:
            started: the records that `record` returned, in order.
            ended: the trials that have ended, in the order in which they did.

        Raises:
            ValueError: if the oracle proposes no trial where it proposed one before, or if a record is missing.
        """
        told = 0
        if self._oracle.max_trials:  # it may be smaller now
            self._oracle.max_trials = max(self._oracle.max_trials, len(started))
        # The oracle's answers depend on nothing else than how many trials had ended before each question.
        for record in started:
            if record.length_scale is not None and record is not started[-1]:
                self._oracle.take_next(record.values, record.length_scale)
            if record.trial != len(self._trials) + 1:
                raise ValueError(_lacks(len(self._trials) + 1))
            if record.after > len(ended):  # a kill leaves no such files
                raise ValueError(
                    f"trials.jsonl lacks trials that had ended before trial {record.trial} began: it has {len(ended)} "
                    f"lines. Delete the lines of started.jsonl whose 'after' is more than {len(ended)}: with --resume, "
                    "their trials are taken from their run folders, or trained again."
                )
            for each in ended[told : record.after]:
                self._tell_again(each)
            told = max(told, record.after)
            proposal = self._ask()
            if proposal is None:
                raise ValueError(
                    f"Keras Tuner {keras_tuner.__version__} does not propose trial {record.trial} again. Use the "
                    "versions that search.json names, or begin in another folder."
                )
            if self._trials[proposal.number].hyperparameters.values != record.values:
                _logger.warning("Keras Tuner proposes another trial %d now. The recorded one counts.", proposal.number)
                self._trials[proposal.number].hyperparameters.values = record.values
        for each in ended[told:]:
            self._tell_again(each)
        done = {each.trial for each in ended}
        return [self._proposal(number) for number in self._trials if number not in done]

    def _tell_again(self, each: Ended) -> None:
        if each.trial not in self._trials:
            raise ValueError(_lacks(each.trial))
        self.tell(each.trial, each.score, each.error)

    def record(self, proposal: Proposal, ended: int) -> StartedRecord:
        """Returns the record from which `replay` repeats this proposal.

        Args:
            proposal: the last proposal.
            ended: how many trials have ended.
        """
        values = self._trials[proposal.number].hyperparameters.values
        length_scale = getattr(self._oracle, "length_scale", None)
        return StartedRecord(trial=proposal.number, after=ended, values=values, length_scale=length_scale)


def _lacks(trial: int) -> str:
    return (
        f"started.jsonl lacks trial {trial}, though later records need it. Delete the lines of trials {trial} and up "
        "in started.jsonl and trials.jsonl: with --resume, they are taken from their run folders, or trained again."
    )
