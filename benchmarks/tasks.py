"""Brings a new task to a network that was trained for another one, in several ways, and counts the bytes of each.

The base is Conv4 at width 0.25, trained on seven classes of CIFAR-10; the new task are the other three. Each run
leaves a line in benchmarks/results/tasks.jsonl, and runs that have a line are skipped. docs/tasks.md shows the means.

python benchmarks/tasks.py base --images cifar10       # trains the base, into benchmarks/scratch
python benchmarks/tasks.py rates --images cifar10      # tries learning rates on a tenth of the training images
python benchmarks/tasks.py adapt --images cifar10      # the new task, by each method
python benchmarks/tasks.py prune --images cifar10      # the base's own task with fewer weights
python benchmarks/tasks.py table
python benchmarks/tasks.py plot --picture docs/img/tasks.png

--images is a folder with train/CLASS/*.jpg and test/CLASS/*.jpg.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import lines
import matplotlib
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

import keras_popup
from keras_popup import criteria
from keras_popup._processor import find_processor
from keras_popup._style import INK, MUTED, SERIES, matplotlib_settings
from keras_popup.tickets.file_format import pack

RESULT = Path(__file__).parent / "results" / "tasks.jsonl"
SCRATCH = Path(__file__).parent / "scratch"
BASE = SCRATCH / "base.keras"
OLD = ("airplane", "automobile", "deer", "frog", "horse", "ship", "truck")
NEW = ("bird", "cat", "dog")
WIDTH, BATCH, HEAD = 0.25, 128, "classes"
EPOCHS = {"base": 20, "adapt": 5, "prune": 10}
FRACTIONS = (0.5, 0.9, 0.7, 0.3, 0.2, 0.1)
PRUNED = (0.2, 0.05, 0.02, 0.01)  # whose tickets, with their values in float16, are as large as those of masks
SHARES = (0.5, 0.2, 0.1, 0.05)

Images = tuple[np.ndarray, np.ndarray]


def load_images(folder: Path, split: str, classes: tuple[str, ...]) -> Images:
    """Returns images as floats in [-1, 1], and their labels."""
    images, labels = [], []
    for label, name in enumerate(classes):
        for file in sorted((folder / split / name).glob("*.jpg")):
            images.append(tf.io.decode_jpeg(file.read_bytes()).numpy())
            labels.append(label)
    return np.stack(images).astype(np.float32) / 127.5 - 1, np.array(labels)


def batches(data: Images, seed: int) -> tf.data.Dataset:
    """Returns batches in random order, half of the images mirrored."""
    flip = tf.image.stateless_random_flip_left_right
    seeds = tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True).batch(2)
    order = tf.data.Dataset.from_tensor_slices(data).shuffle(len(data[0]), seed=seed)
    return tf.data.Dataset.zip(order, seeds).map(lambda each, s: (flip(each[0], s), each[1])).batch(BATCH)


def fit(model: keras.Model, data: Images, optimizer: str, rate: float, epochs: int, seed: int) -> None:
    steps = epochs * -(-len(data[0]) // BATCH)
    schedule = keras.optimizers.schedules.CosineDecay(rate, steps)
    sgd = optimizer == "SGD"
    made = keras.optimizers.SGD(schedule, momentum=0.9) if sgd else keras.optimizers.Adam(schedule)
    model.compile(made, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(batches(data, seed), epochs=epochs, verbose=0)


def measure_accuracy(model: keras.Model, data: Images) -> float:
    return float(np.mean(model.predict(data[0], batch_size=500, verbose=0).argmax(-1) == data[1]))


def count_bytes(weights: list[Any]) -> int:
    """Returns the size of weights, packed without loss as a ticket packs them."""
    return sum(len(pack(np.array(weight))) for weight in weights)


def ship(model: keras.Model, base: keras.Model | None, **options: Any) -> tuple[keras.Model, int]:
    """Returns the model that a ticket gives back, and the size of the ticket."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "task.ticket")
        info = keras_popup.save_ticket(model, file, base=base, preprocess=[], **options)
        return keras_popup.load_ticket(file, base=base), info.bytes


