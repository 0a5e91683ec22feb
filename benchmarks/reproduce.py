"""Trains the networks of the papers' claims, a row at a time, by `keras-popup train`.

Each row that is finished leaves a file in benchmarks/results/reproduce and is skipped from then on. What is known of
them all is on docs/results.md, which benchmarks/results_page.py makes of those files.

python benchmarks/reproduce.py --list                         all rows, with their commands
python benchmarks/reproduce.py --only 'k-*'                   the rows of some groups, or by their own names
python benchmarks/reproduce.py --only k-curve --resume        also goes on with a row that was interrupted
python benchmarks/reproduce.py --only k-curve --again         also trains what has a result, from the beginning;
                                                              with --resume what is unfinished goes on instead, and
                                                              what is finished in runs/reproduce is taken from there
"""

import argparse
import dataclasses
import fnmatch
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pairs import processor

from keras_popup._files import write_atomically
from keras_popup.cli.train import DIVERGED
from keras_popup.records import RunFolder
from keras_popup.training import PLACES, RunConfig

RESULTS = Path(__file__).parent / "results" / "reproduce"
RUNS = Path("runs/reproduce")

SEEDS = (1, 2, 3)
FRACTIONS = (0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.98, 1.0)
WIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)
INITIALIZERS = ("signed_constant", "kaiming_normal", "kaiming_uniform", "xavier_normal")

# Zhou et al. take kernels of Glorot's standard deviation.
_SUPERMASK = {"method": "supermask", "kernel_initializer": "xavier_signed_constant"}

# The methods that are compared, and the learning rates that are tried: the papers' own among them.
METHODS: dict[str, dict[str, Any]] = {
    "edge-popup": {"method": "edge-popup"},
    "supermask": _SUPERMASK,
    "supermask rescaled": {**_SUPERMASK, "rescale": True},
    "supermask, edge-popup's kernels": {"method": "supermask"},
    "supermask rescaled, edge-popup's kernels": {"method": "supermask", "rescale": True},
    "learned weights": {"method": "dense"},
}
TRIED = {
    "edge-popup": (0.1, 0.5, 1.0),
    "supermask": (10.0, 50.0, 200.0, 500.0, 1000.0),
    "supermask rescaled": (10.0, 50.0, 200.0, 500.0, 1000.0),
    "supermask, edge-popup's kernels": (50.0, 200.0, 500.0),
    "supermask rescaled, edge-popup's kernels": (50.0, 200.0, 500.0),
    "learned weights": (0.01, 0.03, 0.1),
}
# The one of the paper, and the one that is better on Fashion-MNIST: kernels, and CIFAR-10, are run at both to the end.
RATES_OF_EDGE_POPUP = (0.1, 0.5)
# Learned weights diverge at a little more than the paper's rate, 0.01. With a warm-up, which the paper has not, they
# do not.
WARMED_UP: dict[str, Any] = {"learning_rate": 0.03, "warmup_epochs": 1.0}


@dataclasses.dataclass(frozen=True)
class Row:
    """One training run.

    Attributes:
        config: its arguments, without the place of the data.
        paper: the accuracy that the paper reports of it, in percent.
        data: what `--data_dir` calls the data, where one dataset is at hand in two states. Without, the dataset's name.
    """

    config: RunConfig
    paper: float | None = None
    data: str = ""

    @property
    def name(self) -> str:
        """What is different about it: the same for the same arguments."""
        config, default = self.config, RunConfig()
        parts = [self.data or config.dataset, config.model, config.method]
        said = ("dataset", "model", "method", "mask_statistics")
        for field in dataclasses.fields(RunConfig):
            value = getattr(config, field.name)
            if field.name not in said and value != getattr(default, field.name):
                short = _SHORT.get(field.name, field.name + "=")
                parts.append(
                    field.name if value is True else f"{short}{value:g}" if _is_number(value) else f"{short}{value}"
                )
        return "-".join(parts)

    @property
    def result(self) -> Path:
        return RESULTS / f"{self.name}.json"

    @property
    def folder(self) -> Path:
        return RUNS / self.name

    def place(self, places: dict[str, str]) -> str | None:
        return places.get(self.data or self.config.dataset)

    def command(self, places: dict[str, str]) -> list[str]:
        """Returns the arguments of `keras-popup train`."""
        flags = []
        for field in dataclasses.fields(RunConfig):
            value = getattr(self.config, field.name)
            if value == field.default and field.name not in ("model", "method"):
                continue
            flags += [f"--{field.name}"] if value is True else [f"--{field.name}", f"{value}"]
        if place := self.place(places):
            flags += ["--data_dir", place]
        return ["train", *flags, "--out", str(self.folder)]


_SHORT = {
    "kernel_initializer": "",
    "k": "k",
    "width": "width",
    "learning_rate": "lr",
    "epochs": "epochs",
    "precision": "",
    "seed": "seed",
}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _fashion(method: str = "edge-popup", **arguments: Any) -> Row:
    values = {"learning_rate": CHOSEN["fc"][method], **METHODS[method], "epochs": 20, **arguments}
    if values["method"] != "dense":
        values["mask_statistics"] = "history"
    return Row(RunConfig(model="fc", dataset="fashion_mnist", **values))


