"""Compares the ways to find a subnetwork: at equal k, and at equal bytes of the ticket.

Each run leaves a line in benchmarks/results/methods.jsonl. Runs that have a line are skipped. docs/methods.md shows
their means. The learning rate of each method is the best of three, by the accuracy on validation images.

python benchmarks/methods.py --data_dir tfds                              Fashion-MNIST, 300-100-10
python benchmarks/methods.py --data_dir cifar10 --network resnet8         CIFAR-10, ResNet8
python benchmarks/methods.py --table
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import keras
import lines
import tensorflow as tf

import keras_popup
from keras_popup._versions import find_processor

RESULT = Path(__file__).parent / "results" / "methods.jsonl"
BATCH = 128
RATES = (0.1, 0.5, 2.0)


class Method(NamedTuple):
    """A selector, the fractions kept at which it is compared at equal bytes, and how often weights are redrawn."""

    selector: str
    fractions: tuple[float, ...]
    redraw_every: int = 0


METHODS = {
    "top_k": Method("top_k", (0.5, 0.3, 0.1)),
    "half of the weights pruned by the seed": Method("top_k:pruned=0.5", (0.25,)),
    "signed": Method("signed", (0.3, 0.1)),
    "multicoat, 2 coats": Method("multicoat:coats=2", (0.5, 0.3)),
    "multicoat, 3 coats": Method("multicoat:coats=3", (0.5,)),
    "IteRand": Method("top_k", (0.5, 0.3), 300),
    "n_m, 2:4": Method("n_m:m=4", (0.5,)),
    "block, 4 x 4": Method("block:size=4", (0.5,)),
}
# Those whose k is free, which are compared at equal k too.
OF_K = ("top_k", "signed", "multicoat, 2 coats", "IteRand")


class Network(NamedTuple):
    """A network, its data, and how long it is trained."""

    build: Any
    dataset: str
    augment: str
    epochs: int
    fractions: tuple[float, ...]
    budget: int
    seeds: tuple[int, ...]


NETWORKS = {
    "fc": Network(
        keras_popup.models.FullyConnected, "fashion_mnist", "none", 5, (0.02, 0.05, 0.1, 0.5), 16_384, (1, 2, 3)
    ),
    "resnet8": Network(keras_popup.models.ResNet8, "cifar10", "crop_flip", 6, (), 24_576, (1,)),
}


def build(network: str, method: Method, k: float, width: float, seed: int, shape: Any, classes: int) -> keras.Model:
    plain = NETWORKS[network].build(shape, classes=classes, width=width)
    exclude = [layer for layer in plain.layers if _cannot_be_masked(layer, method.selector)]
    return keras_popup.mask_model(plain, k=k, selector=method.selector, exclude=exclude, seed=seed)


def _cannot_be_masked(layer: Any, selector: str) -> bool:
    """Tells whether N does not divide the inputs of a layer: of the first one, mostly."""
    size = int(selector.partition("=")[2]) if selector.startswith("n_m") else 1
    return hasattr(layer, "kernel") and layer.kernel.shape[-2] % size != 0


def bytes_at_most(model: keras.Model, method: Method) -> int:
    """Returns the bytes of a ticket if training leaves no pattern in the masks."""
    summary = keras_popup.mask_summary(model, print_fn=lambda text: None)
    with tempfile.TemporaryDirectory() as folder:
        info = keras_popup.save_ticket(model, Path(folder, "a.ticket"))
    redrawn = summary.kept // 8 if method.redraw_every else 0  # turned signs, a bit for each kept weight
    return info.bytes - info.mask_bytes + summary.entropy_bytes + redrawn


def find_width(network: str, method: Method, k: float, shape: Any, classes: int) -> float:
    """Returns the largest width in steps of 1/16 whose ticket fits into the budget."""
    step, width = 1 / 16, 1 / 16
    while True:
        try:
            model = build(network, method, k, width + step, 1, shape, classes)
        except ValueError:  # N does not divide a layer of this width
            width += step
            continue
        if bytes_at_most(model, method) > NETWORKS[network].budget:
            return width
        width += step


def train(network: str, name: str, k: float, width: float, rate: float, seed: int, data: Any) -> dict:
    method, chosen = METHODS[name], NETWORKS[network]
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
    model = build(network, method, k, width, seed, data.image_shape, len(data.classes))
    steps = -(-data.train.size // BATCH)
    schedule = keras.optimizers.schedules.CosineDecay(rate, chosen.epochs * steps)
    model.compile(
        keras.optimizers.SGD(schedule, momentum=0.9),
        keras.losses.CategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    scale = data.preprocessing()

    def prepare(images, labels):
        return scale(images), labels

    redraw = keras_popup.callbacks.IterativeRandomization(method.redraw_every) if method.redraw_every else None
    begin = time.perf_counter()
    model.fit(
        data.training_batches(BATCH, seed=seed, epochs=chosen.epochs).map(prepare),
        epochs=chosen.epochs,
        steps_per_epoch=steps,
        shuffle=False,
        verbose=0,
        callbacks=[redraw] if redraw else [],
    )
    seconds = time.perf_counter() - begin
    accuracy = {
        split: model.evaluate(data.evaluation_batches(split, 1000).map(prepare), verbose=0)[1]
        for split in ("validation", "test")
    }
    with tempfile.TemporaryDirectory() as folder:
        info = keras_popup.save_ticket(model, Path(folder, "a.ticket"), preprocess=[scale])
    return {
        "network": network,
        "method": name,
        "k": k,
        "width": width,
        "rate": rate,
        "epochs": chosen.epochs,
        "seed": seed,
        "accuracy": accuracy,
        "ticket_bytes": info.bytes,
        "weights": sum(row.weights for row in info.layers),
        "seconds": round(seconds, 1),
        "machine": f"{os.cpu_count()} cores of {find_processor()}",
    }


def plan(network: str, sizes: dict[tuple[str, float], float]) -> list[tuple[str, str, float, float]]:
    """Returns what is compared: (comparison, method, k, width)."""
    at_k = [("k", name, k, 1.0) for k in NETWORKS[network].fractions for name in OF_K]
    return at_k + [("bytes", name, k, width) for (name, k), width in sizes.items()]


def find_rate(network: str, name: str) -> float:
    """Returns the best learning rate of a method, of those that were tried with the first seed."""
    tried = [row for row in lines.read(RESULT) if row["network"] == network and row["comparison"] == "rates"]
    of_it = {row["rate"]: row["accuracy"]["validation"] for row in tried if row["method"] == name}
    return max(of_it, key=lambda rate: of_it[rate])


def run(network: str, data: Any) -> None:
    done = {
        (row["comparison"], row["method"], row["k"], row["rate"], row["seed"])
        for row in lines.read(RESULT)
        if row["network"] == network
    }

    def run_one(comparison: str, name: str, k: float, width: float, rate: float, seed: int) -> None:
        if (comparison, name, k, rate, seed) in done:
            return
        row = {"comparison": comparison, **train(network, name, k, width, rate, seed, data)}
        print(f"{comparison}, {name}, k {k}, seed {seed}, rate {rate}: {row['accuracy']['test']:.2%}", flush=True)
        lines.add(RESULT, row)

    shape, classes = data.image_shape, len(data.classes)
    sizes = {
        (name, k): find_width(network, method, k, shape, classes)
        for name, method in METHODS.items()
        for k in method.fractions
    }
    for name, method in METHODS.items():
        for rate in RATES:
            k = method.fractions[0]
            run_one("rates", name, k, sizes[name, k], rate, 1)
    for seed in NETWORKS[network].seeds:
        for comparison, name, k, width in plan(network, sizes):
            run_one(comparison, name, k, width, find_rate(network, name), seed)


def table(network: str, comparison: str) -> str:
    rows = [row for row in lines.read(RESULT) if (row["network"], row["comparison"]) == (network, comparison)]
    text = ["| method | k | width | learning rate | weights | ticket, bytes | test accuracy, % |"]
    text.append("|---|---:|---:|---:|---:|---:|---:|")
    for name, k in dict.fromkeys((row["method"], row["k"]) for row in rows):
        of_it = [row for row in rows if (row["method"], row["k"]) == (name, k)]
        accuracies = [100 * row["accuracy"]["test"] for row in of_it]
        spread = f" ± {statistics.stdev(accuracies):.2f}" if len(of_it) > 1 else " (one seed)"
        size = round(statistics.mean(row["ticket_bytes"] for row in of_it))
        first = of_it[0]
        text.append(
            f"| {name} | {k:g} | {first['width']:g} | {first['rate']:g} | {first['weights']:,} | {size:,} | "
            f"{statistics.mean(accuracies):.2f}{spread} |"
        )
    return "\n".join(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", help="directory of TensorFlow Datasets, or folder of images")
    parser.add_argument("--network", default="fc", choices=NETWORKS)
    parser.add_argument("--table", action="store_true", help="print the stored results, train nothing")
    arguments = parser.parse_args()
    if arguments.table:
        for network in NETWORKS:
            for comparison in ("rates", "k", "bytes"):
                print(f"\n{network}, {comparison}\n\n{table(network, comparison)}")
        return
    chosen = NETWORKS[arguments.network]
    data = keras_popup.datasets.load(
        chosen.dataset, data_dir=arguments.data_dir, validation=0.1, augment=chosen.augment, seed=1
    )
    run(arguments.network, data)


if __name__ == "__main__":
    main()
