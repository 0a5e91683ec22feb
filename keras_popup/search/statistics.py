"""What the trials of a search say together. Loads no TensorFlow."""

import itertools
import statistics
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

_LEAST = 8  # trials from which on it is said which hyperparameter mattered
_BINS = 4  # of a hyperparameter with many values


def explained_shares(values: Sequence[Mapping[str, Any]], scores: Sequence[float]) -> dict[str, float]:
    """Returns how much of the differences between trials goes with each hyperparameter alone.

    The trials are put into groups by the values of a hyperparameter, four groups of equal size if it has many numbers.
    The share is that of the variance of the scores which lies between the groups, less what groups at random would
    have: epsilon squared, 1 - (n - 1) / (n - groups) * (variance within / variance), and 0 where that is negative.

    Args:
        values: the hyperparameters of each trial.
        scores: the score of each trial.

    Returns:
        Dict from names to shares in [0, 1], the largest first. Empty for fewer than eight trials, fewer than two
        hyperparameters, or scores that are all equal.
    """
    names = list(dict.fromkeys(name for each in values for name in each))
    total = _sum_of_squares(scores)
    if len(scores) < _LEAST or len(names) < 2 or total == 0.0:
        return {}
    shares = {}
    for name in names:
        groups = _group([each.get(name) for each in values], scores)
        if len(groups) < 2 or len(groups) == len(scores):
            continue
        within = sum(_sum_of_squares(group) for group in groups)
        rest = (len(scores) - 1) / (len(scores) - len(groups)) * within / total
        shares[name] = min(1.0, max(0.0, 1.0 - rest))
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def _group(values: Sequence[Any], scores: Sequence[float]) -> list[list[float]]:
    pairs = list(zip(values, scores, strict=True))
    numbers = all(isinstance(value, (int, float)) for value in values)
    if numbers and len(set(values)) > 2 * _BINS:
        pairs.sort(key=lambda pair: pair[0])
        ends = [round(number * len(pairs) / _BINS) for number in range(_BINS + 1)]
        return [[score for _, score in pairs[low:high]] for low, high in itertools.pairwise(ends) if high > low]
    groups: dict[Hashable, list[float]] = {}
    for value, score in pairs:
        groups.setdefault(str(value), []).append(score)
    return list(groups.values())


def _sum_of_squares(scores: Sequence[float]) -> float:
    mean = statistics.fmean(scores)
    return sum((score - mean) ** 2 for score in scores)


def best_so_far(scores: Sequence[float]) -> list[float]:
    """Returns for each trial the best score up to it."""
    best, found = float("-inf"), []
    for score in scores:
        best = max(best, score)
        found.append(best)
    return found
