"""Changes the protocol of edge-popup one part at a time, and all good parts together.

Each run leaves a line in benchmarks/results/recipe.jsonl, which docs/recipes.md shows. Runs that have one are skipped.

python benchmarks/recipe.py --data_dir cifar10                      all runs of ResNet8
python benchmarks/recipe.py --data_dir cifar10 --network conv4      those of Conv4
python benchmarks/recipe.py --data_dir cifar10 --network conv4 --epochs 30 --precision float32
python benchmarks/recipe.py --data_dir cifar10 --part 0/2           every second run: two processes share the work
python benchmarks/recipe.py --table
"""

import argparse
import statistics
from pathlib import Path
from typing import Any, NamedTuple

import keras
import lines
import tensorflow as tf
from fitting import count_steps, describe_run, fit, measure, ship, spread

import keras_popup

RESULT = Path(__file__).parent / "results" / "recipe.jsonl"

PAPER: dict[str, Any] = {
    "selector": "top_k",
    "k": 0.5,
    "optimizer": "sgd",
    "rate": 0.1,
    "momentum": 0.9,
    "l2": 1e-4,
    "batch": 128,
    "warmup": 0,
    "smoothing": 0.0,
    "ema": 0.0,
    "k_schedule": None,
    "train_norms": False,
}
"""The paper's protocol for small networks. The scale of the first scores is no part of it: a rate does the same."""


class Network(NamedTuple):
    """A network, its width, and the parts of the protocol that are changed."""

    build: Any
    width: float
    epochs: int
    changes: dict[str, dict[str, Any]]


_BETTER = {"rate": 0.5, "l2": 0.0}

_CHANGES: dict[str, dict[str, Any]] = {
    "paper": {},
    "rate 0.5": {"rate": 0.5},
    "no l2": {"l2": 0.0},
    "rate 0.5, no l2": _BETTER,
    "rate 2, no l2": {**_BETTER, "rate": 2.0},
    "warm-up of an epoch": {**_BETTER, "warmup": 1},
    "label smoothing 0.1": {**_BETTER, "smoothing": 0.1},
    "momentum 0.95": {**_BETTER, "momentum": 0.95},
    "mean of the scores, 0.998": {**_BETTER, "ema": 0.998},
    "k falls, cubic": {**_BETTER, "k_schedule": "cubic"},
    "Adam 3e-3": {**_BETTER, "optimizer": "adam", "rate": 3e-3},
    "signed": {**_BETTER, "selector": "signed"},
    "two coats": {**_BETTER, "selector": "multicoat:coats=2"},
    "two coats, rate 0.1": {**_BETTER, "selector": "multicoat:coats=2", "rate": 0.1},
    "warm-up and label smoothing": {**_BETTER, "warmup": 1, "smoothing": 0.1},
    "signed, warm-up and label smoothing": {**_BETTER, "selector": "signed", "warmup": 1, "smoothing": 0.1},
}
_NORMS = {**_BETTER, "train_norms": True}
_NORMS_AND_COATS = {**_NORMS, "selector": "multicoat:coats=2"}
_OF_NORMS: dict[str, dict[str, Any]] = {
    "trained norms": _NORMS,
    "trained norms, two coats": _NORMS_AND_COATS,
    "trained norms, two coats, rate 0.2": {**_NORMS_AND_COATS, "rate": 0.2},
    "trained norms, two coats, k = 0.3": {**_NORMS_AND_COATS, "k": 0.3},
    "trained norms, signed": {**_NORMS, "selector": "signed"},
    "trained norms, two coats, warm-up and label smoothing": {**_NORMS_AND_COATS, "warmup": 1, "smoothing": 0.1},
}

NETWORKS = {
    "resnet8": Network(keras_popup.models.ResNet8, 1.0, 8, {**_CHANGES, **_OF_NORMS}),
    "conv4": Network(keras_popup.models.Conv4, 0.25, 8, _CHANGES),
}