def _cifar(model: str, method: str = "edge-popup", paper: float | None = None, data: str = "", **arguments: Any) -> Row:
    values = {"precision": "mixed_bfloat16", **METHODS[method]}
    if values["method"] != "dense":
        values["mask_statistics"] = "history"
    return Row(RunConfig(model=model, dataset="cifar10", **{**values, **arguments}), paper, data)


def _of_the_paper(model: str, method: str = "edge-popup", **arguments: Any) -> Row:
    """The protocol of the paper, in which no image is left out for validation; only measured for its accuracy."""
    return _cifar(model, method, validation=0.0, mask_statistics=None, **arguments)


def _imagenet(model: str, initializer: str, paper: float) -> Row:
    """The commands of the paper's ImageNet; not run."""
    config = RunConfig(model=model, dataset="imagenet2012", k=0.3, kernel_initializer=initializer, validation=0.0)
    return Row(config, paper)


# By the rows of the groups lr-*, on the validation images; results_page.py says so if they tell otherwise.
CHOSEN: dict[str, dict[str, float]] = {
    "fc": {
        "edge-popup": 0.5,
        "supermask": 500.0,
        "supermask rescaled": 200.0,
        "supermask, edge-popup's kernels": 200.0,
        "supermask rescaled, edge-popup's kernels": 200.0,
        "learned weights": 0.03,
    },
    "conv2": {"supermask rescaled": 50.0, "learned weights": 0.01},
    "conv4": {"supermask rescaled": 500.0, "learned weights": 0.01},
}

_BOTH = ("edge-popup", "learned weights")

GROUPS: dict[str, list[Row]] = {
    "lr-fc": [_fashion(method, learning_rate=rate) for method, rates in TRIED.items() for rate in rates],
    "k-curve": [_fashion(k=k, seed=seed) for k in FRACTIONS for seed in SEEDS],
    "methods": [
        *[_fashion(method, seed=seed) for method in METHODS for seed in SEEDS],
        *[Row(RunConfig(model="fc", dataset="fashion_mnist", method="random", k=0.5, seed=seed)) for seed in SEEDS],
    ],
    "initializers": [
        _fashion(kernel_initializer=name, learning_rate=rate, seed=seed)
        for rate in RATES_OF_EDGE_POPUP
        for name in INITIALIZERS
        for seed in SEEDS
    ],
    "widths": [_fashion(method, width=width, seed=seed) for width in WIDTHS for method in _BOTH for seed in SEEDS],
    "conv2-100": [
        _of_the_paper("conv2", paper=77.7),
        _of_the_paper("conv2", "learned weights", paper=79.5),
        _of_the_paper("conv2", learning_rate=0.5),
    ],
    "conv2-100-original": [
        _of_the_paper("conv2", paper=77.7, data="cifar10-original"),
        _of_the_paper("conv2", "learned weights", paper=79.5, data="cifar10-original"),
    ],
    "imagenet": [
        _imagenet("resnet50", "kaiming_normal", 61.7),
        _imagenet("resnet50", "signed_constant", 68.6),
        _imagenet("resnet101", "kaiming_normal", 66.15),
        _imagenet("resnet101", "signed_constant", 72.3),
        _imagenet("wide_resnet50", "kaiming_normal", 67.9),
        _imagenet("wide_resnet50", "signed_constant", 73.3),
    ],
}
# With few epochs, as a choice needs no more.
TRIED_ON_CIFAR: dict[str, dict[str, tuple[float, ...]]] = {
    "conv2": {"supermask rescaled": (10.0, 20.0, 50.0, 200.0, 500.0), "learned weights": (0.003, 0.01, 0.03, 0.1)},
    "conv4": {"supermask rescaled": (20.0, 50.0, 200.0, 500.0, 1000.0), "learned weights": (0.003, 0.01, 0.02, 0.03)},
}

for _model, _tried in TRIED_ON_CIFAR.items():
    GROUPS[f"lr-{_model}"] = [
        _cifar(_model, method, learning_rate=rate, epochs=5) for method, rates in _tried.items() for rate in rates
    ]
    GROUPS[f"{_model}-30"] = [
        *[_cifar(_model, learning_rate=rate, epochs=30) for rate in RATES_OF_EDGE_POPUP],
        *[_cifar(_model, method, learning_rate=CHOSEN[_model][method], epochs=30) for method in _tried],
        _cifar(_model, "learned weights", **WARMED_UP, epochs=30),
    ]
GROUPS["float32"] = [
    _cifar("conv2", learning_rate=0.5, epochs=30, precision="float32"),
    _cifar("conv2", "learned weights", learning_rate=0.01, epochs=5, precision="float32"),
]
GROUPS["warm-up"] = [
    _cifar("conv4", "learned weights", **WARMED_UP, epochs=5),
    _cifar("conv2", learning_rate=0.5, warmup_epochs=1.0, epochs=15),
]
GROUPS["conv2-15"] = [
    *[_cifar("conv2", k=k, learning_rate=0.5, epochs=15) for k in (0.1, 0.3, 0.5, 0.7, 0.9)],
    _cifar("conv2", kernel_initializer="kaiming_normal", learning_rate=0.5, epochs=15),
]
GROUPS["larger"] = [
    _of_the_paper("conv4", paper=85.8),
    _of_the_paper("conv4", "learned weights", paper=86.5),
    _of_the_paper("conv6", paper=88.1),
    _of_the_paper("conv6", "learned weights", paper=88.5),
    *[_of_the_paper("conv4", width=width) for width in (0.5, 1.5, 2.0)],
]

