"""Trains the networks of the papers' claims with `keras-popup train`, one row after the other.

A row that is finished leaves a line in a file of benchmarks/results/reproduce. Rows that have a line are skipped.
benchmarks/results_page.py makes docs/results.md from these files.

python benchmarks/reproduce.py --list                      show all rows with their commands
python benchmarks/reproduce.py --only 'k-*'                train the rows of some groups, or rows by their names
python benchmarks/reproduce.py --only k-curve --resume     continue an interrupted row
python benchmarks/reproduce.py --only k-curve --again      train rows that have a result too, from the beginning.
                                                           With --resume, unfinished rows continue, and the results
                                                           of rows that are finished in runs/reproduce are taken
                                                           from there.
"""

import argparse
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from reproduction import rows, store
from reproduction.rows import GROUPS, Row

from keras_popup._processor import find_processor
from keras_popup.cli.train import DIVERGED
from keras_popup.records import RunFolder
from keras_popup.training import PLACES

_CURVES = ("accuracy", "loss", "val_accuracy", "val_loss")


def run(row: Row, places: dict[str, str], more: list[str]) -> bool:
    """Trains the network of a row and stores the result, also if the loss diverged. Returns whether there is one."""
    command = [*row.command(places), *more]
    print(f"\n{row.name}\n  keras-popup {shlex.join(command)}", flush=True)
    status = subprocess.run([sys.executable, "-m", "keras_popup", *command], check=False).returncode
    if status not in (0, DIVERGED):
        return False
    folder = RunFolder(row.folder)
    finished = folder.summary()
    summary = finished or {**folder.read_content("config.json"), "diverged": True}
    config = {name: value for name, value in summary.pop("config").items() if name not in ("data_dir", *PLACES)}
    place = row.place(places)
    source = _image_files(Path(place)) if place else ""
    summary["versions"].pop("platform")
    record = {
        "name": row.name,
        "config": config,
        **summary,
        "source": source or "TensorFlow Datasets",
        "machine": f"{os.cpu_count()} cores of {find_processor()}",
        "history": curves(folder.history() if finished else []),
    }
    store.put(store.RESULTS / f"{rows.group_of(row)}.jsonl", record)
    return True


def curves(history: list[dict[str, float]]) -> dict[str, list[float]]:
    """Returns the curves that are stored: those of learning, and of each mask how much changed and how random it is."""
    of_masks = ("/changed", "/randomness")
    names = [name for name in (history[0] if history else ()) if name in _CURVES or name.endswith(of_masks)]
    return {name: [_short(epoch[name]) for epoch in history] for name in names}


def _short(value: float) -> float:
    """Returns a number with five digits, as an integer if it is one."""
    rounded = float(f"{value:.5g}")
    return int(rounded) if rounded.is_integer() else rounded


def _image_files(folder: Path) -> str:
    """Describes a folder of images by the type of its files; "" for another folder."""
    first = next((path for path in sorted((folder / "train").glob("*/*")) if path.is_file()), None)
    return f"a folder of {first.suffix.lstrip('.').upper()} images" if first else ""


def add_data_dir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data_dir",
        action="append",
        default=[],
        metavar="DATASET=DIRECTORY",
        help="the directory of a dataset, as for keras-popup train; may be given several times",
    )


def places(entries: list[str]) -> dict[str, str]:
    """Returns the directory of each dataset that `--data_dir` names."""
    wrong = [entry for entry in entries if "=" not in entry]
    if wrong:
        sys.exit(f"--data_dir must be DATASET=DIRECTORY, such as cifar10=cifar10. Received: {wrong[0]}")
    return dict(entry.split("=", 1) for entry in entries)


def show(chosen: list[Row], done: dict[str, Any], where: dict[str, str]) -> None:
    """Prints the state and the command of each row."""
    for row in chosen:
        state = "done" if row.name in done else "begun" if row.folder.exists() else "    "
        print(f"{state:5}  {row.name}\n       keras-popup {shlex.join(row.command(where))}")
    count = sum(row.name in done for row in chosen)
    print(f"{count} of {len(chosen)} rows are done. Groups: {', '.join(GROUPS)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", nargs="*", default=[], metavar="PATTERN", help="names of groups or rows; may contain * and ?"
    )
    parser.add_argument("--list", action="store_true", help="show the rows and their commands; train nothing")
    parser.add_argument("--resume", action="store_true", help="continue interrupted rows")
    parser.add_argument("--again", action="store_true", help="also train rows that have a result, and replace it")
    add_data_dir(parser)
    parser.add_argument("flags", nargs="*", help="after --: the place to train at, by --strategy and --devices")
    arguments = parser.parse_args()
    if any(flag.removeprefix("--").split("=")[0] not in PLACES for flag in arguments.flags):
        parser.error(f"only --{' and --'.join(PLACES)}=... may be added to a row. Received: {arguments.flags}.")
    where = places(arguments.data_dir)
    chosen = list(rows.matching(arguments.only))
    if not chosen:
        parser.error(f"no row matches {arguments.only}. Groups: {', '.join(GROUPS)}")
    done = store.read_all()
    if arguments.list:
        show(chosen, done, where)
        return
    waiting = [row for row in chosen if arguments.again or row.name not in done]
    print(f"{len(chosen) - len(waiting)} of {len(chosen)} rows are done." + ("" if waiting else " See --again."))
    begun = ["--resume"] if arguments.resume else ["--overwrite"] if arguments.again else []
    failed = [row.name for row in waiting if not run(row, where, [*arguments.flags, *begun])]
    if failed:
        sys.exit(f"These rows did not finish: {', '.join(failed)}. The error of each is printed above.")


if __name__ == "__main__":
    main()
