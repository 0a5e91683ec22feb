"""What is searched: ranges, the arguments of a search, budgets, proposals and their replay. Nothing is trained."""

import dataclasses
import json
import math
import random
import re
from typing import NamedTuple

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from tables import TUNERS

from keras_popup import training
from keras_popup.records import StartedRecord
from keras_popup.search import SEARCHED, Range, SearchConfig, ranges, ray_workers
from keras_popup.search.proposals import Proposals
from keras_popup.search.runner import Runner
from keras_popup.search.tasks import TrialTask
from keras_popup.tickets import size
from keras_popup.training import RunConfig

NUMBERS = st.floats(-1e6, 1e6).filter(lambda value: value == 0 or abs(value) > 1e-6)


@given(NUMBERS, NUMBERS, st.booleans())
def test_a_range_is_read_as_written(low, high, log):
    assume(low < high and (not log or low > 0))
    space = Range(low, high, "log" if log else "linear")
    assert ranges.parse_values(ranges.format_space(space)) == space


@given(st.lists(NUMBERS, min_size=1, max_size=6, unique=True))
def test_values_are_read_as_written(values):
    space = ranges.normalise_values(values)
    assert ranges.parse_values(ranges.format_space(space)) == space
    assert set(ranges.endpoints(space)) == set(values)


@given(st.integers(2, 50), st.integers(1, 20))
@example(15, 64)
def test_steps_end_at_the_end(steps, thousandths):
    end = f"{0.02 + steps * thousandths / 1000:.6f}"
    space = ranges.parse_values(f"0.02:{end}:{thousandths / 1000}")
    assert len(space) == steps + 1
    assert space[-1] == pytest.approx(float(end), abs=1e-9)


@pytest.mark.parametrize(
    "text",
    ["", "a", "0.5,", "0.5,0.5", "0.9:0.1", "0.5:0.5", "0:x", "0.1:0.9:0", "0.1:0.9:2", "0.1:0.9:-1", "0:1:log"],
)
def test_bad_ranges(text):
    with pytest.raises(ValueError, match="Received"):
        ranges.parse_values(text)


@pytest.mark.parametrize("text", ["0.1:0.9:log:3", "nan", "inf", "1:inf", "0:1:1e-9", ":", "0.1:"])
def test_bad_numbers(text):
    test_bad_ranges(text)


