"""Learns many tasks one after the other on one random network, a mask each, and finds out which task a batch is from.

Five tasks of two classes of Fashion-MNIST, and 50 tasks whose pixels are permuted. Beside it: learned weights, trained
for one task after the other. The protocol is that of SupSup (arXiv 2006.14769) on a network of our own.

python benchmarks/supsup.py --data_dir tfds     # writes benchmarks/results/supsup.jsonl, a line per seed and kind
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import keras
import lines
import numpy as np
import tensorflow_datasets as tfds

import keras_popup
from keras_popup._processor import find_processor

RESULT = Path(__file__).parent / "results" / "supsup.jsonl"
BATCH, K = 128, 0.5
# Tasks, classes, outputs, epochs. Outputs of no class make the entropy tell tasks apart (section 3.4 of the paper).
KINDS = {"split": (5, 2, 2, 5), "permuted": (50, 10, 100, 1), "permuted, 10 outputs": (50, 10, 10, 1)}
SIZES = (1, 16, 128)  # images by which the task is found


def load(data_dir: str, split: str) -> tuple[np.ndarray, np.ndarray]:
    images, labels = tfds.as_numpy(
        tfds.load("fashion_mnist", split=split, batch_size=-1, as_supervised=True, data_dir=data_dir, download=False)
    )
    return images.astype(np.float32) / 127.5 - 1, labels


def make_task(data: tuple[np.ndarray, np.ndarray], kind: str, number: int) -> tuple[np.ndarray, np.ndarray]:
    images, labels = data
    if kind == "split":
        own = labels // 2 == number
        return images[own], labels[own] % 2
    order = np.random.default_rng(number).permutation(28 * 28)
    return images.reshape(-1, 28 * 28)[:, order].reshape(images.shape), labels


def fit(model: keras.Model, data: tuple[np.ndarray, np.ndarray], epochs: int, optimizer: str) -> None:
    steps = epochs * -(-len(data[0]) // BATCH)
    schedule = keras.optimizers.schedules.CosineDecay(0.1 if optimizer == "SGD" else 1e-3, steps)
    made = keras.optimizers.SGD(schedule, momentum=0.9) if optimizer == "SGD" else keras.optimizers.Adam(schedule)
    model.compile(made, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(*data, batch_size=BATCH, epochs=epochs, verbose=0)


def predict(model: keras.Model, images: np.ndarray) -> np.ndarray:
    return model.predict(images, batch_size=1000, verbose=0)


def run(kind: str, seed: int, data_dir: str, width: float) -> dict:
    count, classes, outputs, epochs = KINDS[kind]
    train, test = load(data_dir, "train"), load(data_dir, "test")
    keras.utils.set_random_seed(seed)
    begin = time.perf_counter()
    network = keras_popup.models.FullyConnected(classes=outputs, width=width)
    base = keras_popup.strip_masks(keras_popup.mask_model(network, k=1.0, seed=seed))
    learned = keras_popup.models.FullyConnected(classes=outputs, width=width)
    tasks, sizes, then, at_once = keras_popup.TaskMasks(base, max_in_use=2), [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(count):
            data, tested = make_task(train, kind, number), make_task(test, kind, number)
            masked = keras_popup.mask_model(network, k=K, seed=seed)
            fit(masked, data, epochs, "SGD")
            file = Path(folder, "task.ticket")
            sizes.append(keras_popup.save_ticket(masked, file, base=base, preprocess=[]).bytes)
            tasks.add(str(number), file)
            then.append(predict(tasks[str(number)], tested[0]))
            fit(learned, data, epochs, "Adam")
            at_once.append(float(np.mean(predict(learned, tested[0]).argmax(-1) == tested[1])))
            print(kind, seed, number, f"{np.mean(then[-1].argmax(-1) == tested[1]):.2%}", flush=True)
        pack = tasks.save(Path(folder, "all.tickets"))
    given, after, changed = [], [], 0
    found: dict[str, list[bool]] = {}
    rng = np.random.default_rng(seed)
    for number in range(count):
        images, labels = make_task(test, kind, number)
        now = predict(tasks[str(number)], images)
        changed += not np.array_equal(now, then[number])
        given.append(float(np.mean(now.argmax(-1) == labels)))
        after.append(float(np.mean(predict(learned, images).argmax(-1) == labels)))
        for size in SIZES:
            for _ in range(4):
                batch = images[rng.choice(len(images), size, replace=False)]
                for rule in ("gradient", "halving", "each"):
                    name = tasks.infer(batch, rule=rule)
                    found.setdefault(f"{rule}, {size}", []).append(name == str(number))
    right = {name: float(np.mean(each)) for name, each in found.items()}
    return {
        "kind": kind,
        "seed": seed,
        "tasks": count,
        "width": width,
        "k": K,
        "classes": classes,
        "outputs": outputs,
        "epochs": epochs,
        "given": float(np.mean(given)),
        "found": right,
        "changed": changed,
        "ticket_bytes": float(np.mean(sizes)),
        "pack_bytes": pack,
        "learned_at_once": float(np.mean(at_once)),
        "learned_after_all": float(np.mean(after)),
        "learned_bytes": 4 * learned.count_params(),
        "seconds": round(time.perf_counter() - begin),
        "machine": f"{os.cpu_count()} cores of {find_processor()}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True, help="directory of TensorFlow Datasets")
    parser.add_argument("--kinds", default=";".join(KINDS))
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--width", type=float, default=1.0)
    arguments = parser.parse_args()
    for seed in map(int, arguments.seeds.split(",")):
        for kind in arguments.kinds.split(";"):
            if any((row["kind"], row["seed"]) == (kind, seed) for row in lines.read(RESULT)):
                continue
            row = run(kind, seed, arguments.data_dir, arguments.width)
            lines.add(RESULT, row)
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
