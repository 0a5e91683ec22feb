"""The table of all runs, in groups."""

import dataclasses
import fnmatch
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from keras_popup.training import RunConfig

RUNS = Path("runs/reproduce")
"""Where the rows are trained."""

SEEDS = (1, 2, 3)
FRACTIONS = (0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.98, 1.0)
FRACTIONS_ON_CIFAR = (0.1, 0.3, 0.5, 0.7, 0.9)
WIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)
KEPT = 133_100
"""The weights that are kept of the dense network at width 1 and k = 0.5."""
WIDTHS_OF_KEPT = (0.625, 0.75, 1.0, 2.0, 4.0)
"""Widths at which k is such that as many weights are kept."""
PAPERS = {
    "edge-popup": {"conv2": 77.7, "conv4": 85.8, "conv6": 88.1, "conv8": 88.5},
    "learned weights": {"conv2": 79.5, "conv4": 86.5, "conv6": 88.5, "conv8": 88.0},
    "supermask": {"conv2": 66.0, "conv4": 72.5, "conv6": 76.5},
}
"""The accuracies on CIFAR-10 that the papers report, in percent.

Edge-popup's are quoted from https://arxiv.org/abs/2101.06475, but for Conv8's. That and those of learned weights were
read off the plots of Ramanujan et al. The supermask's are those of Zhou et al., rescaled, with signed constants.
"""
KEPT_ON_IMAGENET = {"resnet50": 7.7, "resnet101": 13.3, "wide_resnet50": 20.6}
"""How many million weights the networks of Ramanujan et al. keep on ImageNet, k = 0.3."""
RESNET34_ON_IMAGENET = (21.8, 73.3)
"""The million weights of a ResNet34 with learned weights, and its accuracy, in the same paper."""
INITIALIZERS = ("signed_constant", "kaiming_normal", "kaiming_uniform", "xavier_normal")

# Zhou et al. use kernels of Glorot's standard deviation.
_SUPERMASK = {"method": "supermask", "kernel_initializer": "xavier_signed_constant"}

METHODS: dict[str, dict[str, Any]] = {
    "edge-popup": {"method": "edge-popup"},
    "supermask": _SUPERMASK,
    "supermask rescaled": {**_SUPERMASK, "rescale": True},
    "supermask, Adam": {**_SUPERMASK, "optimizer": "adam"},
    "supermask rescaled, Adam": {**_SUPERMASK, "rescale": True, "optimizer": "adam"},
    "supermask, edge-popup's kernels": {"method": "supermask"},
    "supermask rescaled, edge-popup's kernels": {"method": "supermask", "rescale": True},
    "learned weights": {"method": "dense"},
}
"""The methods that are compared, with their arguments."""

TRIED: dict[str, dict[str, tuple[float, ...]]] = {
    "fc": {
        "edge-popup": (0.1, 0.25, 0.5, 1.0, 2.0),
        "supermask": (10.0, 50.0, 200.0, 500.0, 1000.0),
        "supermask rescaled": (10.0, 50.0, 200.0, 500.0, 1000.0),
        "supermask, Adam": (0.01, 0.03, 0.1, 0.3, 1.0),
        "supermask rescaled, Adam": (0.01, 0.03, 0.1, 0.3, 1.0),
        "supermask, edge-popup's kernels": (10.0, 50.0, 200.0, 500.0, 1000.0),
        "supermask rescaled, edge-popup's kernels": (10.0, 50.0, 200.0, 500.0, 1000.0),
        "learned weights": (0.003, 0.01, 0.03, 0.1, 0.3),
    },
    "conv2": {"supermask rescaled": (10.0, 20.0, 50.0, 200.0, 500.0), "learned weights": (0.003, 0.01, 0.03, 0.1)},
    "conv4": {"supermask rescaled": (20.0, 50.0, 200.0, 500.0, 1000.0), "learned weights": (0.003, 0.01, 0.02, 0.03)},
    "conv4-narrow": {
        "edge-popup": (0.1, 0.25, 0.5, 1.0),
        "supermask rescaled": (200.0, 500.0, 1000.0, 2000.0),
        "supermask rescaled, Adam": (0.1, 0.3, 1.0, 3.0),
        "learned weights": (0.01, 0.03, 0.1),
    },
}
"""The learning rates that are tried for each method, by the network.

On Fashion-MNIST there are five for each method, with those of the papers. Conv2 and Conv4 are trained for few epochs: a
choice needs no more. The narrow Conv4 is trained to the end.
"""

