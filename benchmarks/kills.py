"""Kills trainings and searches at random moments, continues them, and compares what they find with an undisturbed one.

Every third kill waits for a file that is being written. A kill hits the command alone, one of its children, or all of
its processes at once. Each kind leaves a line in benchmarks/results/kills.jsonl. docs/search.md shows them.

python benchmarks/kills.py                              100 kills: some 40 minutes
python benchmarks/kills.py --kinds train --kills 10     fewer
python benchmarks/kills.py --table

Works on Linux: it reads /proc.
"""

import argparse
import io
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import lines
from fitting import describe_run

from keras_popup._files import UNFINISHED
from keras_popup.records import RunFolder, SearchFolder, StartedRecord, TrialRecord

RESULT = Path(__file__).parent / "results" / "kills.jsonl"

NETWORK = ["--model=fc", "--dataset=digits", "--width=0.1", "--learning_rate=0.5", "--seed=1"]
LATEST = 180.0  # seconds; a process that goes on for longer has been left behind. Ray's agents look once a minute


def read_run(out: Path) -> Any:
    """Returns what a training found: every epoch, its metrics, and the weights of its model."""
    folder = RunFolder(out)
    summary = folder.summary()
    if summary is None:
        raise RuntimeError(f"'{out}' has no summary.")
    folder.check_model("model.keras")
    found = {name: summary[name] for name in ("train", "validation", "test", "kept", "layers")}
    return found, folder.history(), read_weights(out / "model.keras")


def read_weights(path: Path) -> dict[str, bytes]:
    """Returns the weights of a model file, by their names."""
    found: dict[str, bytes] = {}
    with zipfile.ZipFile(path) as archive, h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as file:
        file.visititems(
            lambda name, item: found.update({name: item[()].tobytes()}) if isinstance(item, h5py.Dataset) else None
        )
    return found


def read_search(out: Path) -> Any:
    """Returns what a search found, by the numbers of its trials, and that each of them began once and ended once."""
    folder = SearchFolder(out)
    folder.check_best("best.keras")
    folder.check_best("best.ticket")
    trials = {}
    for record in folder.records(TrialRecord):
        executions = [
            (each.k, each.kept, each.history, each.validation, each.ticket_bytes) for each in record.executions
        ]
        trials[record.trial] = (record.hyperparameters, record.score, executions)
    started = [record.trial for record in folder.records(StartedRecord)]
    return trials, sorted(started)


class Kind(NamedTuple):
    """A command, how to read what it found, and its share of the kills in hundredths."""

    arguments: list[str]
    read: Callable[[Path], Any]
    share: int


KINDS = {
    "train": Kind(["train", *NETWORK, "--epochs=30"], read_run, 50),
    "search": Kind(
        ["search", *NETWORK, "--epochs=10", "--k=0.1:0.9", "--tuner=random", "--max_trials=6", "--nobaseline"],
        read_search,
        35,
    ),
    "search, 2 workers": Kind(
        ["search", *NETWORK, "--epochs=10", "--k=0.1:0.9:0.2", "--tuner=grid", "--workers=2", "--nobaseline"],
        read_search,
        15,
    ),
}


def read_state(status: Path) -> tuple[str, int]:
    """Returns the state of a process, "Z" once it has ended, and its parent."""
    try:
        state, parent, *_ = status.read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return "Z", 0
    return state, int(parent)


def find_children(pid: int) -> list[int]:
    """Returns the processes that a process has begun, and those that they have."""
    parents: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        state, parent = read_state(status)
        if state != "Z":
            parents.setdefault(parent, []).append(int(status.parent.name))
    found = list(parents.get(pid, []))
    for child in found:
        found += parents.get(child, [])
    return found


def is_alive(pid: int) -> bool:
    return read_state(Path(f"/proc/{pid}/stat"))[0] != "Z"


