"""What the trials of a search say together."""

import numpy as np
import pytest

from keras_popup.search.statistics import best_so_far, explained_shares


def test_explained_shares_finds_what_mattered():
    random = np.random.default_rng(1)
    values = [{"k": float(k), "width": float(width)} for k in np.linspace(0.1, 0.9, 9) for width in (1, 2, 4)]
    scores = [1 - (each["k"] - 0.5) ** 2 + 0.001 * random.normal() for each in values]
    shares = explained_shares(values, scores)
    assert list(shares) == ["k", "width"]
    assert shares["k"] > 0.6
    assert shares["width"] < 0.05


def test_explained_shares_equals_epsilon_squared():
    values = [{"a": letter, "b": number % 2} for letter in "xyz" for number in range(4)]
    scores = [float(number**2 % 7) for number in range(12)]
    groups = np.array(scores).reshape(3, 4)
    within, total = ((groups - groups.mean(1, keepdims=True)) ** 2).sum(), np.var(scores) * 12
    expected = max(0.0, 1 - within / (12 - 3) / (total / 11))
    assert explained_shares(values, scores)["a"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("values", "scores"),
    [
        ([{"k": 0.1, "w": 1}] * 7, list(range(7))),  # few
        ([{"k": number} for number in range(9)], list(range(9))),  # one hyperparameter
        ([{"k": number, "w": number % 2} for number in range(9)], [0.5] * 9),  # all equal
    ],
)
def test_explained_shares_says_nothing_without_grounds(values, scores):
    assert explained_shares(values, scores) == {}


def test_best_so_far():
    assert best_so_far([0.2, 0.1, 0.5, 0.4]) == [0.2, 0.2, 0.5, 0.5]
    assert best_so_far([]) == []
