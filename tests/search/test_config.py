"""The arguments of a search. Nothing is trained."""

import dataclasses
import re

import pytest
from searches import FC

from keras_popup import training
from keras_popup.search import SEARCHED, Range, SearchConfig
from keras_popup.training import RunConfig

K = {"k": Range(0.1, 0.9)}
WIDTH = {"width": (0.5, 1.0)}

BAD_SEARCHES = {
    "nothing": ({}, "nothing to search"),
    "nothing but fixed": ({"space": {"k[a]": 0.5}}, "nothing to search"),
    "no values": ({"space": {"k": ()}}, "Expected different values"),
    "one value twice": ({"space": {"k": (0.1, 0.1)}}, "Expected different values"),
    "one value": ({"space": {"k": (0.1,)}}, "`k` has one value only"),
    "budget and k": ({"budget": 9999, "run": dataclasses.replace(FC, k=0.3)}, "k follows from the width"),
    "k = 0": ({"space": {"k": Range(0.0, 0.5)}}, "must be a number in (0, 1]. Received: k=0.0"),
    "k > 1": ({"space": {"k": (0.5, 1.5)}}, "must be a number in (0, 1]. Received: k=1.5"),
    "width": ({"space": {"width": (0.0, 1.0)}}, "`width` must be a positive number"),
    "a number": ({"space": {"k": 0.5, **WIDTH}}, "must be a range, or a tuple"),
    "a name": ({"space": {"momentum": (0.5, 0.9)}}, "A search chooses k, width"),
    "a layer, twice": (
        {"space": {"k[conv*]": (0.5, 0.6)}, "run": dataclasses.replace(FC, k={"*": 0.3})},
        "Give fixed fractions as k[PATTERN] too",
    ),
    "a layer": (
        {"space": {"k[conv*]": (0.5, 2.0)}},
        "Layers 'conv*': `k`, the fraction",
    ),
    "tuner": ({"space": K, "tuner": "annealing"}, "`tuner` must be one of random, grid, bayesian, hyperband"),
    "trials": ({"space": K, "max_trials": 0}, "`max_trials` must be from 1 to"),
    "hyperband": ({"space": K, "tuner": "hyperband", "max_trials": 9}, "Leave `max_trials` out"),
    "executions": ({"space": K, "executions": 0}, "`executions` must be from 1 to"),
    "retries": ({"space": K, "retries": -1}, "`retries` must be from 0 to 1,000"),
    "budget": ({"budget": 0}, "`budget` must be a number of bytes"),
    "budget, layers": ({"budget": 9999, "space": {"k[a]": (0.1, 0.2)}}, "one k in all layers"),
    "budget, dense": ({"budget": 9999, "run": dataclasses.replace(FC, method="dense")}, "Leave `method`"),
    "dense": (
        {"space": K, "run": dataclasses.replace(FC, method="dense")},
        "Networks with learned weights",
    ),
    "supermask and k": ({"space": K, "run": dataclasses.replace(FC, method="supermask")}, "`k` must be left out"),
    "supermask, budget": ({"budget": 9999, "run": dataclasses.replace(FC, method="supermask")}, "or bernoulli"),
    "bernoulli and k": ({"space": {**K, "selector": ("top_k", "bernoulli")}}, "Leave `k` and `budget` out"),
    "n_m": ({"space": K, "run": dataclasses.replace(FC, selector="n_m:m=2")}, "n_m has few values of k"),
    "n_m among others": ({"space": {**K, "selector": ("top_k", "n_m")}}, "Give values, such as 0.25,0.5"),
    "random": (
        {"space": {"learning_rate": (0.1, 0.2)}, "run": dataclasses.replace(FC, method="random")},
        "'random' learns nothing",
    ),
    "multiworker": ({"space": K, "run": dataclasses.replace(FC, strategy="multiworker")}, "on one machine"),
    "adam": ({"space": K, "run": dataclasses.replace(FC, optimizer="adam")}, "`optimizer`='adam' has no protocol"),
    "seeds": (
        {"space": K, "run": dataclasses.replace(FC, seed=2**32 - 1), "executions": 2},
        "`seed` must be at most",
    ),
}


@pytest.mark.parametrize(("arguments", "message"), BAD_SEARCHES.values(), ids=BAD_SEARCHES)
def test_search_config_refuses_what_cannot_be_searched(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        SearchConfig(**{"run": FC, **arguments})


def test_search_config_gives_fractions_of_layers_to_a_run():
    search = SearchConfig(run=FC, space={"k[dense*]": Range(0.1, 0.9), "k[*]": 0.5})
    run = search.with_values({"k[dense*]": 0.25, "k[*]": 0.5})
    assert list(run.k.items()) == [("dense*", 0.25), ("*", 0.5)]
    search = SearchConfig(run=FC, space={"k[dense*]": Range(0.1, 0.9), "k": (0.3, 0.4)})
    run = search.with_values({"k": 0.3, "k[dense*]": 0.25})
    assert list(run.k.items()) == [("dense*", 0.25), ("*", 0.3)]


@pytest.mark.parametrize(
    ("layer_k", "k", "space"),
    [
        ("dense*=0.1", {"dense*": 0.1, "*": 0.5}, {"k[dense*]": Range(0.1, 0.9)}),
        ("dense*=0.1;*=0.4", {"dense*": 0.1, "*": 0.4}, {"k[dense*]": Range(0.1, 0.9), "k[*]": 0.4}),
        ("dense*=0.1", "0.2:0.3", {"k[dense*]": Range(0.1, 0.9), "k": Range(0.2, 0.3)}),
        (None, 0.5, WIDTH),
    ],
)
def test_search_config_has_arguments_of_an_earlier_version(layer_k, k, space):
    """It had the fractions of layers as text beside k."""
    arguments = SearchConfig(run=FC, space=space).arguments()
    assert arguments["k"] == k
    recorded = {**arguments, "k": k if isinstance(k, str) else 0.5, "layer_k": layer_k}
    assert training.read_arguments(recorded) == arguments


def test_learned_weights_have_nothing_of_masks():
    of_all = {"mask_statistics": "history", "kernel_initializer": "xavier_normal", "scaled": True, "learning_rate": 0.3}
    for more in ({"k_schedule": "cubic", "k_schedule_end": 0.5}, {"k": {"dense*": 0.4, "*": 0.3}}):
        run = dataclasses.replace(FC, **of_all, **more)
        learned = SearchConfig(run=run, space={"width": (0.1, 0.2)}).learned_weights()
        assert learned == dataclasses.replace(FC, method="dense")


def test_searched_are_arguments_of_a_run():
    names = {field.name for field in dataclasses.fields(RunConfig)}
    assert set(SEARCHED) < names