def kill(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def is_writing(out: Path) -> bool:
    """Tells whether a file of a folder is being written."""
    return any(name.startswith(UNFINISHED) for _, _, files in os.walk(out) for name in files)


def disturb(
    process: subprocess.Popen, out: Path, longest: float, in_writing: bool, order: random.Random
) -> tuple[str, list[int]] | None:
    """Kills once. Returns what was killed, and the command's children; None if the command ended before."""
    begun, moment = time.monotonic(), order.uniform(0, longest)
    while process.poll() is None:
        late = time.monotonic() - begun >= moment
        if late and (not in_writing or is_writing(out)):
            break
        time.sleep(0.0005 if late else 0.01)
    else:
        return None
    children = find_children(process.pid)
    victim = order.choice(["the command", "all", "a child"] if children else ["the command"])
    victims = {"the command": [process.pid], "all": [process.pid, *children]}.get(victim)
    killed = [kill(pid) for pid in victims or [order.choice(children)]]
    return (victim, children) if any(killed) else None


def attack(kind: Kind, kills: int, seed: int) -> dict[str, Any]:
    """Kills a command as many times, each round until it has ended. Returns what happened.

    Raises:
        RuntimeError: if what was found is not what the undisturbed command found, or if a process was left behind.
    """
    order, begun = random.Random(seed), time.monotonic()
    count: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        log = open(folder / "log.txt", "a")  # noqa: SIM115 - it is open until the folder is removed

        def start(out: Path) -> subprocess.Popen:
            command = [sys.executable, "-m", "keras_popup", *kind.arguments, f"--out={out}", "--resume"]
            return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

        def finish(process: subprocess.Popen) -> None:
            if process.wait():
                raise RuntimeError(f"The command ended with status {process.returncode}:\n{read_end(folder)}")

        def compare(out: Path) -> None:
            if kind.read(out) != expected:
                shutil.copytree(out, f"{out.name}-differs")
                raise RuntimeError(f"It found something else: see {out.name}-differs.")
            count["compared"] += 1

        finish(start(folder / "undisturbed"))
        longest, expected = time.monotonic() - begun, kind.read(folder / "undisturbed")
        out = folder / "out"
        while sum(count[name] for name in ("the command", "all", "a child")) < kills:
            process = start(out)
            in_writing = order.random() < 1 / 3
            killed = disturb(process, out, longest, in_writing, order)
            if killed:
                count[killed[0]] += 1
                count["in writing"] += in_writing
            # A search cannot do without some of them: the one that reads the data before the first trial, Ray's server.
            if killed and (killed[0] != "a child" or process.wait()):
                process.wait()
                wait_for_end(killed[1])
                continue
            finish(process)
            compare(out)
            shutil.rmtree(out)
        finish(start(out))
        compare(out)
        log.close()
    return {"kills": kills, "seed": seed, **count, **describe_run(time.monotonic() - begun)}


def wait_for_end(processes: list[int]) -> None:
    end = time.monotonic() + LATEST
    while left := [pid for pid in processes if is_alive(pid)]:
        if time.monotonic() > end:
            raise RuntimeError(f"Processes were left behind: {left}.")
        time.sleep(0.05)


def read_end(folder: Path) -> str:
    return (folder / "log.txt").read_text()[-2000:]


def table() -> str:
    """Returns the stored attacks as a table in Markdown."""
    columns = ("kills", "in writing", "the command", "a child", "all", "compared")
    text = ["| command | " + " | ".join(columns) + " |", "|---" + "|---:" * len(columns) + "|"]
    text += [
        f"| {row['kind']} | " + " | ".join(str(row.get(name, 0)) for name in columns) + " |"
        for row in lines.read(RESULT)
    ]
    return "\n".join(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=[*KINDS])
    parser.add_argument("--kills", type=int, default=100, help="of all three kinds (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="print the stored results, kill nothing")
    arguments = parser.parse_args()
    if arguments.table:
        print(table())
        return
    for name in arguments.kinds:
        row = attack(KINDS[name], max(1, arguments.kills * KINDS[name].share // 100), arguments.seed)
        print(f"{name}: {row}", flush=True)
        lines.add(RESULT, {"kind": name, **row})


if __name__ == "__main__":
    main()
