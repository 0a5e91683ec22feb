"""Measures the sizes of trained networks as tickets and as other files, and the speed of tickets.

The script trains the networks that are not in --out yet, and continues interrupted training. Conv2, Conv4 and Conv6
train on CIFAR-10 for 5 epochs. ResNets would take long there; they train on the small digits for 8 epochs. The script
prints a Markdown table. With --speed it prints the weights per second on one core, and the memory that is needed, as a
multiple of the memory of the kernels.

python benchmarks/tickets.py --data_dir cifar10 --out runs/tickets
"""

import gzip
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras
from pairs import parser, processor

import keras_popup
from keras_popup import training
from keras_popup.training import RunConfig

COLUMNS = ("model", "k", "accuracy", "keras", "weights_h5", "keras_gzip", "litert_int8", "limit", "masks", "ticket")


def config(model: str, k: float, data_dir: str) -> RunConfig:
    data: dict[str, Any] = {
        "dataset": "cifar10",
        "data_dir": data_dir,
        "epochs": 5,
        "learning_rate": 0.1 if k < 0.2 else 0.5,
    }
    if model.startswith("resnet"):
        data = {"dataset": "digits", "epochs": 8, "batch_size": 64, "warmup_epochs": 0, "learning_rate": 0.1}
    return RunConfig(model=model, k=k, precision="mixed_bfloat16", **data)


def sizes(model: keras.Model) -> dict[str, int]:
    """Returns the bytes of a model as each kind of file, and the bytes of the masks in its ticket."""
    plain = keras_popup.strip_masks(model)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        plain.save(place / "m.keras")
        plain.save_weights(place / "m.weights.h5")
        keras_popup.export(plain, place / "m.tflite", "litert_int8")
        info = keras_popup.save_ticket(model, place / "m.ticket")
        return {
            "keras": (place / "m.keras").stat().st_size,
            "weights_h5": (place / "m.weights.h5").stat().st_size,
            "keras_gzip": len(gzip.compress((place / "m.keras").read_bytes(), 9)),
            "litert_int8": (place / "m.tflite").stat().st_size,
            "ticket": info.bytes,
            "masks": info.mask_bytes,
            "limit": round(info.limit_bytes),
            "weights": info.weights,
        }


def measured(function: Callable[[], Any], runs: int) -> tuple[float, float]:
    """Returns the median of the seconds, and the most bytes of memory that a call needed. It works on Linux only."""
    seconds, most = [], 0
    for _ in range(runs):
        Path("/proc/self/clear_refs").write_text("5")
        before = memory("VmRSS")
        start = time.perf_counter()
        result = function()
        seconds.append(time.perf_counter() - start)
        most = max(most, memory("VmHWM") - before)
        del result
    return statistics.median(seconds), most


def memory(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(field)).split()[1])


def speed(model: keras.Model, runs: int) -> dict[str, Any]:
    weights = sum(layer.scores.shape.num_elements() for layer in keras_popup.conversion.masked_layers(model))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.ticket"
        rows = {
            "save_ticket": lambda: keras_popup.save_ticket(model, path),
            "load_ticket": lambda: keras_popup.load_ticket(path),
            "verify_ticket": lambda: keras_popup.verify_ticket(path),
        }
        found = {}
        for name, function in rows.items():
            seconds, most = measured(function, runs)
            found[name] = {"weights_per_second": weights / seconds, "memory_of_kernels": most / (4 * weights)}
        return found


def main() -> None:
    arguments = parser(__doc__, runs=5)
    arguments.add_argument("--data_dir", required=True, help="the directory of CIFAR-10, as for keras-popup train")
    arguments.add_argument(
        "--out", type=Path, default=Path("runs/tickets"), help="the folder of the runs (default: %(default)s)"
    )
    arguments.add_argument("--models", default="conv2,conv4,conv6,resnet18,resnet50")
    arguments.add_argument("--k", default="0.5,0.3,0.1")
    arguments.add_argument("--speed", action="store_true", help="measure the speed on one core instead of the sizes")
    arguments = arguments.parse_args()
    if arguments.speed:
        os.sched_setaffinity(0, {0})
    print("| " + " | ".join(COLUMNS) + " |" if not arguments.speed else "", flush=True)
    rows = []
    for model in arguments.models.split(","):
        for k in map(float, arguments.k.split(",")):
            run = arguments.out / f"{model}-{k}"
            summary = training.train(config(model, k, arguments.data_dir), run, resume=run.exists())
            network = keras.models.load_model(run / "model.keras")
            row: dict[str, Any] = {"model": model, "k": k, "accuracy": summary["test"]["accuracy"]}
            row |= speed(network, arguments.runs) if arguments.speed else sizes(network)
            rows.append(row)
            cells = (f"{row[name]:,}" if isinstance(row.get(name), int) else f"{row.get(name)}" for name in COLUMNS)
            print(json.dumps(row) if arguments.speed else "| " + " | ".join(cells) + " |", flush=True)
    if arguments.json:
        versions = {name: version(name) for name in ("tensorflow", "keras", "numpy", "constriction")}
        machine = {"processor": processor(), "cores": os.cpu_count()}
        arguments.json.write_text(json.dumps({"machine": machine, "versions": versions, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