def train(
    network: str, recipe: dict[str, Any], seed: int, data: Any, epochs: int, width: float, precision: str
) -> dict[str, Any]:
    """Trains one network. Returns its accuracies and the bytes of its ticket."""
    chosen = NETWORKS[network]
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
    keras.config.set_dtype_policy(precision)
    l2 = keras.regularizers.L2(recipe["l2"] / 2) if recipe["l2"] else None
    model = keras_popup.mask_model(
        chosen.build(data.image_shape, classes=len(data.classes), width=width),
        k=recipe["k"],
        selector=recipe["selector"],
        train_norms=recipe["train_norms"],
        scores_regularizer=l2,
        seed=seed,
    )
    steps = count_steps(data, recipe["batch"])
    warmup = recipe["warmup"] * steps
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0 if warmup else recipe["rate"],
        epochs * steps - warmup,
        warmup_target=recipe["rate"] if warmup else None,
        warmup_steps=warmup,
    )
    mean = {"use_ema": True, "ema_momentum": recipe["ema"]} if recipe["ema"] else {}
    optimizer = (
        keras.optimizers.Adam(schedule, **mean)
        if recipe["optimizer"] == "adam"
        else keras.optimizers.SGD(schedule, momentum=recipe["momentum"], **mean)
    )
    callbacks = []
    if recipe["k_schedule"]:
        falls = keras_popup.callbacks.SCHEDULES[recipe["k_schedule"]](recipe["k"], round(0.7 * epochs * steps))
        callbacks.append(keras_popup.callbacks.KSchedule(falls))
    seconds, history = fit(
        model,
        data,
        optimizer,
        batch=recipe["batch"],
        epochs=epochs,
        seed=seed,
        smoothing=recipe["smoothing"],
        validate=True,
        callbacks=callbacks,
    )
    if recipe["ema"]:
        optimizer.finalize_variable_values(model.trainable_variables)
    info = ship(model, data)
    return {
        "network": network,
        "width": width,
        "epochs": epochs,
        "precision": precision,
        "seed": seed,
        "recipe": recipe,
        "accuracy": measure(model, data),
        "history": [round(value, 4) for value in history["val_accuracy"]],
        "training": round(history["accuracy"][-1], 4),
        "ticket_bytes": info.bytes,
        **describe_run(seconds),
    }


def table(network: str) -> str:
    """Returns a table of the runs of a network, in Markdown."""
    rows = [row for row in lines.read(RESULT) if row["network"] == network]
    text = [
        "| change | width, epochs, precision | seeds | validation accuracy, % | test accuracy, % | ticket, kB |",
        "|---|---|---:|---:|---:|---:|",
    ]
    kinds: dict[Any, list[Any]] = {}
    for row in rows:
        kinds.setdefault(tuple(row[key] for key in ("name", "width", "epochs", "precision")), []).append(row)
    for (name, width, epochs, precision), of_it in kinds.items():
        cells = [spread([row["accuracy"][split] for row in of_it]) for split in ("validation", "test")]
        size = statistics.mean(row["ticket_bytes"] for row in of_it) / 1000
        text.append(
            f"| {name} | {width:g}, {epochs}, {precision} | {len(of_it)} | {cells[0]} | {cells[1]} | {size:.1f} |"
        )
    return "\n".join(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", help="the directory of CIFAR-10")
    parser.add_argument("--network", default="resnet8", choices=NETWORKS)
    parser.add_argument("--epochs", type=int, help="default: 8, which the stored tables have")
    parser.add_argument("--width", type=float, help="default: that of the stored tables")
    parser.add_argument(
        "--precision",
        default="mixed_bfloat16",
        choices=["mixed_bfloat16", "float32"],
        help="float32 on a processor without instructions for bfloat16",
    )
    parser.add_argument("--only", nargs="*", default=[], help="the changes to train")
    parser.add_argument("--seeds", nargs="*", type=int, default=[1])
    parser.add_argument("--part", default="0/1", help="which of how many parts of the runs")
    parser.add_argument("--table", action="store_true", help="print the stored results, train nothing")
    arguments = parser.parse_args()
    if arguments.table:
        for network in NETWORKS:
            print(f"\n{network}\n\n{table(network)}")
        return
    chosen = NETWORKS[arguments.network]
    part, parts = map(int, arguments.part.split("/"))
    data = keras_popup.datasets.load(
        "cifar10", data_dir=arguments.data_dir, validation=0.1, augment="crop_flip", seed=1
    )
    runs = [(name, seed) for seed in arguments.seeds for name in arguments.only or chosen.changes]
    epochs = arguments.epochs or chosen.epochs
    width = arguments.width or chosen.width
    same = ("network", "name", "seed", "epochs", "width", "precision")
    done = {tuple(row[key] for key in same) for row in lines.read(RESULT)}
    for name, seed in runs[part::parts]:
        if (arguments.network, name, seed, epochs, width, arguments.precision) in done:
            continue
        recipe = {**PAPER, **chosen.changes[name]}
        row = train(arguments.network, recipe, seed, data, epochs, width, arguments.precision)
        print(f"{name}, seed {seed}: {row['accuracy']['validation']:.2%}, {row['seconds']} s", flush=True)
        lines.add(RESULT, {"name": name, **row})


if __name__ == "__main__":
    main()