IN_30_EPOCHS = ("conv2", "conv4")
"""The networks that are trained for 30 epochs on CIFAR-10."""

CHOSEN: dict[str, dict[str, float]] = {
    "fc": {
        "edge-popup": 0.5,
        "supermask": 500.0,
        "supermask rescaled": 200.0,
        "supermask, Adam": 0.1,
        "supermask rescaled, Adam": 0.3,
        "supermask, edge-popup's kernels": 200.0,
        "supermask rescaled, edge-popup's kernels": 200.0,
        "learned weights": 0.03,
    },
    "conv2": {"supermask rescaled": 50.0, "learned weights": 0.01},
    "conv4": {"supermask rescaled": 500.0, "learned weights": 0.01},
    "conv4-narrow": {
        "edge-popup": 0.5,
        "supermask rescaled": 1000.0,
        "supermask rescaled, Adam": 1.0,
        "learned weights": 0.03,
    },
}
"""The learning rates that are used.

The rows of the groups lr-* chose them, on the validation images. The page says where those rows show another choice.
"""

RATES_OF_EDGE_POPUP = (0.1, 0.5)
"""The paper's rate, and the rate that is better on Fashion-MNIST.

The rows that compare kernels, and those on CIFAR-10, are trained at both to the end.
"""

# Learned weights diverge at a little more than the paper's rate, 0.01. With a warm-up, which the paper does not have,
# they do not diverge.
_WARMED_UP: dict[str, Any] = {"learning_rate": 0.03, "warmup_epochs": 1.0}

_SHORT = {
    "kernel_initializer": "",
    "k": "k",
    "width": "width",
    "learning_rate": "lr",
    "epochs": "epochs",
    "precision": "",
    "seed": "seed",
}


@dataclasses.dataclass(frozen=True)
class Row:
    """One training run.

    Attributes:
        config: the arguments of the run. The place of the data is not among them.
        paper: the accuracy that the paper reports, in percent.
        data: the name of the data in `--data_dir`, where a dataset exists in two states. "" is the dataset's name.
    """

    config: RunConfig
    paper: float | None = None
    data: str = ""

    @property
    def name(self) -> str:
        """The arguments that are not the defaults. Rows with the same arguments have the same name."""
        config, default = self.config, RunConfig()
        parts = [self.data or config.dataset, config.model, config.method]
        for field in dataclasses.fields(RunConfig):
            value = getattr(config, field.name)
            named = field.name in ("dataset", "model", "method", "mask_statistics")
            if named or value == getattr(default, field.name):
                continue
            short = _SHORT.get(field.name, field.name + "=")
            if value is True:
                parts.append(field.name)
            else:
                parts.append(f"{short}{value:g}" if isinstance(value, int | float) else f"{short}{value}")
        return "-".join(parts)

    @property
    def folder(self) -> Path:
        """The folder that the row is trained in."""
        return RUNS / self.name

    def place(self, places: dict[str, str]) -> str | None:
        """Returns the directory of the data, or None."""
        return places.get(self.data or self.config.dataset)

    def command(self, places: dict[str, str]) -> list[str]:
        """Returns the arguments of `keras-popup`."""
        flags = []
        for field in dataclasses.fields(RunConfig):
            value = getattr(self.config, field.name)
            if value == field.default and field.name not in ("model", "method"):
                continue
            flags += [f"--{field.name}"] if value is True else [f"--{field.name}", f"{value}"]
        if place := self.place(places):
            flags += ["--data_dir", place]
        return ["train", *flags, "--out", str(self.folder)]


def fashion(method: str = "edge-popup", **arguments: Any) -> Row:
    """Returns a row on Fashion-MNIST: the dense network, 20 epochs, the chosen learning rate."""
    values = {"learning_rate": CHOSEN["fc"][method], **METHODS[method], "epochs": 20, **arguments}
    if values["method"] != "dense":
        values["mask_statistics"] = "history"
    return Row(RunConfig(model="fc", dataset="fashion_mnist", **values))


def fashion_seeds(method: str = "edge-popup", **arguments: Any) -> list[Row]:
    """Returns the same row for each seed."""
    return [fashion(method, seed=seed, **arguments) for seed in SEEDS]