# Each method takes (the base with a new head, the base, k, a function that trains a model, the seed) and returns the
# model that is tested, and its bytes.
Train = Callable[[keras.Model], None]


def train_head(model: keras.Model, base: keras.Model, k: float, train: Train, seed: int) -> tuple[keras.Model, int]:
    for layer in model.layers:
        layer.trainable = layer.name == HEAD
    train(model)
    return model, count_bytes(model.trainable_weights)


def train_mask(scores: str) -> Callable[..., tuple[keras.Model, int]]:
    def run(model: keras.Model, base: keras.Model, k: float, train: Train, seed: int) -> tuple[keras.Model, int]:
        options = {"weights": "keep", "scores_initializer": scores, "exclude": HEAD, "seed": seed}
        masked = keras_popup.mask_model(model, k, **options)
        train(masked)
        return ship(masked, base)

    return run


def train_lora(model: keras.Model, base: keras.Model, k: float, train: Train, seed: int) -> tuple[keras.Model, int]:
    for layer in model.layers:
        layer.trainable = layer.name == HEAD
        if isinstance(layer, (keras.layers.Dense, keras.layers.Conv2D)) and layer.name != HEAD:
            layer.trainable = True
            layer.enable_lora(4)
    train(model)
    return model, count_bytes(model.trainable_weights)


def train_all(model: keras.Model, base: keras.Model, k: float, train: Train, seed: int) -> tuple[keras.Model, int]:
    train(model)
    return model, count_bytes(model.weights)


def prune(model: keras.Model, base: keras.Model, k: float, train: Train, seed: int) -> tuple[keras.Model, int]:
    """Trains all, prunes by magnitude, and trains what is left: twice the epochs."""
    train(model)
    masked = criteria.mask_trained(model, model, k, "large_final", "trained", masked=True)
    tuned = keras_popup.finetune(masked)
    train(tuned)
    return ship(tuned, None, values_dtype="float16")


def start_again(model: keras.Model, base: keras.Model, k: float, train: Train, seed: int) -> tuple[keras.Model, int]:
    keras.utils.set_random_seed(seed)
    new = keras_popup.models.Conv4(classes=len(NEW), width=WIDTH)
    train(new)
    return new, count_bytes(new.weights)


def mask_random(model: keras.Model, base: keras.Model, k: float, train: Train, seed: int) -> tuple[keras.Model, int]:
    new = keras_popup.mask_model(keras_popup.models.Conv4(classes=len(NEW), width=WIDTH), k, seed=seed)
    train(new)
    return ship(new, None)


ADAM = (("Adam", 1e-3), ("Adam", 3e-3), ("Adam", 1e-2))
SGD = (("SGD", 0.1), ("SGD", 0.5), ("Adam", 1e-3))
METHODS: dict[str, tuple[Callable[..., tuple[keras.Model, int]], tuple[float, ...], tuple[tuple[str, float], ...]]] = {
    "head alone": (train_head, (1.0,), ADAM),
    "mask, random start": (train_mask("score_uniform"), FRACTIONS, SGD),
    "mask, magnitude start": (train_mask("magnitude"), FRACTIONS, SGD),
    "LoRA, rank 4": (train_lora, (1.0,), ADAM),
    "all weights": (train_all, (1.0,), (("Adam", 3e-4), *ADAM[:2])),
    "all weights, pruned, tuned": (prune, PRUNED, (("Adam", 3e-4), *ADAM[:2])),
    "from nothing": (start_again, (1.0,), (("Adam", 3e-4), *ADAM[:2])),
    "from nothing, mask of random weights": (mask_random, (0.5,), SGD),
}


