"""Figures of the page about a search: what they draw, and when they are left out."""

import re

import pytest
from example_records import EXECUTION

from keras_popup.search import figures
from keras_popup.search.figures import Point

HISTORY = [{"epoch": epoch, "val_accuracy": epoch / 10} for epoch in (1, 2, 3)]


def point(trial, accuracy, k=0.5, width=1.0, **more):
    values = {"k": k, "width": width}
    given = {"values": values, "until": None, "accuracies": (accuracy,), "bytes": 100.0 * k * width, "kept": 5}
    given |= {"weights": 10, "layers": EXECUTION.layers, "history": HISTORY, **more}
    return Point(trial=trial, accuracy=accuracy, k=k, width=width, **given)


BY_K = [point(number, 0.9 - abs(k - 0.5), k) for number, k in enumerate((0.1, 0.3, 0.5, 0.7), 1)]
BY_WIDTH = [point(number, 0.8 + width / 100, width=width) for number, width in enumerate((0.5, 1.0, 2.0), 1)]
BOTH = [point(number, number / 10, 0.1 * (number % 4 + 1), 0.5 * (number % 3 + 1)) for number in range(1, 10)]


def trials_of(figure):
    return [int(trial) for trial in re.findall(r'<circle [^>]*data-t="(\d+)"', figure.svg)]


def test_over_k_has_each_trial_the_best_with_a_ring_and_learned_weights():
    figure = figures.over_k(BY_K, {1.0: 0.95})
    assert sorted(trials_of(figure)) == [1, 2, 3, 3, 4]
    assert figure.svg.count('class="best"') == 1
    assert ("line dashed s0", "learned weights") in figure.legend


@pytest.mark.parametrize(
    "figure",
    [
        figures.over_k(BY_WIDTH, {}),
        figures.over_width(BY_K, {}),
        figures.plane(BY_K),
        figures.plane(BY_WIDTH),
        figures.front_of_bytes([point(1, 0.5), point(2, 0.6)], None),
        figures.front_of_bytes([point(number, 0.5, number / 10, bytes=None) for number in range(1, 6)], None),
        figures.best_over_trials(BY_K[:3]),
        figures.spread_of_seeds(BY_K),
        figures.importance({}),
        figures.curves([point(1, 0.5, history=HISTORY[:1])], 1),
        figures.layers(point(1, 0.5, layers=EXECUTION.layers[:1])),
        figures.over_hyperparameter(BY_K, "learning_rate"),
    ],
    ids=range(12),
)
def test_figures_that_would_say_nothing_are_left_out(figure):
    assert figure is None


@pytest.mark.parametrize(
    "figure",
    [
        figures.over_width(BY_WIDTH, {0.5: 0.7, 2.0: 0.9}),
        figures.plane(BOTH),
        figures.front_of_bytes(BY_K, 60),
        figures.best_over_trials(BY_K),
        figures.spread_of_seeds([point(1, 0.5, accuracies=(0.4, 0.6)), point(2, 0.7, accuracies=(0.7, 0.7))]),
        figures.importance({"k": 0.7, "width": 0.1}),
        figures.curves(BY_K, 3),
        figures.layers(point(1, 0.5)),
    ],
    ids=lambda figure: figure.name,
)
def test_figures_have_a_drawing_a_title_and_a_legend_of_known_classes(figure):
    assert figure.svg.startswith("<svg")
    assert figure.title
    kinds = {kind for kind, _ in figure.legend}
    drawn = set(re.findall(r'class="([^"]+)"', figure.svg))
    assert kinds <= drawn | {f"line {kind}" for kind in drawn}


@pytest.mark.parametrize("values", [[0.1, 0.001, 1.0], ["top_k", "signed", "top_k"], [0.0, 0.1, 0.2]])
def test_over_hyperparameter_of_numbers_and_names(values):
    points = [point(number, 0.5, values={"x[a*]": value}) for number, value in enumerate(values, 1)]
    figure = figures.over_hyperparameter(points, "x[a*]")
    assert figure.name == "over-x-a--"
    assert set(trials_of(figure)) == {1, 2, 3}


def test_accuracy_axis_begins_where_most_trials_are():
    points = [point(number, accuracy) for number, accuracy in enumerate([0.1, *[0.88 + i / 1000 for i in range(10)]])]
    axis, text = figures.accuracy_axis(points)
    assert axis.scale.low > 0.8
    assert text.startswith("One trial below 8")


def test_find_front_is_what_no_smaller_ticket_beats():
    points = [
        point(1, 0.5, bytes=10.0),
        point(2, 0.4, bytes=20.0),
        point(3, 0.6, bytes=30.0),
        point(4, 0.6, bytes=40.0),
    ]
    assert [each.trial for each in figures.find_front(points)] == [1, 3]


def test_many_values_have_five_classes():
    points = [point(number, 0.5 + number / 100, k=number / 30) for number in range(1, 25)]
    figure = figures.over_width([*points, point(25, 0.5, width=2.0)], {})
    assert [kind for kind, _ in figure.legend] == ["q0", "q1", "q2", "q3", "q4"]
