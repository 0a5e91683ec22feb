"""Searches of small networks on the digits, in this process or another, and what is read of their folders."""

import json
import os
import subprocess
import sys
import time

from keras_popup.search import SearchConfig
from keras_popup.training import RunConfig

SMALL = ("--model", "fc", "--width", "0.1,0.2", "--epochs", "3", "--learning_rate", "0.5", "--seed", "0")
RUN = RunConfig(model="fc", width=0.2, epochs=3, learning_rate=0.5, seed=0)
BUDGETED = SearchConfig(run=RUN, space={"width": (0.1, 0.2, 0.5)}, tuner="grid", budget=2500)


def lines(folder, name="trials.jsonl"):
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def outcome(record):
    """Returns what must be the same of a trial wherever and whenever it ran."""
    names = ("seed", "k", "width", "kept", "ticket_bytes", "predicted_bytes", "history", "validation", "test")
    executions = [{name: each[name] for name in names} for each in record["executions"]]
    return {**{name: record[name] for name in ("trial", "hyperparameters", "score", "until")}, "executions": executions}


def by_number(records):
    return sorted((outcome(record) for record in records), key=lambda record: record["trial"])


# A process that a shell has put into the background ignores Ctrl-C, and so would those it starts.
COMMAND = "import signal, sys; from keras_popup import cli; signal.signal(signal.SIGINT, signal.default_int_handler); "
COMMAND += "sys.exit(cli.main())"


def started(*flags, **environment):
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, "search", *flags],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, **environment},
    )


def alive(folder, epochs=1, but=(), limit=180):
    """Waits until a trial of none of the processes `but` has trained for some epochs, and returns what it says."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        for path in folder.glob("trials/*/alive.json"):
            sign = json.loads(path.read_text())
            if sign["pid"] not in but and epochs <= sign["epoch"] < sign["epochs"]:
                return sign
        time.sleep(0.02)
    raise TimeoutError("no trial has begun")


def gone(pid, limit=30):
    end = time.monotonic() + limit
    while time.monotonic() < end:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


LONG = (
    "--model",
    "fc",
    "--width",
    "0.1,0.2",
    "--k",
    "0.1:0.9",
    "--epochs",
    "12",
    "--learning_rate",
    "0.5",
    "--seed",
    "0",
)
LONG = (*LONG, "--tuner", "random", "--max_trials", "4", "--nobaseline")


FC = RunConfig(model="fc", epochs=9)
