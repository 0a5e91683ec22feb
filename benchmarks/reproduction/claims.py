"""The papers' claims: the accuracies that bear on each, and the verdict. results_page.md has the words."""

import itertools
from collections.abc import Sequence

from keras_popup.criteria import CRITERIA
from reproduction.results import Results, average
from reproduction.rows import (
    FRACTIONS,
    FRACTIONS_ON_CIFAR,
    GROUPS,
    IN_30_EPOCHS,
    INITIALIZERS,
    PAPERS,
    RATES_OF_EDGE_POPUP,
    WIDTHS,
    narrow_conv4_seeds,
)
from reproduction.verdicts import Verdict, better, closes, rises, worst

MIDDLE = (0.3, 0.5, 0.7)
"""The k at which masks are best, according to the paper."""

Pair = tuple[list[float], list[float]]
"""Accuracies of edge-popup and of learned weights."""


class Claims:
    """The accuracies and the verdicts, read from the results when they are needed."""

    def __init__(self, results: Results) -> None:
        self._results = results
        self.middle = MIDDLE
        self.zhou = PAPERS["supermask"]
        self.paper = GROUPS["conv2-100"][0].paper
        self.by_k = {k: results.fashion(k=k) for k in FRACTIONS}
        self.pair = results.fashion(), results.fashion("learned weights")
        self.supermask = results.best_supermask()
        self.by_width: dict[float, Pair] = {
            width: (results.fashion(width=width), results.fashion("learned weights", width=width)) for width in WIDTHS
        }
        self.at_30 = {model: results.at_30_epochs(model) for model in IN_30_EPOCHS}
        self.copy, self.original = (
            [results.complete([row]) for row in GROUPS[group]] for group in ("conv2-100", "conv2-100-original")
        )
        self.conv2_by_k, self.conv2_normal_by_k = (
            {
                row.config.k: results.complete([row])
                for row in GROUPS["conv2-15"]
                if row.config.kernel_initializer == name
            }
            for name in INITIALIZERS[:2]
        )
        self.narrow_supermask = results.best_supermask_on_narrow_conv4()
        self.conv4_by_k = {k: results.complete(narrow_conv4_seeds(k=k)) for k in FRACTIONS_ON_CIFAR}
        self.rescaled, self.not_rescaled = (
            results.fashion(name, "test_draws") for name in ("supermask rescaled", "supermask")
        )
        self.by_criterion = {name: results.masked_networks(name, "signed_constant", 0.5) for name in CRITERIA}

    # Masks against masks.

    def beats_supermask(self) -> Verdict:
        return worst(better(self.by_k[k], self.supermask) for k in MIDDLE)

    def beats_supermask_on_cifar(self, model: str) -> Verdict:
        edge, mask, _ = self.at_30[model]
        return worst(better(edge, other) for other in (mask, [PAPERS["supermask"][model]]))

    def beats_supermask_on_narrow_conv4(self) -> Verdict:
        return better(self.conv4_by_k[0.5], self.narrow_supermask)

    def rescaling_helps(self) -> Verdict:
        return better(self.rescaled, self.not_rescaled)

    def same_sign_is_better(self) -> Verdict:
        return better(self.by_criterion["large_final_same_sign"], self.by_criterion["large_final"])

    # Masks against learned weights.

    def within_2_points(self, pair: Pair) -> Verdict:
        return better(*pair, margin=2)

    def reaches_the_paper(self) -> Verdict:
        accuracy = average(self.original[0])
        if accuracy is None:
            return Verdict.NO_RESULT
        return Verdict.YES if accuracy >= self.paper else Verdict.NO

    def gap_closes_with_width(self) -> Verdict:
        return closes(list(self.by_width.values()))

    def doubled_widths(self) -> dict[tuple[float, float], Pair]:
        """Returns, by both widths, edge-popup in a network that is twice as wide as one with learned weights."""
        return {
            (wide, narrow): (self.by_width[wide][0], self.by_width[narrow][1])
            for narrow, wide in itertools.pairwise(WIDTHS)
        }

    def half_is_enough(self) -> Verdict:
        return better(*self.doubled_widths()[WIDTHS[-1], WIDTHS[-2]], margin=0.5)

    def gap_closes_with_depth(self) -> Verdict:
        return closes([(edge, learned) for edge, _, learned in self.at_30.values()])

    # k.

    def top_is_in_the_middle(self) -> Verdict:
        averages = [average(values) for values in self.by_k.values()]
        if None in averages:
            return Verdict.NO_RESULT
        top = averages.index(max(averages))
        several = list(self.by_k.values())
        is_middle = Verdict.YES if FRACTIONS[top] in MIDDLE else Verdict.NO
        return worst([rises(several[: top + 1]), rises(several[top:][::-1]), is_middle])

    def middle_is_better(self, by_k: dict[float, list[float]]) -> Verdict:
        """Returns the verdict for the accuracies of a network by k."""
        return worst(better(by_k[k], by_k[outer]) for k in MIDDLE for outer in (0.1, 0.9))

    # Kernels.

    def kernels(self, *names: str) -> dict[float, Sequence[list[float]]]:
        """Returns the accuracies on Fashion-MNIST of several kernels, by the learning rate."""
        return {
            rate: [self._results.fashion(kernel_initializer=name, learning_rate=rate) for name in names]
            for rate in RATES_OF_EDGE_POPUP
        }

    def kernel_is_better(self, first: str, second: str) -> dict[float, Verdict]:
        """Returns the verdict for each learning rate."""
        return {rate: better(*pair) for rate, pair in self.kernels(first, second).items()}

    def constant_is_better_on_cifar(self) -> Verdict:
        return better(self.conv2_by_k[0.5], self.conv2_normal_by_k[0.5])
