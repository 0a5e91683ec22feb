"""Trains masked networks on Fashion-MNIST with several optimizers and schedules of the learning rate.

Each run leaves a line in benchmarks/results/optimizers.jsonl. Runs that have a line are skipped.
docs/choosing.md shows their means.

python benchmarks/optimizers.py --data_dir tfds
python benchmarks/optimizers.py --table
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import keras
import lines
import tensorflow as tf

import keras_popup
from keras_popup._versions import find_processor

RESULT = Path(__file__).parent / "results" / "optimizers.jsonl"
K, BATCH = 0.5, 128

# Name: (optimizer as a function of its learning rate or schedule, learning rate, whether it falls by a cosine, decay
# of the scores as in `scores_regularizer=L2(decay / 2)`)
SGD = {"momentum": 0.9}
RUNS = {
    'compile("sgd")': (lambda rate: keras.optimizers.SGD(rate), 0.01, False, 0.0),
    "SGD 0.1, momentum 0.9": (lambda rate: keras.optimizers.SGD(rate, **SGD), 0.1, True, 0.0),
    "SGD 0.5, momentum 0.9": (lambda rate: keras.optimizers.SGD(rate, **SGD), 0.5, True, 0.0),
    "SGD 0.5, momentum 0.9, constant": (lambda rate: keras.optimizers.SGD(rate, **SGD), 0.5, False, 0.0),
    "SGD 2, momentum 0.9": (lambda rate: keras.optimizers.SGD(rate, **SGD), 2.0, True, 0.0),
    "SGD 0.5, momentum 0.9, decay 1e-4": (lambda rate: keras.optimizers.SGD(rate, **SGD), 0.5, True, 1e-4),
    "SGD 0.5, momentum 0.9, decay 5e-4": (lambda rate: keras.optimizers.SGD(rate, **SGD), 0.5, True, 5e-4),
    'compile("adam")': (lambda rate: keras.optimizers.Adam(rate), 1e-3, False, 0.0),
    "Adam 1e-3": (lambda rate: keras.optimizers.Adam(rate), 1e-3, True, 0.0),
    "Adam 3e-3": (lambda rate: keras.optimizers.Adam(rate), 3e-3, True, 0.0),
    "AdamW 1e-3, weight_decay 0.004": (lambda rate: keras.optimizers.AdamW(rate), 1e-3, True, 0.0),
    "AdamW 1e-3, weight_decay 0.1": (lambda rate: keras.optimizers.AdamW(rate, weight_decay=0.1), 1e-3, True, 0.0),
    "Lion 1e-4": (lambda rate: keras.optimizers.Lion(rate), 1e-4, True, 0.0),
    "Lion 3e-4": (lambda rate: keras.optimizers.Lion(rate), 3e-4, True, 0.0),
}

# Conv2 takes 30 times as long.
OF_CONV2 = (
    "SGD 0.1, momentum 0.9",
    "SGD 0.5, momentum 0.9",
    'compile("sgd")',
    'compile("adam")',
    "Adam 1e-3",
    "AdamW 1e-3, weight_decay 0.004",
    "Lion 1e-4",
)
NETWORKS = {
    "fc": (keras_popup.models.FullyConnected, 1.0, 10, tuple(RUNS)),
    "conv2": (keras_popup.models.Conv2, 0.5, 5, OF_CONV2),
}


def train(network: str, name: str, seed: int, data: keras_popup.datasets.Dataset) -> dict:
    build, width, epochs, _ = NETWORKS[network]
    make, rate, falls, decay = RUNS[name]
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
    plain = build(data.image_shape, classes=len(data.classes), width=width)
    regularizer = keras.regularizers.L2(decay / 2) if decay else None
    model = keras_popup.mask_model(plain, k=K, seed=seed, scores_regularizer=regularizer)
    steps = epochs * -(-data.train.size // BATCH)
    schedule = keras.optimizers.schedules.CosineDecay(rate, steps) if falls else rate
    model.compile(make(schedule), keras.losses.CategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    scale = data.preprocessing()

    def prepare(images, labels):
        return scale(images), labels

    begin = time.perf_counter()
    model.fit(
        data.training_batches(BATCH, seed=seed, epochs=epochs).map(prepare),
        epochs=epochs,
        steps_per_epoch=steps // epochs,
        shuffle=False,
        verbose=0,
    )
    seconds = time.perf_counter() - begin
    accuracy = model.evaluate(data.evaluation_batches("test", 1000).map(prepare), verbose=0)[1]
    with tempfile.TemporaryDirectory() as folder:
        info = keras_popup.save_ticket(model, Path(folder, "a.ticket"), preprocess=[scale])
    return {
        "network": network,
        "width": width,
        "epochs": epochs,
        "optimizer": name,
        "cosine": falls,
        "seed": seed,
        "accuracy": accuracy,
        "ticket_bytes": info.bytes,
        "of_limit": info.mask_bytes / info.limit_bytes,
        "seconds": round(seconds, 1),
        "machine": f"{os.cpu_count()} cores of {find_processor()}",
    }


def table(network: str) -> str:
    rows = [row for row in lines.read(RESULT) if row["network"] == network]
    text = ["| optimizer, learning rate | falls by a cosine | test accuracy, % | ticket, kB | masks, of their limit |"]
    text.append("|---|---|---|---|---|")
    for name in RUNS:
        of_it = [row for row in rows if row["optimizer"] == name]
        if not of_it:
            continue
        accuracies = [100 * row["accuracy"] for row in of_it]
        spread = f" ± {statistics.stdev(accuracies):.2f}" if len(of_it) > 1 else " (one seed)"
        size, share = (statistics.mean(row[key] for row in of_it) for key in ("ticket_bytes", "of_limit"))
        accuracy = f"{statistics.mean(accuracies):.2f}{spread}"
        falls = "yes" if RUNS[name][2] else "no"
        text.append(f"| `{name}` | {falls} | {accuracy} | {size / 1000:.1f} | {share:.1%} |")
    return "\n".join(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", help="directory of TensorFlow Datasets")
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--table", action="store_true", help="print the stored results, train nothing")
    arguments = parser.parse_args()
    if arguments.table:
        for network in NETWORKS:
            print(f"\n{network}\n\n{table(network)}")
        return
    data = keras_popup.datasets.load("fashion_mnist", data_dir=arguments.data_dir, validation=0.0, augment="none")
    for network in arguments.networks.split(","):
        for seed in map(int, arguments.seeds.split(",")):
            for name in NETWORKS[network][3]:
                done = {(row["network"], row["optimizer"], row["seed"]) for row in lines.read(RESULT)}
                if (network, name, seed) in done:
                    continue
                row = train(network, name, seed, data)
                print(f"{network}, {name}, seed {seed}: {row['accuracy']:.2%}", flush=True)
                lines.add(RESULT, row)


if __name__ == "__main__":
    main()