def run(task: str, method: str, k: float, optimizer: str, rate: float, seed: int, measure: Callable[..., dict]) -> None:
    """Makes one run and stores its line, if it has none."""
    place = {"task": task, "method": method, "k": k, "optimizer": optimizer, "rate": rate, "seed": seed}
    if any(all(row[name] == value for name, value in place.items()) for row in lines.read(RESULT)):
        return
    keras.utils.set_random_seed(seed)
    begin = time.perf_counter()
    found = measure(*place.values())
    row = {**place, **found, "seconds": round(time.perf_counter() - begin, 1)}
    row["machine"] = f"{os.cpu_count()} cores of {find_processor()}"
    lines.add(RESULT, row)
    print(json.dumps(row), flush=True)


def adapt(data: Images, tested: Images) -> Callable[..., dict]:
    """Returns a function that brings the new task to the base and measures it on some images."""

    def measure(task: str, method: str, k: float, optimizer: str, rate: float, seed: int) -> dict:
        base = keras.models.load_model(BASE)
        model = keras_popup.replace_head(base, len(NEW), seed=seed)
        epochs = EPOCHS["adapt"]

        def train(each: keras.Model) -> None:
            fit(each, data, optimizer, rate, epochs, seed)

        found, size = METHODS[method][0](model, base, k, train, seed)
        return {"accuracy": measure_accuracy(found, tested), "bytes": size, "epochs": epochs}

    return measure


def best_rate(method: str) -> tuple[str, float]:
    """Returns the optimizer and rate that were best on the validation images."""
    rows = [row for row in lines.read(RESULT) if (row["task"], row["method"]) == ("rates", method)]
    best = max(rows, key=lambda row: row["accuracy"])
    return best["optimizer"], best["rate"]


def train_base(folder: Path) -> None:
    SCRATCH.mkdir(exist_ok=True)
    if BASE.exists():
        return
    data, tested = load_images(folder, "train", OLD), load_images(folder, "test", OLD)

    def measure(task: str, method: str, k: float, optimizer: str, rate: float, seed: int) -> dict:
        model = keras_popup.models.Conv4(classes=len(OLD), width=WIDTH)
        fit(model, data, optimizer, rate, EPOCHS["base"], seed)
        model.save(BASE)
        return {
            "accuracy": measure_accuracy(model, tested),
            "bytes": count_bytes(model.weights),
            "epochs": EPOCHS["base"],
        }

    run("base", "all weights", 1.0, "Adam", 1e-3, 1, measure=measure)


def try_rates(folder: Path) -> None:
    images, labels = load_images(folder, "train", NEW)
    held_out = np.arange(len(labels)) % 10 == 0
    measure = adapt((images[~held_out], labels[~held_out]), (images[held_out], labels[held_out]))
    for method, (_, fractions, rates) in METHODS.items():
        for optimizer, rate in rates:
            run("rates", method, fractions[0], optimizer, rate, 0, measure=measure)


def run_adapt(folder: Path, seeds: list[int]) -> None:
    measure = adapt(load_images(folder, "train", NEW), load_images(folder, "test", NEW))
    for seed in seeds:
        for method, (_, fractions, _) in METHODS.items():
            for k in fractions:
                run("adapt", method, k, *best_rate(method), seed, measure=measure)


def run_prune(folder: Path, seeds: list[int]) -> None:
    data, tested = load_images(folder, "train", OLD), load_images(folder, "test", OLD)

    def measure(task: str, method: str, k: float, optimizer: str, rate: float, seed: int) -> dict:
        base = keras.models.load_model(BASE)
        scores = "score_uniform" if method == "mask, random start" else "magnitude"
        masked = keras_popup.mask_model(base, k, weights="keep", scores_initializer=scores, exclude=HEAD, seed=seed)
        epochs = 0 if method == "magnitude" else EPOCHS["prune"]
        if epochs:
            fit(masked, data, optimizer, rate, epochs, seed)
        found, size = ship(masked, base)
        return {"accuracy": measure_accuracy(found, tested), "bytes": size, "epochs": epochs}

    for seed in seeds:
        for k in SHARES:
            if seed == seeds[0]:
                run("prune", "magnitude", k, "none", 0.0, 0, measure=measure)
            for method in ("mask, magnitude start", "mask, random start"):
                run("prune", method, k, *best_rate(method), seed, measure=measure)


