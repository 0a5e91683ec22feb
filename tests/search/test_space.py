"""What is found wrong with a search before its first trial."""

import dataclasses
import re

import pytest

from keras_popup.search import Range, SearchConfig, trial
from keras_popup.search.space import check_space
from keras_popup.training import RunConfig

pytestmark = pytest.mark.integration


class SameProcess:
    """Measures what a search would, in this process: starting a child process takes seconds."""

    def ask(self, task, seconds):
        return trial.measure(task)


WIDTHS = {"width": (0.1, 0.2)}
IMPOSSIBLE = {
    "width": ({"space": {"width": (0.001, 1.0)}}, {}, "width=0.001 leaves no channel of 300"),
    "k": ({"space": {"k": Range(0.0001, 0.5)}}, {"width": 0.1}, "keeps none of the"),
    "budget": ({"space": WIDTHS, "budget": 1000}, {}, "The smallest possible ticket of width 0.1 takes 1,"),
    "budget, k": ({"space": {"k": Range(1e-5, 1e-4)}, "budget": 9000}, {"width": 0.1}, "keeps none of the"),
    "budget, widths": ({"space": {"width": Range(0.1, 2.0), "k": Range(0.3, 0.7)}, "budget": 5000}, {}, "to 0.1, wh"),
    "budget, kernels": (
        {"space": WIDTHS, "budget": 9000},
        {"kernel_initializer": "he_normal"},
        "A ticket stores the kernels",
    ),
    "budget, some kernels": (
        {"space": {"kernel_initializer": ("signed_constant", "he_normal")}, "budget": 9000},
        {"width": 0.1},
        "A ticket stores the kernels of 'he_normal' themselves",
    ),
    "initializer": ({"space": {"kernel_initializer": ("signed_constant", "odd")}}, {}, "odd"),
    "scaled": (
        {"space": {"kernel_initializer": ("signed_constant", "he_normal")}},
        {"scaled": True},
        "`scaled` needs one of this library's",
    ),
    "devices": ({"space": WIDTHS}, {"devices": "GPU:5,GPU:6"}, "There is no device GPU:5, GPU:6"),
    "validation": ({"space": WIDTHS}, {"validation": 0.0}, "A search chooses by validation images"),
}


@pytest.mark.parametrize(("changes", "run", "message"), IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_check_space_finds_what_cannot_be(changes, run, message):
    config = SearchConfig(**{"run": RunConfig(**{"model": "fc", "epochs": 9, **run}), **changes})
    with pytest.raises(ValueError, match=re.escape(message)):
        check_space(config, SameProcess(), here=True)


def test_check_space_leaves_out_widths_that_do_not_fit(caplog):
    run = RunConfig(model="fc", epochs=9)
    config = SearchConfig(run=run, space={"width": (0.1, 0.5, 4.0), "k": Range(0.3, 0.7)}, budget=5000)
    space, measurement = check_space(config, SameProcess(), here=True)
    assert space == {"width": (0.1, 0.5), "branch": ("sparse", "dense")}
    assert measurement.size_of(dataclasses.replace(run, width=0.5)) == measurement.sizes[0.5, "signed_constant"]
    assert measurement.size_of(dataclasses.replace(run, width=0.7)) is None
    assert "Left out, as no ticket fits into the budget: width 4." in caplog.text


def test_check_space_leaves_out_a_branch_that_does_not_fit():
    space = {"width": (0.1, 0.5), "k": Range(0.4, 0.95)}
    config = SearchConfig(run=RunConfig(model="fc", epochs=9), space=space, budget=2500)
    assert check_space(config, SameProcess(), here=True)[0] == {"width": (0.1, 0.5), "branch": "dense"}