NOT_RUN_HERE = ("imagenet",)
"""Groups that run when they are named only."""


def rows(patterns: list[str]) -> Iterator[Row]:
    """Yields the rows of the groups that match, and those whose names do: each once."""
    found: dict[str, Row] = {}
    for group, members in GROUPS.items():
        named = not patterns and group not in NOT_RUN_HERE
        of_group = named or any(fnmatch.fnmatchcase(group, pattern) for pattern in patterns)
        for row in members:
            if of_group or any(fnmatch.fnmatchcase(row.name, pattern) for pattern in patterns):
                found.setdefault(row.name, row)
    yield from found.values()


def run(row: Row, places: dict[str, str], more: list[str]) -> bool:
    """Trains the network of a row and stores what came out, also that it diverged. Tells whether anything did."""
    command = [*row.command(places), *more]
    print(f"\n{row.name}\n  keras-popup {shlex.join(command)}", flush=True)
    status = subprocess.run([sys.executable, "-m", "keras_popup", *command], check=False).returncode
    if status not in (0, DIVERGED):
        return False
    folder = RunFolder(row.folder)
    finished = folder.summary()
    summary = finished or {**folder.read("config.json", "config"), "diverged": True}
    history = folder.history() if finished else []
    config = {name: value for name, value in summary.pop("config").items() if name not in ("data_dir", *PLACES)}
    place = row.place(places)
    source = _suffixes(Path(place)) if place else ""
    summary["versions"].pop("platform")
    record = {
        "config": config,
        **summary,
        "source": source or "TensorFlow Datasets",
        "machine": f"{os.cpu_count()} cores of {processor()}",
        "history": [{name: _short(value) for name, value in epoch.items()} for epoch in history],
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    text = json.dumps(record) + "\n"
    write_atomically(row.result, lambda path: path.write_text(text))
    return True


def _short(value: float) -> float:
    return float(f"{value:.5g}")


def _suffixes(folder: Path) -> str:
    """Says of what files a folder of images is; nothing of another folder."""
    first = next((path for path in sorted((folder / "train").glob("*/*")) if path.is_file()), None)
    return f"a folder of {first.suffix.lstrip('.').upper()} images" if first else ""


def add_data_dir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data_dir",
        action="append",
        default=[],
        metavar="DATASET=DIRECTORY",
        help="where a dataset is, as of keras-popup train; several times",
    )


def places(entries: list[str]) -> dict[str, str]:
    """Returns the directory of each dataset that `--data_dir` names."""
    wrong = [entry for entry in entries if "=" not in entry]
    if wrong:
        sys.exit(f"--data_dir must be DATASET=DIRECTORY, such as cifar10=cifar10. Received: {wrong[0]}")
    return dict(entry.split("=", 1) for entry in entries)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", nargs="*", default=[], metavar="PATTERN", help="names of groups or rows, with * and ?"
    )
    parser.add_argument("--list", action="store_true", help="show the rows and their commands, and train nothing")
    parser.add_argument("--resume", action="store_true", help="go on with rows that were interrupted")
    parser.add_argument("--again", action="store_true", help="train rows that have a result too, and replace it")
    add_data_dir(parser)
    parser.add_argument("flags", nargs="*", help="after --: where to train, by --strategy and --devices")
    arguments = parser.parse_args()
    if any(flag.removeprefix("--").split("=")[0] not in PLACES for flag in arguments.flags):
        parser.error(f"only --{' and --'.join(PLACES)}=... may be added to a row. Received: {arguments.flags}.")
    where = places(arguments.data_dir)
    chosen = list(rows(arguments.only))
    if not chosen:
        parser.error(f"no row matches {arguments.only}. Groups: {', '.join(GROUPS)}")
    if arguments.list:
        for row in chosen:
            state = "done" if row.result.exists() else "begun" if row.folder.exists() else "    "
            print(f"{state:5}  {row.name}\n       keras-popup {shlex.join(row.command(where))}")
        done = sum(row.result.exists() for row in chosen)
        print(f"{done} of {len(chosen)} rows are done. Groups: {', '.join(GROUPS)}")
        return
    waiting = [row for row in chosen if arguments.again or not row.result.exists()]
    print(f"{len(chosen) - len(waiting)} of {len(chosen)} rows are done." + ("" if waiting else " See --again."))
    begun = ["--resume"] if arguments.resume else ["--overwrite"] if arguments.again else []
    failed = [row.name for row in waiting if not run(row, where, [*arguments.flags, *begun])]
    if failed:
        sys.exit(f"These rows were not finished: {', '.join(failed)}. What is wrong stands above, at each.")


if __name__ == "__main__":
    main()
