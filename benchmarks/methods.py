"""Compares the ways to find a subnetwork: at equal k, and at equal bytes of the ticket.

Each run leaves a line in benchmarks/results/methods.jsonl. Runs that have a line are skipped. docs/methods.md shows
their means. Each case has the best of its network's learning rates, by the accuracy of its first seed on validation
images.

python benchmarks/methods.py --data_dir tfds                              Fashion-MNIST, 300-100-10
python benchmarks/methods.py --data_dir cifar10 --network resnet8         CIFAR-10, ResNet8
python benchmarks/methods.py --data_dir cifar10 --network conv2           CIFAR-10, Conv2 with few weights
python benchmarks/methods.py --table
"""

import argparse
import itertools
import statistics
import tempfile
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import keras
import lines
import numpy as np
import tensorflow as tf
from fitting import count_steps, describe_run, fit, measure, ship, spread

import keras_popup

RESULT = Path(__file__).parent / "results" / "methods.jsonl"
BATCH = 128


class Method(NamedTuple):
    """A selector, and what changes kernels in training."""

    selector: str
    redraw: Any = None


METHODS = {
    "top_k": Method("top_k"),
    "half of the weights pruned by the seed": Method("top_k:pruned=0.5"),
    "global_top_k": Method("global_top_k"),
    "signed": Method("signed"),
    "multicoat, 2 coats": Method("multicoat:coats=2"),
    "multicoat, 3 coats": Method("multicoat:coats=3"),
    "IteRand": Method("top_k", keras_popup.callbacks.IterativeRandomization),
    "weight recycling": Method("top_k", keras_popup.callbacks.Recycle),
    "n_m, 2:4": Method("n_m:m=4"),
    "block, 4 x 4": Method("block:size=4"),
}
# Those whose k is free, which are compared at equal k too.
OF_K = ("top_k", "global_top_k", "signed", "multicoat, 2 coats", "IteRand", "weight recycling")


class Network(NamedTuple):
    """A network, its data, and how it is trained.

    The budget is of bytes. Methods are compared at equal k with each of `fractions`, and at equal bytes with those of
    `at_bytes`.
    """

    build: Any
    dataset: str
    augment: str
    epochs: int
    rates: tuple[float, ...]
    seeds: tuple[int, ...]
    at_bytes: dict[str, tuple[float, ...]]
    budget: int = 0
    step_of_groups: float = 1.0  # of widths whose layers groups of four divide, but for the first one
    fractions: tuple[float, ...] = ()
    width: float = 1.0  # where methods are compared at equal k
    train_norms: bool = False
    learned_rates: tuple[float, ...] = (0.01, 0.03, 0.1)
    learned_widths: tuple[float, ...] = (0.0625, 0.125, 0.25, 0.5, 1.0)


# Learned weights, beside the masks: as they are and in Keras's integers.
LEARNED = {"learned weights, float32": None, "learned weights, int8": "int8", "learned weights, int4": "int4"}

NETWORKS = {
    "fc": Network(
        keras_popup.models.FullyConnected,
        "fashion_mnist",
        "none",
        epochs=5,
        rates=(0.1, 0.5, 2.0),
        seeds=(1, 2, 3),
        budget=16_384,
        step_of_groups=0.04,
        at_bytes={
            "top_k": (0.5, 0.3, 0.1),
            "half of the weights pruned by the seed": (0.25,),
            "global_top_k": (0.5, 0.3, 0.1),
            "signed": (0.3, 0.1),
            "multicoat, 2 coats": (0.5, 0.3),
            "multicoat, 3 coats": (0.5,),
            "IteRand": (0.5, 0.3),
            "weight recycling": (0.5, 0.3),
            "n_m, 2:4": (0.5,),
            "block, 4 x 4": (0.5,),
        },
        fractions=(0.02, 0.05, 0.1, 0.5),
    ),
    "conv2": Network(
        keras_popup.models.Conv2,
        "cifar10",
        "crop_flip",
        epochs=5,
        rates=(0.5, 2.0),
        seeds=(1,),
        at_bytes={},
        fractions=(0.02, 0.1),
        width=0.25,
        learned_widths=(),
    ),
    # The rate is the best of recipe.py. A network of blocks that fits would be so wide that it trains for hours.
    "resnet8": Network(
        keras_popup.models.ResNet8,
        "cifar10",
        "crop_flip",
        epochs=6,
        rates=(0.5,),
        seeds=(1,),
        budget=24_576,
        step_of_groups=0.25,
        train_norms=True,
        at_bytes={
            "top_k": (0.5,),
            "IteRand": (0.5,),
            "weight recycling": (0.5,),
            "multicoat, 2 coats": (0.3,),
            "global_top_k": (0.3,),
        },
        learned_rates=(0.1,),
        learned_widths=(1.0,),
    ),
}


def build(network: str, method: Method, k: float, width: float, seed: int, shape: Any, classes: int) -> keras.Model:
    chosen = NETWORKS[network]
    plain = chosen.build(shape, classes=classes, width=width)
    exclude = [layer for layer in plain.layers if _cannot_be_masked(layer, method.selector)]
    return keras_popup.mask_model(
        plain, k=k, selector=method.selector, exclude=exclude, train_norms=chosen.train_norms, seed=seed
    )


