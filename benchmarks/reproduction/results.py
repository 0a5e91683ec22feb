"""Reads accuracies from the stored results."""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from reproduction.rows import CHOSEN, GROUPS, METHODS, TRIED, Row, fashion_seeds, narrow_conv4_seeds
from reproduction.store import Record


class Results:
    """The results of the rows. All accuracies are in percent.

    Attributes:
        records: the stored record of each row that ended, by the row's name.
        masked: what trained_masks.py found: a record for each masked network.
    """

    def __init__(self, records: Mapping[str, Record], masked: Sequence[Record] = ()) -> None:
        self.records = records
        self.masked = masked

    def ended(self, row: Row) -> bool:
        return row.name in self.records

    def record(self, row: Row) -> Record | None:
        """Returns the record of a row, if the row ended and its loss stayed finite."""
        found = self.records.get(row.name)
        return None if found is None or found.get("diverged") else found

    def found(self, rows: Iterable[Row]) -> list[Record]:
        """Returns the records of those rows that have one."""
        return [record for row in rows if (record := self.record(row))]

    def accuracies(self, rows: Iterable[Row], of: str = "test") -> list[float]:
        """Returns the accuracies of those rows that have one."""
        return [100 * record[of]["accuracy"] for record in self.found(rows) if record.get(of)]

    def complete(self, rows: Sequence[Row], of: str = "test") -> list[float]:
        """Returns the accuracies if each row has one, else []."""
        found = self.accuracies(rows, of)
        return found if len(found) == len(rows) else []

    def fashion(self, method: str = "edge-popup", of: str = "test", **arguments: Any) -> list[float]:
        """Returns the accuracies on Fashion-MNIST over the seeds if each seed has one, else []."""
        return self.complete(fashion_seeds(method, **arguments), of)

    def best_supermask(self) -> list[float]:
        """Returns the accuracies on Fashion-MNIST of the best variant of the supermask, by its best way of testing."""
        return self._best_supermask(fashion_seeds, METHODS)

    def best_supermask_on_narrow_conv4(self) -> list[float]:
        """The same on the narrow Conv4."""
        return self._best_supermask(narrow_conv4_seeds, TRIED["conv4-narrow"])

    def _best_supermask(self, make: Callable[[str], list[Row]], methods: Iterable[str]) -> list[float]:
        variants = [name for name in methods if name.startswith("supermask")]
        return best_of(self.complete(make(name), of) for name in variants for of in ("test", "test_draws"))

    def at_30_epochs(self, model: str) -> tuple[list[float], list[float], list[float]]:
        """Returns the accuracies of edge-popup, the supermask and learned weights on CIFAR-10, if all rows ended.

        Of several runs of a method the one with the better validation accuracy counts.
        """
        rows = GROUPS[f"{model}-30"]
        if not all(map(self.ended, rows)):
            return [], [], []
        edge, masks, learned = (
            [row for row in rows if row.config.method == method] for method in ("edge-popup", "supermask", "dense")
        )
        best_mask = max(self.complete([row], of) for row in masks for of in ("test", "test_draws"))
        best_edge, best_learned = (
            max(several, key=lambda row: self.complete([row], "validation")) for several in (edge, learned)
        )
        return self.complete([best_edge]), best_mask, self.complete([best_learned])

    def masked_networks(self, criterion: str, treatment: str, k: float) -> list[float]:
        """Returns the accuracies of one kind of masked trained network, one for each seed."""
        kind = criterion, treatment, k
        return [
            100 * record["accuracy"]
            for record in self.masked
            if (record["criterion"], record["treatment"], record["k"]) == kind
        ]


class Rates:
    """The learning rates that were tried for one method, with their validation accuracies.

    Attributes:
        rows: the row of each rate.
        validation: the accuracy of each rate that has one.
        best: the rate of the best accuracy, or None.
        used: the rate that the other rows use.
        best_at_end: whether a rate beyond those that were tried could be better still.
    """

    def __init__(self, results: Results, model: str, method: str, rows: Mapping[float, Row]) -> None:
        self.rows = rows
        accuracies = {rate: results.accuracies([row], "validation") for rate, row in rows.items()}
        self.validation = {rate: values[0] for rate, values in accuracies.items() if values}
        self.best = max(self.validation, key=self.validation.__getitem__, default=None)
        self.used = CHOSEN[model][method]
        ends = min(rows), max(rows)
        self.best_at_end = all(map(results.ended, rows.values())) and self.best in ends


def best_of(several: Iterable[list[float]]) -> list[float]:
    """Returns the accuracies with the highest mean; [] if some are missing."""
    found = list(several)
    return max(found, key=statistics.mean) if all(found) else []


def average(values: Sequence[float]) -> float | None:
    return statistics.mean(values) if values else None


def gap(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Returns how many points the first accuracies are behind the second, on average."""
    return statistics.mean(second) - statistics.mean(first) if first and second else None