def cifar(model: str, method: str = "edge-popup", paper: float | None = None, data: str = "", **arguments: Any) -> Row:
    """Returns a row on CIFAR-10."""
    values = {"precision": "mixed_bfloat16", **METHODS[method]}
    if values["method"] != "dense":
        values["mask_statistics"] = "history"
    return Row(RunConfig(model=model, dataset="cifar10", **{**values, **arguments}), paper, data)


def narrow_conv4(method: str = "edge-popup", **arguments: Any) -> Row:
    """Returns a row of a Conv4 that trains in minutes."""
    rate = CHOSEN["conv4-narrow"][method]
    protocol = {"width": 0.25, "epochs": 6, "precision": "float32", "warmup_epochs": 1.0, "learning_rate": rate}
    return cifar("conv4", method, **{**protocol, **arguments})


def narrow_conv4_seeds(method: str = "edge-popup", **arguments: Any) -> list[Row]:
    """Returns the same row for each seed."""
    return [narrow_conv4(method, seed=seed, **arguments) for seed in SEEDS]


def tried(network: str) -> dict[str, dict[float, Row]]:
    """Returns the rows that choose the learning rates of a network, by method and rate."""
    make = _TRIALS[network]
    return {
        method: {rate: make(method, learning_rate=rate) for rate in rates} for method, rates in TRIED[network].items()
    }


def _of_tried(network: str) -> list[Row]:
    return [row for by_rate in tried(network).values() for row in by_rate.values()]


def fashion_of_kept(width: float) -> list[Row]:
    """Returns the row of a width that keeps `KEPT` weights, for each seed."""
    hidden, last = int(300 * width), int(100 * width)
    return fashion_seeds(width=width, k=round(KEPT / (784 * hidden + hidden * last + last * 10), 4))


def _of_the_paper(model: str, method: str = "edge-popup", **arguments: Any) -> Row:
    """Returns a row by the paper's protocol, which has no validation images. Only its accuracy is measured."""
    paper = PAPERS[method][model] if arguments.keys() <= {"data"} else None
    return cifar(model, method, paper=paper, validation=0.0, mask_statistics=None, **arguments)


def _of_zhou(model: str, method: str = "supermask rescaled, Adam", **arguments: Any) -> Row:
    """Returns a row by the protocol of Zhou et al."""
    return cifar(model, method, paper=PAPERS["supermask"][model], recipe="zhou", **arguments)


def _short_resnet18(method: str = "edge-popup", **arguments: Any) -> Row:
    """Returns a row of a ResNet18 that trains in twenty minutes."""
    protocol = {"width": 0.25, "epochs": 5, "precision": "float32", "warmup_epochs": 1.0}
    return cifar("resnet18", method, data="cifar10-original", **protocol, **arguments)


def _imagenet(model: str, initializer: str, paper: float) -> Row:
    """Returns a row of the paper on ImageNet. These rows are not trained here."""
    config = RunConfig(model=model, dataset="imagenet2012", k=0.3, kernel_initializer=initializer, validation=0.0)
    return Row(config, paper)


_TRIALS: dict[str, Callable[..., Row]] = {
    "fc": fashion,
    "conv4-narrow": narrow_conv4,
    **{model: functools.partial(cifar, model, epochs=5) for model in IN_30_EPOCHS},
}

RANDOM = [Row(RunConfig(model="fc", dataset="fashion_mnist", method="random", k=0.5, seed=seed)) for seed in SEEDS]
"""Random masks of untrained networks."""

_BOTH = ("edge-popup", "learned weights")