def mean_of(rows: list[dict], name: str) -> tuple[float, float]:
    values = [row[name] for row in rows]
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def group(task: str) -> dict[tuple[str, float], list[dict]]:
    """Returns the rows of a task by method and k."""
    found: dict[tuple[str, float], list[dict]] = {}
    for row in lines.read(RESULT):
        if row["task"] == task:
            found.setdefault((row["method"], row["k"]), []).append(row)
    return found


def print_tables() -> None:
    for task in ("base", "adapt", "prune"):
        print(f"\n{task}\n\n| method | k | accuracy, % | bytes | runs |\n|---|---|---|---|---|")
        for (method, k), rows in group(task).items():
            accuracy, spread = mean_of(rows, "accuracy")
            size, _ = mean_of(rows, "bytes")
            shown = f"{100 * accuracy:.1f}" + (f" ± {100 * spread:.1f}" if len(rows) > 1 else "")
            print(f"| {method} | {k if k < 1 else ''} | {shown} | {size:,.0f} | {len(rows)} |")
    print("\nrates\n")
    for (method, _), rows in group("rates").items():
        tried = ", ".join(f"{row['optimizer']} {row['rate']:g}: {row['accuracy']:.1%}" for row in rows)
        print(f"- {method}: {tried}")


def plot(picture: Path) -> None:
    """Draws accuracy over bytes: all methods on the left, masks with their k on the right."""
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    everything, masks = figure.subplots(1, 2, width_ratios=(1.4, 1))
    colors = {"mask, magnitude start": SERIES[1], "mask, random start": SERIES[0]}
    colors["all weights, pruned, tuned"] = MUTED
    found = group("adapt")
    for method, color in colors.items():
        points = sorted(
            (k, *mean_of(rows, "bytes"), *mean_of(rows, "accuracy"))
            for (name, k), rows in found.items()
            if name == method
        )
        ks, sizes, _, accuracies, spreads = zip(*points, strict=True)
        percent, bars = ([100 * each for each in values] for values in (accuracies, spreads))
        for axes in (everything, *([masks] if method.startswith("mask") else [])):
            axes.errorbar(sizes, percent, bars, color=color, marker="o", markersize=4, linewidth=1, label=method)
        for k, size, accuracy in zip(ks, sizes, percent, strict=True) if method.startswith("mask") else ():
            masks.annotate(f"{k:g}", (size, accuracy), (5, 3), textcoords="offset points", fontsize=8, color=color)
    singles = dict.fromkeys(name for name, _ in found if name not in colors)
    for marker, method in zip("sD^vP", singles, strict=True):
        rows = next(rows for (name, _), rows in found.items() if name == method)
        (accuracy, spread), (size, _) = mean_of(rows, "accuracy"), mean_of(rows, "bytes")
        everything.errorbar(size, 100 * accuracy, 100 * spread, color=INK, marker=marker, linestyle="", label=method)
    everything.set_xscale("log")
    everything.set_title("A second task for a trained Conv4")
    everything.legend(loc="lower right")
    masks.set_title("Masks, by k")
    for axes in (everything, masks):
        axes.set_xlabel("bytes shipped for the task")
        axes.set_ylabel("test accuracy, %")
    figure.savefig(picture, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["base", "rates", "adapt", "prune", "table", "plot"])
    parser.add_argument("--images", type=Path, help="folder with the JPEG files")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--picture", type=Path, help="the PNG file that plot writes")
    arguments = parser.parse_args()
    tf.config.experimental.enable_op_determinism()
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    if arguments.command == "base":
        train_base(arguments.images)
    elif arguments.command == "rates":
        try_rates(arguments.images)
    elif arguments.command == "adapt":
        run_adapt(arguments.images, seeds)
    elif arguments.command == "prune":
        run_prune(arguments.images, seeds)
    elif arguments.command == "table":
        print_tables()
    else:
        with matplotlib.rc_context(matplotlib_settings()):
            plot(arguments.picture)


if __name__ == "__main__":
    main()
