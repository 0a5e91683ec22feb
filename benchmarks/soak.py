"""Runs long searches of tiny networks, and measures what grows with the number of trials.

Each search is killed after 10, 100 and 250 trials, and continued: how long is it until the next trial begins? At its
end it is continued once more, though nothing is left to do: how long does the command take?
Each leaves a line in benchmarks/results/soak.jsonl. Searches that have a line are skipped. docs/search.md shows them.
The searches there had one core each, by taskset -c 0.

python benchmarks/soak.py                         all searches, some 20 minutes each
python benchmarks/soak.py --searches bayesian     one of them
python benchmarks/soak.py --table
python benchmarks/soak.py --plot docs/img/soak.png

Works on Linux: the memory of the search's process is read from /proc.
"""

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import lines
from fitting import describe_run

from keras_popup.records import SearchFolder, StartedRecord, TrialRecord

RESULT = Path(__file__).parent / "results" / "soak.jsonl"

NETWORK = ["--model=fc", "--dataset=digits", "--width=0.05", "--nobaseline", "--seed=1"]
SPACE = ["--k=0.1:0.9", "--learning_rate=0.01:1:log"]
SEARCHES = {
    "bayesian": ["--tuner=bayesian", "--max_trials=300", "--epochs=1", *SPACE],
    "hyperband": ["--tuner=hyperband", "--epochs=100", *SPACE],  # 254 trials follow from the epochs
    "grid, 3 workers": [
        "--tuner=grid",
        "--workers=3",
        "--epochs=1",
        "--k=0.1:0.99:0.01",
        "--width=0.05,0.06,0.07,0.08",
    ],
}
STOPS = (10, 100, 250)


