"""The command that repeats a search: what it says is read back."""

import shlex

import pytest

from keras_popup import cli
from keras_popup.search import Range, SearchConfig
from keras_popup.search.command import format_command
from keras_popup.training import RunConfig

FC = RunConfig(model="fc")
CONFIGS = [
    SearchConfig(run=FC, space={"k": Range(0.1, 0.9), "width": (0.5, 1.0)}),
    SearchConfig(run=RunConfig(model="fc", epochs=3, seed=7), space={"learning_rate": Range(0.01, 1.0, "log")}),
    SearchConfig(run=FC, space={"width": (0.1, 0.2, 0.5)}, tuner="grid", budget=2500, executions=2, baseline=False),
    SearchConfig(run=FC, space={"selector": ("top_k", "signed"), "l2": (0.0, 1e-4)}, max_trials=4, retries=0),
    SearchConfig(run=FC, space={"k[dense*]": Range(0.1, 0.9), "k": 0.5} | {"k": (0.3, 0.5)}, tuner="random"),
    SearchConfig(run=FC, space={"width": Range(0.1, 1.0), "k": Range(0.2, 0.9)}, budget=9000, tuner="hyperband"),
    SearchConfig(run=RunConfig(model="fc", method="dense"), space={"width": (0.5, 1.0)}),
    SearchConfig(
        run=RunConfig(model="fc", optimizer="adam", learning_rate=0.1),
        space={"learning_rate": (0.001, 0.01)},
        baseline=False,
    ),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: str(dict(config.space)))
def test_format_command_is_read_as_the_same_search(config, monkeypatch):
    taken = []

    def search(given, out, **options):
        taken.append(given)
        raise KeyboardInterrupt

    monkeypatch.setattr("keras_popup.search.search", search)
    _, *arguments = shlex.split(format_command(config.arguments(), "out").replace("\\\n", ""))
    assert cli.main(arguments) == 130
    assert taken[0].arguments() == config.arguments()


def test_the_child_of_a_search_begins_with_the_command_and_ends_with_it(monkeypatch):
    """Both load TensorFlow at the same time. A search that ends before its first trial leaves no process."""
    processes = []

    def search(*_, child, **__):
        processes.append(child._process)
        assert child._process.poll() is None
        raise KeyboardInterrupt

    monkeypatch.setattr("keras_popup.search.search", search)
    assert cli.main(["search", "--k", "0.1,0.5", "--out", "out"]) == 130
    assert processes[0].returncode is not None