GROUPS: dict[str, list[Row]] = {
    "lr-fc": _of_tried("fc"),
    "k-curve": [row for k in FRACTIONS for row in fashion_seeds(k=k)],
    "methods": [*[row for method in METHODS for row in fashion_seeds(method)], *RANDOM],
    "initializers": [
        row
        for rate in RATES_OF_EDGE_POPUP
        for name in INITIALIZERS
        for row in fashion_seeds(kernel_initializer=name, learning_rate=rate)
    ],
    "warm-up-fc": [row for method in _BOTH for row in fashion_seeds(method, warmup_epochs=1.0)],
    "scaled": fashion_seeds(k=0.3, scaled=True),
    "widths": [row for width in WIDTHS for method in _BOTH for row in fashion_seeds(method, width=width)],
    "widths-kept": [row for width in WIDTHS_OF_KEPT for row in fashion_of_kept(width)],
    "conv2-100": [
        _of_the_paper("conv2"),
        _of_the_paper("conv2", "learned weights"),
        _of_the_paper("conv2", learning_rate=0.5),
    ],
    "conv2-100-original": [
        _of_the_paper("conv2", data="cifar10-original"),
        _of_the_paper("conv2", "learned weights", data="cifar10-original"),
    ],
    "zhou": [
        _of_zhou("conv2", epochs=40, learning_rate=0.1),
        _of_zhou("conv4", epochs=24, learning_rate=0.1),
    ],
    # The same until about the best epoch by the validation images, which Conv2 reaches in 20.
    "zhou-original": [
        *(_of_zhou(model, data="cifar10-original", epochs=20, learning_rate=0.1) for model in ("conv2", "conv4")),
        _of_zhou("conv2", "supermask rescaled", data="cifar10-original", epochs=20, learning_rate=400.0),
        _of_zhou("conv2", "supermask rescaled", data="cifar10-original", epochs=66, precision="float32"),
        # Their code can lower the rate by steps. A cosine does so without steps to choose.
        _of_zhou("conv2", data="cifar10-original", epochs=20, learning_rate=0.1, schedule="cosine"),
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
for _model in IN_30_EPOCHS:
    GROUPS[f"lr-{_model}"] = _of_tried(_model)
    GROUPS[f"{_model}-30"] = [
        *[cifar(_model, learning_rate=rate, epochs=30) for rate in RATES_OF_EDGE_POPUP],
        *[cifar(_model, method, learning_rate=CHOSEN[_model][method], epochs=30) for method in TRIED[_model]],
        cifar(_model, "learned weights", **_WARMED_UP, epochs=30),
    ]
GROUPS |= {
    "float32": [
        cifar("conv2", learning_rate=0.5, epochs=30, precision="float32"),
        cifar("conv2", "learned weights", learning_rate=0.01, epochs=5, precision="float32"),
    ],
    "warm-up": [
        cifar("conv4", "learned weights", **_WARMED_UP, epochs=5),
        cifar("conv2", learning_rate=0.5, warmup_epochs=1.0, epochs=15),
    ],
    "conv2-15": [
        *[cifar("conv2", k=k, learning_rate=0.5, epochs=15) for k in FRACTIONS_ON_CIFAR],
        cifar("conv2", kernel_initializer="kaiming_normal", learning_rate=0.5, epochs=15),
    ],
    "conv4-k": [
        *[row for k in FRACTIONS_ON_CIFAR for row in narrow_conv4_seeds(k=k)],
        *narrow_conv4_seeds("learned weights"),
    ],
    "lr-conv4-narrow": _of_tried("conv4-narrow"),
    "conv4-narrow": [
        *[row for method in TRIED["conv4-narrow"] for row in narrow_conv4_seeds(method)],
        *narrow_conv4_seeds(warmup_epochs=None),
    ],
    "resnet18": [
        *[_short_resnet18(k=k, learning_rate=0.5) for k in (0.5, 0.2)],
        _short_resnet18("learned weights", learning_rate=0.1),
    ],
    "larger": [
        _of_the_paper("conv4"),
        _of_the_paper("conv4", "learned weights"),
        _of_the_paper("conv6"),
        _of_the_paper("conv6", "learned weights"),
        *[_of_the_paper("conv4", width=width) for width in (0.5, 1.5, 2.0)],
    ],
}

NOT_RUN_HERE = ("imagenet",)
"""Groups that run only when they are named."""


def group_of(row: Row) -> str:
    """Returns the first group that has the row: its result is stored in the file of that group."""
    return next(group for group, members in GROUPS.items() if any(member.name == row.name for member in members))


def matching(patterns: list[str]) -> Iterator[Row]:
    """Yields the rows whose group or name matches a pattern, each once. Without patterns it yields all to be run."""
    found: dict[str, Row] = {}
    for group, members in GROUPS.items():
        named = not patterns and group not in NOT_RUN_HERE
        of_group = named or any(fnmatch.fnmatchcase(group, pattern) for pattern in patterns)
        for row in members:
            if of_group or any(fnmatch.fnmatchcase(row.name, pattern) for pattern in patterns):
                found.setdefault(row.name, row)
    yield from found.values()