class Watched:
    """A search that runs, and what was seen of it.

    Args:
        arguments: those of `keras-popup search`.
        out: the search folder.
    """

    def __init__(self, arguments: list[str], out: Path) -> None:
        self._files = [out / kind.file for kind in (TrialRecord, StartedRecord)]
        command = [sys.executable, "-m", "keras_popup", "search", *NETWORK, *arguments, f"--out={out}", "--resume"]
        self._lines = self._count()
        self._begun = self._ended = time.monotonic()
        log = open(out.parent / "log.txt", "a")  # noqa: SIM115 - it is the process's until that ends
        self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        self.seconds_to_first: float | None = None
        self.rows: list[dict[str, Any]] = []

    def _count(self) -> list[int]:
        return [file.read_bytes().count(b"\n") if file.exists() else 0 for file in self._files]

    def run(self, until: int) -> bool:
        """Waits for this number of trials, and kills the search. Returns whether it had ended by itself."""
        while self._process.poll() is None:
            self._look()
            if self._lines[0] >= until:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
                return False
            time.sleep(0.005)
        self._look()
        if self._process.returncode:
            raise RuntimeError(f"The search ended with status {self._process.returncode}.")
        return True

    def _look(self) -> None:
        ended, started = self._count()
        now = time.monotonic()
        if ended > self._lines[0]:
            self._ended = now
        if started > self._lines[1]:
            if self.seconds_to_first is None:
                self.seconds_to_first = now - self._begun
            else:
                self.rows.append({"trial": started, "seconds": round(now - self._ended, 3), "mb": self._read_memory()})
        self._lines = [ended, started]

    def _read_memory(self) -> float | None:
        try:
            status = Path(f"/proc/{self._process.pid}/status").read_text()
        except OSError:
            return None
        return next((int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS")), None)


def soak(arguments: list[str], folder: Path) -> dict[str, Any]:
    """Runs a search with its kills. Returns what was measured."""
    begun, out = time.monotonic(), folder / "search"
    trials: list[dict[str, Any]] = []
    stops: list[dict[str, Any]] = []
    for stop in (*STOPS, None):
        watched = Watched(arguments, out)
        ended = watched.run(stop or sys.maxsize)
        if stops and watched.seconds_to_first is not None:
            stops[-1]["resume_seconds"] = round(watched.seconds_to_first, 1)
        trials += watched.rows
        stops.append({"trials": len(SearchFolder(out).records(TrialRecord)), **measure_files(out)})
        if ended:
            break
    again = time.monotonic()
    Watched(arguments, out).run(sys.maxsize)
    stops[-1]["resume_seconds"] = round(time.monotonic() - again, 1)
    check(out)
    return {"trials": trials, "stops": stops, **describe_run(time.monotonic() - begun)}


def measure_files(out: Path) -> dict[str, int]:
    """Returns the bytes of a search's records and of its page, which is written for it."""
    subprocess.run([sys.executable, "-m", "keras_popup", "report", out, "--overwrite"], check=True, capture_output=True)
    records = sum((out / name).stat().st_size for name in (StartedRecord.file, TrialRecord.file))
    return {"records_bytes": records, "page_bytes": SearchFolder(out).report.stat().st_size}


def check(out: Path) -> None:
    """Checks that no trial was lost, none has two records, and none has failed."""
    folder = SearchFolder(out)
    started, ended = folder.records(StartedRecord), folder.records(TrialRecord)
    numbers = [record.trial for record in started]
    if numbers != list(range(1, len(numbers) + 1)) or {record.trial for record in ended} != set(numbers):
        raise RuntimeError(f"Trials were lost: {len(started)} began, {len(ended)} ended.")
    if failed := [record.trial for record in ended if record.score is None]:
        raise RuntimeError(f"Trials have failed: {failed}.")


def table() -> str:
    """Returns the stored searches as a table in Markdown. The time between trials is the median of the 25 before."""
    text = [
        "| search | trials | `--resume`, s | between trials, s | memory, MB | records, kB | page, kB |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in lines.read(RESULT):
        for stop in row["stops"]:
            last = [trial for trial in row["trials"] if stop["trials"] - 25 < trial["trial"] <= stop["trials"]]
            between = statistics.median(trial["seconds"] for trial in last or row["trials"])
            memory = max(trial["mb"] or 0 for trial in last or row["trials"])
            sizes = [stop[name] / 1000 for name in ("records_bytes", "page_bytes")]
            numbers = f"{stop['resume_seconds']:.0f} | {between:.2f} | {memory:.0f} | {sizes[0]:.0f} | {sizes[1]:.0f}"
            text.append(f"| {row['search']} | {stop['trials']} | {numbers} |")
    return "\n".join(text)


def plot(picture: str) -> None:
    """Draws what grows: the time between trials, the memory, the time of a resume, the files."""
    import matplotlib.pyplot as plt

    from keras_popup._style import matplotlib_settings

    plt.rcParams.update({**matplotlib_settings(), "axes.grid": True})
    figure, ((between, memory), (resume, files)) = plt.subplots(2, 2, figsize=(9, 6), layout="constrained")
    for color, row in enumerate(lines.read(RESULT)):
        numbers = [trial["trial"] for trial in row["trials"]]
        style = {"color": f"C{color}", "label": row["search"]}
        between.plot(numbers, [trial["seconds"] for trial in row["trials"]], ".", markersize=3, **style)
        memory.plot(numbers, [trial["mb"] for trial in row["trials"]], **style)
        stops = [stop["trials"] for stop in row["stops"]]
        resume.plot(stops, [stop["resume_seconds"] for stop in row["stops"]], "o-", **style)
        files.plot(stops, [stop["records_bytes"] / 1000 for stop in row["stops"]], "o-", **style)
        files.plot(stops, [stop["page_bytes"] / 1000 for stop in row["stops"]], "s--", color=f"C{color}")
    labels = {between: "s between trials", memory: "MB of the search's process", resume: "s until --resume goes on"}
    for axes, label in {**labels, files: "kB of records (lines), page (dashes)"}.items():
        axes.set_ylabel(label)
        axes.set_xlabel("trials")
        axes.set_ylim(bottom=0)
    memory.legend(fontsize=8)
    figure.savefig(picture)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--searches", nargs="+", choices=SEARCHES, default=[*SEARCHES])
    parser.add_argument("--table", action="store_true", help="print the stored results, run nothing")
    parser.add_argument("--plot", help="the PNG file to draw of the stored results; nothing is run")
    arguments = parser.parse_args()
    if arguments.table:
        print(table())
    elif arguments.plot:
        plot(arguments.plot)
    else:
        done = {row["search"] for row in lines.read(RESULT)}
        for name in arguments.searches:
            if name not in done:
                with tempfile.TemporaryDirectory() as folder:
                    row = soak(SEARCHES[name], Path(folder))
                print(f"{name}: {row['seconds']:.0f} s", flush=True)
                lines.add(RESULT, {"search": name, **row})


if __name__ == "__main__":
    main()