def _cannot_be_masked(layer: Any, selector: str) -> bool:
    """Tells whether N does not divide the inputs of a layer: of the first one, mostly."""
    size = int(selector.partition("=")[2]) if selector.startswith("n_m") else 1
    return hasattr(layer, "kernel") and layer.kernel.shape[-2] % size != 0


def bytes_at_most(model: keras.Model, method: Method) -> int:
    """Returns the bytes of a ticket if training leaves no pattern in the masks, and no round number in the norms."""
    random = np.random.default_rng(1)
    for norm in model.layers:
        if isinstance(norm, keras.layers.BatchNormalization):
            norm.set_weights([random.uniform(0.5, 1, value.shape) for value in norm.get_weights()])
    summary = keras_popup.mask_summary(model, print_fn=lambda text: None)
    with tempfile.TemporaryDirectory() as folder:
        info = keras_popup.save_ticket(model, Path(folder, "a.ticket"))
    redrawn = summary.kept // 8 if method.redraw else 0  # turned signs, a bit for each kept weight
    return info.bytes - info.mask_bytes + summary.entropy_bytes + redrawn


def find_width(network: str, method: Method, k: float, shape: Any, classes: int) -> float:
    """Returns the largest width, a multiple of a step, whose ticket fits into the budget."""
    chosen = NETWORKS[network]
    step = chosen.step_of_groups if method.selector.startswith("n_m") else 1 / 16

    def fits(width: float) -> bool:
        try:
            model = build(network, method, k, width, 1, shape, classes)
        except ValueError:  # k keeps nothing of a layer that is so narrow
            return True
        return bytes_at_most(model, method) <= chosen.budget

    number = next(number for number in itertools.count(1) if not fits(round((number + 1) * step, 4)))
    return round(number * step, 4)


def train(network: str, name: str, k: float, width: float, rate: float, seed: int, data: Any) -> dict:
    method = METHODS[name]
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
    model = build(network, method, k, width, seed, data.image_shape, len(data.classes))
    seconds = fit_by_rate(model, network, rate, seed, data, [method.redraw()] if method.redraw else [])
    info = ship(model, data)
    size = {"ticket_bytes": info.bytes, "weights": sum(row.weights for row in info.layers)}
    return {
        **describe(network, name, k, width, rate, seed),
        "accuracy": measure(model, data),
        **size,
        **describe_run(seconds),
    }


def describe(network: str, method: str, k: float, width: float, rate: float, seed: int) -> dict[str, Any]:
    """Returns what a row says of how its network was trained."""
    epochs = NETWORKS[network].epochs
    return {"network": network, "method": method, "k": k, "width": width, "rate": rate, "epochs": epochs, "seed": seed}


def fit_by_rate(model: keras.Model, network: str, rate: float, seed: int, data: Any, callbacks: list[Any]) -> float:
    """Trains a network with a learning rate that falls by a cosine. Returns the seconds."""
    epochs = NETWORKS[network].epochs
    schedule = keras.optimizers.schedules.CosineDecay(rate, epochs * count_steps(data, BATCH))
    optimizer = keras.optimizers.SGD(schedule, momentum=0.9)
    return fit(model, data, optimizer, batch=BATCH, epochs=epochs, seed=seed, callbacks=callbacks)[0]


def learn(network: str, width: float, rate: float, seed: int, data: Any) -> list[dict]:
    """Trains all weights. Returns a row for the weights as they are, and one for each kind of integers."""
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
    model = NETWORKS[network].build(data.image_shape, classes=len(data.classes), width=width)
    seconds = fit_by_rate(model, network, rate, seed, data, [])
    rows = []
    for name, integers in LEARNED.items():
        shipped, arrays = round_weights(model, integers) if integers else (model, model.get_weights())
        size = {
            "ticket_bytes": sum(len(zlib.compress(array.tobytes(), 9)) for array in arrays),
            "weights": model.count_params(),
        }
        described = describe(network, name, 1.0, width, rate, seed)
        rows.append({**described, "accuracy": measure(shipped, data), **size, **describe_run(seconds)})
    return rows


