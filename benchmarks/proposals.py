"""Measures how long Bayesian optimization takes for its trials, and how long a resumed search takes to repeat them.

python benchmarks/proposals.py

Nothing is trained: a trial's score is a function of its hyperparameters.
"""

import argparse
import time
from typing import NamedTuple

import numpy as np

from keras_popup import Range, RunConfig, SearchConfig
from keras_popup.search.proposals import Proposals


class Ended(NamedTuple):
    """A trial that has ended."""

    trial: int
    score: float | None
    error: str | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=300)
    count = parser.parse_args().trials
    space = {"k": Range(0.02, 0.98), "width": (0.5, 1.0, 2.0), "learning_rate": Range(0.01, 1.0, "log")}
    run = RunConfig(model="fc", dataset="digits", epochs=2, seed=1)
    config = SearchConfig(run=run, tuner="bayesian", max_trials=count + 1, space=space)
    first, started, ended = Proposals(config, config.hyperparameters()), [], []
    begin = time.monotonic()
    for number in range(1, count + 1):
        proposal = first.propose()
        started.append(first.record(proposal, len(ended)))
        noise = np.random.default_rng(number).normal()
        ended.append(Ended(number, float(0.01 * noise - (proposal.values["k"] - 0.4) ** 2)))
        first.tell(*ended[-1])
    print(f"{count} trials asked for: {time.monotonic() - begin:.1f} s", flush=True)
    again, begin = Proposals(config, config.hyperparameters()), time.monotonic()
    again.replay(started, ended)
    print(f"{count} trials taken from the records: {time.monotonic() - begin:.1f} s")
    print(f"the next trial is the same: {again.propose() == first.propose()}")


if __name__ == "__main__":
    main()
