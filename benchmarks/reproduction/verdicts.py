"""Judges whether accuracies, in percent, are better than others."""

import enum
import itertools
import math
import statistics
from collections.abc import Iterable, Sequence

from reproduction.results import gap

SINGLE_SEED_MARGIN = 1.0
"""The least difference, in points, at which two single runs count as different.

It is two standard errors where two networks differ on 25 % of 10,000 images: 2 sqrt(0.25 / 10,000).
"""

Accuracies = Sequence[float]


class Verdict(enum.IntEnum):
    """What the results say of a claim. Of several verdicts the largest counts."""

    YES = 0
    NOT_TOLD_APART = 1
    NO = 2
    NO_RESULT = 3


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """Returns the verdict on a claim that consists of several."""
    return max(verdicts)


def better(first: Accuracies, second: Accuracies, margin: float = 0.0) -> Verdict:
    """Judges whether the first accuracies are better than the second less a margin, in points."""
    if not (first and second):
        return Verdict.NO_RESULT
    return _positive(statistics.mean(first) + margin - statistics.mean(second), first, second)


def rises(several: Sequence[Accuracies]) -> Verdict:
    """Judges whether accuracies rise at each step."""
    return worst(better(later, earlier) for earlier, later in itertools.pairwise(several))


def closes(pairs: Sequence[tuple[Accuracies, Accuracies]]) -> Verdict:
    """Judges whether the gap from the first accuracies up to the second gets smaller at each step.

    If the first are better anywhere, the second do not measure what can be reached: the claim is not told apart.
    """
    if any(better(first, second) is Verdict.YES for first, second in pairs):
        return Verdict.NOT_TOLD_APART
    return worst(_smaller_gap(later, earlier) for earlier, later in itertools.pairwise(pairs))


def _smaller_gap(pair: tuple[Accuracies, Accuracies], other: tuple[Accuracies, Accuracies]) -> Verdict:
    gaps = gap(*other), gap(*pair)
    if gaps[0] is None or gaps[1] is None:
        return Verdict.NO_RESULT
    return _positive(gaps[0] - gaps[1], *other, *pair)


def _positive(difference: float, *runs: Accuracies) -> Verdict:
    """Judges whether a sum and difference of mean accuracies is more than 0.

    It must differ from 0 by two of its standard errors. Where a mean is of a single seed, it must differ by
    `SINGLE_SEED_MARGIN` if it is of two means, and by more if it is of more.
    """
    least = SINGLE_SEED_MARGIN * math.sqrt(len(runs) / 2)
    if all(len(values) > 1 for values in runs):
        least = 2 * math.sqrt(sum(statistics.variance(values) / len(values) for values in runs))
    if abs(difference) < least:
        return Verdict.NOT_TOLD_APART
    return Verdict.YES if difference > 0 else Verdict.NO
