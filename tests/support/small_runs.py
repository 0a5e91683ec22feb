"""A run that takes seconds, and its history."""

import csv
import dataclasses
import json

import pytest

from keras_popup.training import RunConfig

SMALL = RunConfig(model="conv2", width=0.1, epochs=3, batch_size=64, learning_rate=0.5)


def list_flags(run):
    """Returns the flags of `train` for a `RunConfig`, without the strategy."""
    values = {**dataclasses.asdict(run), "strategy": None}
    return [f"--{name}={value}" for name, value in values.items() if value is not None and not isinstance(value, bool)]


def history(folder):
    return list(csv.DictReader((folder / "history.csv").read_text().splitlines()))


def assert_history_is_that_of(folder, whole, summary):
    """Checks that a run equals another up to rounding. Returns its summary."""
    assert len(history(folder)) == len(history(whole))
    for row, expected in zip(history(folder), history(whole), strict=True):
        assert {name: float(value) for name, value in row.items()} == pytest.approx(
            {name: float(value) for name, value in expected.items()}, rel=1e-3
        )
    found = json.loads((folder / "summary.json").read_text())
    assert found["test"] == pytest.approx(summary["test"], rel=1e-3)
    assert found["layers"] == summary["layers"]
    return found
