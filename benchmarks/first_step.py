"""The first step: seconds until it is done, and the memory of the process, of masked networks and of dense ones.

    python benchmarks/first_step.py
    python benchmarks/first_step.py --models Conv6 ResNet18 --runs 5

Each measurement is a process of its own, dense and masked in turn. Medians, and the ratio of masked to dense.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

# Of keras_popup.models, or of keras.applications, with the size of their images.
MODELS = {
    "FullyConnected": 28,
    "Conv2": 32,
    "Conv4": 32,
    "Conv6": 32,
    "ResNet18": 32,
    "ResNet50": 64,
    "MobileNetV2": 64,
    "EfficientNetV2B0": 64,
}
OF_APPLICATIONS = ("ResNet50", "MobileNetV2", "EfficientNetV2B0")
BATCH = 8
STEPS = 30


def build(name: str, masked: bool) -> Any:
    """Returns a network, compiled, with a batch for it."""
    import keras
    import numpy as np

    import keras_popup

    size, channels = MODELS[name], 1 if name == "FullyConnected" else 3
    shape = (size, size, channels)
    if name in OF_APPLICATIONS:
        model = getattr(keras.applications, name)(
            weights=None, input_shape=shape, classes=10, classifier_activation=None
        )
    else:
        model = getattr(keras_popup.models, name)(shape, 10)
    if masked:
        model = keras_popup.mask_model(model, k=0.5, seed=1)
    model.compile(
        keras.optimizers.SGD(0.01, momentum=0.9), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    rng = np.random.default_rng(1)
    return model, rng.random((BATCH, *shape), np.float32), rng.integers(0, 10, BATCH)


def measure(name: str, masked: bool) -> dict[str, float]:
    """Returns the seconds of the first step and prediction and of later steps, and the memory in MB."""
    model, x, y = build(name, masked)
    seconds = {}

    def timed(what: str, call: Any) -> None:
        start = time.perf_counter()
        call()
        seconds.setdefault(what, []).append(time.perf_counter() - start)

    timed("first step", lambda: model.train_on_batch(x, y))
    timed("first predict", lambda: model.predict(x, verbose=0))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    for _ in range(STEPS):
        timed("step", lambda: model.train_on_batch(x, y))
    return {what: statistics.median(each) for what, each in seconds.items()} | {"MB": memory}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS, metavar="MODEL")
    parser.add_argument("--runs", type=int, default=3, help="measurements of each; default: 3")
    parser.add_argument("--json", type=Path, help="a file to write the figures to")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.measure:
        print(json.dumps(measure(flags.measure[0], flags.measure[1] == "masked")))
        return
    rows = []
    print(f"{'':18}{'first step':>24}{'first predict':>24}{'step':>24}{'memory':>24}")
    for name in flags.models:
        measured: dict[str, list[dict[str, float]]] = {"dense": [], "masked": []}
        for _ in range(flags.runs):
            for kind, found in measured.items():
                command = [sys.executable, __file__, "--measure", name, kind]
                output = subprocess.run(
                    command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
                )
                found.append(json.loads(output.stdout.splitlines()[-1]))
        row: dict[str, Any] = {"model": name}
        cells = []
        for what, unit in (("first step", "s"), ("first predict", "s"), ("step", "s"), ("MB", "MB")):
            dense, masked = (statistics.median(each[what] for each in found) for found in measured.values())
            row[what] = {"dense": dense, "masked": masked}
            digits = 0 if unit == "MB" else 3 if what == "step" else 1
            cells.append(f"{dense:.{digits}f} {masked:.{digits}f} {unit} {masked / dense:5.2f}x")
        rows.append(row)
        print(f"{name:18}" + "".join(f"{cell:>24}" for cell in cells), flush=True)
    if flags.json:
        flags.json.write_text(json.dumps({"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
