"""Times two functions in turn and prints a table, with the ratios first."""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from keras_popup._processor import find_processor


def parser(description: str | None, runs: int) -> argparse.ArgumentParser:
    """Returns a parser with the arguments that all benchmarks share."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=runs, help="paired runs (default: %(default)s)")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="also write the rows, the machine and the versions to a file"
    )
    return parser


def timed(function: Callable[[], Any], count: int = 1) -> Callable[[], float]:
    """Returns a function that calls `function` and returns its milliseconds divided by `count`."""

    def run() -> float:
        start = time.perf_counter()
        function()
        return 1e3 * (time.perf_counter() - start) / count

    return run


def repeated(function: Callable[[], Any], count: int) -> Callable[[], float]:
    """Returns a function that calls `function` `count` times and returns the milliseconds of one call."""
    return timed(lambda: [function() for _ in range(count)], count)


def compare(run: Callable[[], float], base: Callable[[], float], runs: int) -> dict[str, float]:
    """Runs the two in turn and returns the ratio with its quartiles, and the milliseconds of each.

    The first run of each is not counted.
    """
    run(), base()
    pairs = [(run(), base()) for _ in range(runs)]
    ratios = [a / b for a, b in pairs]
    low, ratio, high = statistics.quantiles(ratios, n=4) if runs > 1 else 3 * ratios
    own, other = (statistics.median(times) for times in zip(*pairs, strict=True))
    return {"ratio": ratio, "low": low, "high": high, "own": own, "base": other}


class Table:
    """A table that prints each row when it is added, and writes all rows as JSON at the end."""

    def __init__(self, columns: Sequence[str], arguments: argparse.Namespace, unit: str = "ms") -> None:
        self.columns = columns
        self.json: Path | None = arguments.json
        self.rows: list[dict[str, Any]] = []
        print("ratio (quartiles)".ljust(20), unit.rjust(9), f"base {unit}".rjust(9), *columns, sep="  ", flush=True)

    def add(self, measured: dict[str, float], *values: Any) -> None:
        self.rows.append({**dict(zip(self.columns, values, strict=True)), **measured})
        spread = " ({low:.2f}-{high:.2f})".format(**measured) if "low" in measured else ""
        ratio = f"{measured['ratio']:.2f}{spread}".ljust(20)
        print(ratio, *(f"{measured[key]:9.2f}" for key in ("own", "base")), *values, sep="  ", flush=True)

    def write(self) -> None:
        if self.json:
            versions = {name: version(name) for name in ("tensorflow", "keras", "numpy")}
            machine = {"processor": find_processor(), "cores": os.cpu_count()}
            self.json.write_text(json.dumps({"machine": machine, "versions": versions, "rows": self.rows}, indent=1))