def round_weights(model: keras.Model, integers: str) -> tuple[keras.Model, list[np.ndarray]]:
    """Returns a copy of a network whose kernels are integers, and the arrays that it is shipped as."""
    rounded = keras.models.clone_model(model)
    rounded.set_weights(model.get_weights())
    arrays, as_integers = [], set()
    for layer in rounded.layers:
        if isinstance(layer, keras.layers.Conv2D):  # Keras's `quantize` leaves it as it is.
            arrays += round_kernel(layer.kernel, integers)
            as_integers.add(id(layer.kernel))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* does not have a `quantize` method")
        rounded.quantize(integers)
    # g_idx are numbers from 0 up, which nobody ships.
    arrays += [each.numpy() for each in rounded.variables if each.name != "g_idx" and id(each) not in as_integers]
    rounded.compile("sgd", keras.losses.CategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return rounded, arrays


def round_kernel(kernel: Any, integers: str) -> tuple[np.ndarray, np.ndarray]:
    """Rounds the kernel of a convolution. Returns the integers, two in a byte of int4, and the scales.

    Each output channel has a scale of its own, as in LiteRT.
    """
    most = {"int8": 127, "int4": 7}[integers]
    scales = np.abs(kernel.numpy()).max((0, 1, 2)) / most
    values = np.round(kernel.numpy() / scales).astype(np.int8)
    kernel.assign(values * scales)
    if integers == "int4":
        pairs = np.pad(values.ravel(), (0, values.size % 2)).reshape(-1, 2) & 15
        values = (pairs[:, 0] | pairs[:, 1] << 4).astype(np.uint8)
    return values, scales


class Case(NamedTuple):
    """What is trained with each learning rate by seed 1, and with the best of them by the other seeds."""

    comparison: str
    method: str
    k: float
    width: float


def plan(network: str, methods: list[str], shape: Any, classes: int) -> Iterator[Case]:
    """Yields what is compared: methods at equal k, methods at equal bytes, and learned weights."""
    chosen, learned = NETWORKS[network], next(iter(LEARNED))
    for name, k in itertools.product(OF_K, chosen.fractions):
        if name in methods:
            yield Case("k", name, k, chosen.width)
    for name, fractions in chosen.at_bytes.items():
        for k in fractions:
            if name in methods:
                yield Case("bytes", name, k, find_width(network, METHODS[name], k, shape, classes))
    if learned in methods:
        yield from (Case("learned", learned, 1.0, width) for width in chosen.learned_widths)


def read_rows(network: str) -> dict[Case, list[dict]]:
    """Returns the stored rows of each case."""
    rows: dict[Case, list[dict]] = {}
    for row in lines.read(RESULT):
        if row["network"] == network:
            rows.setdefault(Case(row["comparison"], row["method"], row["k"], row["width"]), []).append(row)
    return rows


def find_best(rows: list[dict]) -> list[dict]:
    """Returns the rows of a case with the learning rate that has the best validation accuracy with seed 1."""
    best = max((row for row in rows if row["seed"] == 1), key=lambda row: row["accuracy"]["validation"])
    return [row for row in rows if row["rate"] == best["rate"]]


def run(network: str, data: Any, methods: list[str], part: int, parts: int) -> None:
    chosen = NETWORKS[network]
    cases = plan(network, methods, data.image_shape, len(data.classes))
    for case in itertools.islice(cases, part, None, parts):
        rates = chosen.learned_rates if case.comparison == "learned" else chosen.rates
        for seed in chosen.seeds:
            for rate in rates if seed == 1 else [find_best(read_rows(network)[case])[0]["rate"]]:
                if any((row["rate"], row["seed"]) == (rate, seed) for row in read_rows(network).get(case, ())):
                    continue
                if case.comparison == "learned":
                    rows = learn(network, case.width, rate, seed, data)
                else:
                    rows = [train(network, case.method, case.k, case.width, rate, seed, data)]
                for row in rows:
                    lines.add(RESULT, {"comparison": case.comparison, **row})
                accuracy = rows[0]["accuracy"]["test"]
                print(f"{', '.join(map(str, case))}, seed {seed}, rate {rate}: {accuracy:.2%}", flush=True)


def table(network: str, comparison: str) -> str:
    text = ["| method | k | width | learning rate | weights | bytes | test accuracy, % |"]
    text.append("|---|---:|---:|---:|---:|---:|---:|")
    for case, rows in read_rows(network).items():
        if case.comparison != comparison:
            continue
        best = find_best(rows)
        size = round(statistics.mean(row["ticket_bytes"] for row in best))
        text.append(
            f"| {case.method} | {case.k:g} | {case.width:g} | {best[0]['rate']:g} | {best[0]['weights']:,} | {size:,} "
            f"| {spread([row['accuracy']['test'] for row in best])} |"
        )
    return "\n".join(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", help="directory of TensorFlow Datasets, or folder of images")
    parser.add_argument("--network", default="fc", choices=NETWORKS)
    names = [*METHODS, next(iter(LEARNED))]
    parser.add_argument("--methods", nargs="*", default=names, choices=names, metavar="NAME", help="train only these")
    parser.add_argument("--part", default="0/1", help="which of how many parts of the runs: processes share the work")
    parser.add_argument("--table", action="store_true", help="print the stored results, train nothing")
    arguments = parser.parse_args()
    if arguments.table:
        for network in NETWORKS:
            for comparison in ("k", "bytes", "learned"):
                print(f"\n{network}, {comparison}\n\n{table(network, comparison)}")
        return
    chosen = NETWORKS[arguments.network]
    data = keras_popup.datasets.load(
        chosen.dataset, data_dir=arguments.data_dir, validation=0.1, augment=chosen.augment, seed=1
    )
    run(arguments.network, data, arguments.methods, *map(int, arguments.part.split("/")))


if __name__ == "__main__":
    main()