FC = RunConfig(model="fc", epochs=9)
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
    "trials": ({"space": K, "max_trials": 0}, "`max_trials` must be 1 or more"),
    "hyperband": ({"space": K, "tuner": "hyperband", "max_trials": 9}, "Leave `max_trials` out"),
    "executions": ({"space": K, "executions": 0}, "`executions` must be 1 or more"),
    "retries": ({"space": K, "retries": -1}, "`retries` must be 0 or more"),
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
def test_bad_searches(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        SearchConfig(**{"run": FC, **arguments})


def test_fractions_of_layers_are_a_runs_arguments():
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
def test_arguments_of_an_earlier_version(layer_k, k, space):
    """It had the fractions of layers as text beside k."""
    arguments = SearchConfig(run=FC, space=space).arguments()
    assert arguments["k"] == k
    recorded = {**arguments, "k": k if isinstance(k, str) else 0.5, "layer_k": layer_k}
    assert training.read_arguments(recorded) == arguments


SIZES = st.lists(st.integers(1, 5000), min_size=1, max_size=4)


def exact_bytes(layout, k):
    """Returns the limit, from whole numbers, and what else is in the file."""
    kept = [min(n, max(1, math.floor(k * n + 0.5))) for n in layout.sizes]
    bits = [(math.comb(n, ones) - 1).bit_length() for n, ones in zip(layout.sizes, kept, strict=True)]
    return layout.others + sum(bits) / 8


@given(SIZES, st.floats(0.0, 1.0))
def test_predicted_bytes_are_the_limit_and_little_more(sizes, k):
    layout = size.TicketSize(sizes, 1000)
    excess = layout.ticket_bytes(k) - exact_bytes(layout, k)
    assert 0 < excess < 40 + 30 * len(sizes)


@example([237, 237, 237, 1660], 0.0, size.SPARSE, 0.0, 1.0)
@example([237, 237, 237, 256], 0.0, size.SPARSE, 0.0, 1.0)
@given(SIZES, st.floats(0.0, 1.0), st.sampled_from([size.SPARSE, size.DENSE]), st.floats(0, 0.4), st.floats(0.6, 1))
def test_the_k_of_a_budget_is_the_one_next_to_half_that_fits(sizes, share, branch, low, high):
    layout = size.TicketSize(sizes, 1000)
    budget = round(1100 + share * 1.1 * (layout.ticket_bytes(0.5) - 1000))
    # 0.5 / n may round to a k that keeps no weight of n. (0.5 / 237 does.)
    extreme = max(low, 0.5 / min(sizes) * (1 + 1e-15)) if branch == size.SPARSE else high
    if layout.ticket_bytes(extreme) > budget:
        with pytest.raises(size.BudgetError) as caught:
            layout.fitting_k(budget, branch, low, high)
        assert caught.value.smallest == layout.ticket_bytes(extreme)
        return
    k = layout.fitting_k(budget, branch, low, high)
    assert layout.ticket_bytes(k) <= budget
    assert k <= 0.5 or branch == size.DENSE
    assert k >= 0.5 or branch == size.SPARSE
    assert low <= k <= high or min(sizes) < 2
    # No k nearer to a half fits, by as little as a weight of the largest layer.
    step = max(2 / max(sizes), 2e-6)
    nearer = k + step if branch == size.SPARSE else k - step
    if (branch == size.SPARSE and nearer < 0.5) or (branch == size.DENSE and nearer > 0.5):
        assert layout.ticket_bytes(nearer) > budget or math.isclose(layout.ticket_bytes(nearer), budget, abs_tol=2)


def proposals(tuner, **changes):
    space = {"k": (0.1, 0.3, 0.5, 0.7) if tuner == "grid" else Range(0.02, 0.98), "width": (0.5, 1.0, 2.0)}
    trials = {"random": 12, "bayesian": 10}.get(tuner)  # of Bayesian ones, those beyond the ninth take a second each
    search = SearchConfig(**{"run": FC, "space": space, "tuner": tuner, "max_trials": trials, **changes})
    return Proposals(search, search.hyperparameters())


class Ended(NamedTuple):
    trial: int
    score: float | None
    error: str | None


def accuracy(number, values):
    return None if number == 3 else 1 - abs(values["k"] - 0.5) - 0.1 * abs(values["width"] - 2)


def simulate(oracle, workers, order, waiting=(), ended=()):
    """Returns the records of a whole search in which trials take no time."""
    started, ended, running = [], list(ended), list(waiting)
    while True:
        while len(running) < workers and (proposal := oracle.propose()):
            started.append(oracle.record(proposal, len(ended)))
            running.append(proposal)
        if not running:
            return started, ended
        proposal = running.pop(order.randrange(len(running)))
        score = accuracy(proposal.number, proposal.values)
        ended.append(Ended(proposal.number, score, None if score else "it failed"))
        oracle.tell(proposal.number, score, None)


@pytest.mark.parametrize("tuner", TUNERS)
def test_a_search_that_was_cut_goes_on_as_if_it_had_not_been(tuner):
    whole_started, whole_ended = simulate(proposals(tuner), 1, random.Random(0))
    for cut in random.Random(tuner).sample(range(len(whole_ended)), 2):
        for also_started in (0, 1):  # killed before the next trial began, or after
            started, ended = whole_started[: cut + also_started], whole_ended[:cut]
            oracle = proposals(tuner)
            waiting = oracle.replay(started, ended)
            assert len(waiting) == also_started
            more_started, all_ended = simulate(oracle, 1, random.Random(0), waiting, ended)
            assert started + more_started == whole_started
            assert all_ended == whole_ended
            assert oracle.exhausted


@pytest.mark.parametrize("tuner", TUNERS)
def test_several_workers_can_be_cut_too(tuner):
    started, ended = simulate(proposals(tuner), 3, random.Random(1))
    cut = len(ended) // 2
    open_at_cut = [record for record in started if record.after < cut]
    oracle = proposals(tuner)
    waiting = oracle.replay(open_at_cut, ended[:cut])
    assert {p.number for p in waiting} == {r.trial for r in open_at_cut} - {e.trial for e in ended[:cut]}
    _, all_ended = simulate(oracle, 3, random.Random(2), waiting, ended[:cut])
    assert sorted(each.trial for each in all_ended) == list(range(1, len(all_ended) + 1))


@pytest.mark.parametrize("tuner", TUNERS)
def test_seeds(tuner):
    def trials(seed):
        started, _ = simulate(proposals(tuner, run=dataclasses.replace(FC, seed=seed)), 1, random.Random(0))
        return [record.values for record in started]

    assert trials(0) == trials(0)
    if tuner != "grid":
        # Not even shifted by one, as neighbouring seeds are in Keras Tuner.
        first, second = ([values["k"] for values in trials(seed)] for seed in (0, 1))
        assert not set(first) & set(second)


@pytest.mark.parametrize("tuner", TUNERS)
def test_total(tuner):
    oracle = proposals(tuner)
    _, ended = simulate(oracle, 1, random.Random(0))
    # A trial that failed is missing among those that could go on.
    assert oracle.total - 3 <= len(ended) <= oracle.total


def test_hyperband_goes_on_with_runs():
    oracle = proposals("hyperband")
    found = []
    while proposal := oracle.propose():
        found.append(proposal)
        oracle.tell(proposal.number, proposal.values["k"], None)
    for proposal in found:
        parent = found[proposal.root - 1]
        assert parent.root == parent.number
        assert parent.values == proposal.values
    assert {proposal.until for proposal in found} == {1, 3, None}
    assert any(proposal.root != proposal.number for proposal in found)


def test_what_changed_in_between_is_as_recorded(caplog):
    started, ended = simulate(proposals("random"), 1, random.Random(0))
    started[0] = dataclasses.replace(started[0], values={"k": 0.123, "width": 1.0})
    oracle = proposals("random")
    waiting = oracle.replay(started[:1], [])
    assert waiting[0].values == {"k": 0.123, "width": 1.0}
    assert "The recorded one counts" in caplog.text
    started, ended = simulate(proposals("grid"), 1, random.Random(0))
    with pytest.raises(ValueError, match="does not propose trial 13 again"):
        proposals("grid").replay([*started, StartedRecord(trial=13, after=12, values={})], ended)


def test_another_number_of_trials():
    started, ended = simulate(proposals("random"), 1, random.Random(0))
    oracle = proposals("random", max_trials=5)
    assert oracle.replay(started, ended) == []
    assert oracle.propose() is None
    assert oracle.exhausted
    oracle = proposals("random", max_trials=15)
    oracle.replay(started, ended)
    more, _ = simulate(oracle, 1, random.Random(0), ended=ended)
    assert [record.trial for record in more] == [13, 14, 15]


def test_bayesian_optimization_tries_all_of_a_few_values():
    """Also where its favourite fails, which it would propose again and again."""
    few = {"space": {"k": (0.1, 0.3, 0.5), "width": (0.5, 1.0, 2.0)}, "max_trials": 30}
    oracle = proposals("bayesian", **few)
    started, ended = simulate(oracle, 1, random.Random(0))
    assert oracle.total == len({json.dumps(record.values) for record in started}) == len(started) == 9
    again = proposals("bayesian", **few)
    waiting = again.replay(started[:7], ended[:6])
    assert simulate(again, 1, random.Random(0), waiting, ended[:6]) == (started[7:], ended)


def test_learned_weights_have_nothing_of_masks():
    of_all = {"mask_statistics": "history", "kernel_initializer": "xavier_normal", "scaled": True, "learning_rate": 0.3}
    for more in ({"k_schedule": "cubic", "k_schedule_end": 0.5}, {"k": {"dense*": 0.4, "*": 0.3}}):
        run = dataclasses.replace(FC, **of_all, **more)
        learned = SearchConfig(run=run, space={"width": (0.1, 0.2)}).learned_weights()
        assert learned == dataclasses.replace(FC, method="dense")


def test_the_smallest_budget_keeps_a_weight_of_every_layer():
    layout = size.TicketSize([1728, 36864, 4194304, 65536, 2560], 1000)  # Conv2
    with pytest.raises(size.BudgetError) as caught:
        layout.fitting_k(1, size.SPARSE)
    for more in (0, 1, 50):
        k = layout.fitting_k(caught.value.smallest + more, size.SPARSE)
        assert all(math.floor(k * size + 0.5) >= 1 for size in layout.sizes)
    with pytest.raises(ValueError, match="to keep a weight of every layer"):
        layout.fitting_k(10**6, size.SPARSE, 1e-6, 1e-5)


@pytest.mark.parametrize(
    ("machines", "asked", "size", "gpus", "places"),
    [
        ([0, 0], None, None, 0, None),
        ([2], None, 2, 1, 2),
        ([2], None, 3, 0.5, 4),
        ([8], None, 2, 1, 8),
        ([3, 3], 2, None, 2, 2),
        ([2, 0], 0.4, None, 0.4, 4),
        ([2, 2], 0, None, 0, None),
    ],
)
def test_gpus_of_trials(machines, asked, size, gpus, places):
    assert ray_workers.gpus_of_a_trial(machines, asked, size) == gpus
    if gpus:
        assert ray_workers.places_for(machines, gpus) == places


@pytest.mark.parametrize(
    ("machines", "asked", "message"),
    [
        ([2, 2, 2], 4, "No Ray node has the 4 GPUs per trial .* GPUs of the nodes: 2, 2, 2"),
        ([0], 1, "GPUs of the nodes: 0"),
        ([4], None, "`gpus_per_worker` must be given: Ray has 4 GPUs"),
    ],
)
def test_gpus_that_trials_cannot_have(machines, asked, message):
    with pytest.raises(ValueError, match=message):
        ray_workers.gpus_of_a_trial(machines, asked, None)


class Pool:
    """A pool whose trials never end."""

    size, queues = 1, True

    def __init__(self):
        self.killed = []

    def start(self, number, task):
        pass

    def wait(self, seconds):
        return []

    def kill(self, number):
        self.killed.append(number)


def test_a_trial_that_has_not_begun_is_not_stuck(tmp_path):
    sign = {"epoch": 7, "epochs": 9, "execution": 0, "host": "here", "pid": 1}
    (tmp_path / "alive.json").write_text(json.dumps(sign))  # of an earlier process
    pool, seen = Pool(), []
    runner = Runner(pool, 2, 1e-9)
    runner.start(1, TrialTask(run=FC, folder=tmp_path, image_shape=(8, 8, 1), classes=10))

    def look():
        assert not list(runner.ended(lambda number, sign: seen.append((number, sign.epoch))))

    look()
    assert not pool.killed
    (tmp_path / "alive.json").write_text(json.dumps({**sign, "epoch": 0}))
    look()
    assert not pool.killed
    (tmp_path / "alive.json").unlink()  # as it is for others while a file system of the network replaces it
    look()
    look()
    assert pool.killed == [1]
    assert seen == [(1, 0)]


def test_every_searched_argument_is_a_runs():
    names = {field.name for field in dataclasses.fields(RunConfig)}
    assert set(SEARCHED) < names
