"""The memory of a process that trains one model after the other, as in a search of widths.

    python benchmarks/many_models.py
    python benchmarks/many_models.py --kind dense --count 60

Each model has another width. It is trained for two steps and used, and `keras.backend.clear_session()` is called after
it. Printed is the memory of the process after each, and how much it grows for each model after the fifth.
"""

import argparse
import gc
import json
from pathlib import Path

import keras
import numpy as np

import keras_popup


def read_memory() -> float:
    """Returns the memory of this process in MB, as Linux counts it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def use_model(kind: str, width: float) -> None:
    """Builds, trains and uses a model, and lets it go."""
    model = keras_popup.models.Conv4((32, 32, 3), 10, width=width)
    if kind == "masked":
        model = keras_popup.mask_model(model, k=0.5, seed=1)
    model.compile(keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x, y = np.zeros((8, 32, 32, 3), np.float32), np.zeros(8, int)
    for _ in range(2):
        model.train_on_batch(x, y)
    model.predict(x, verbose=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=("masked", "dense"), default="masked")
    parser.add_argument("--count", type=int, default=30, help="number of models; default: 30")
    parser.add_argument("--json", type=Path, help="a file to write the figures to")
    flags = parser.parse_args()
    memory = []
    for number in range(flags.count):
        use_model(flags.kind, 1.0 - 0.6 * number / flags.count)  # the largest first: what grows then is not given back
        keras.backend.clear_session()
        gc.collect()
        memory.append(read_memory())
        print(f"{number + 1:3} {memory[-1]:8.0f} MB", flush=True)
    growth = np.polyfit(range(flags.count - 5), memory[5:], 1)[0] if flags.count > 6 else float("nan")
    print(f"{flags.kind}: {growth:.2f} MB for each model after the fifth")
    if flags.json:
        flags.json.write_text(json.dumps({"kind": flags.kind, "memory": memory, "growth": growth}, indent=1) + "\n")


if __name__ == "__main__":
    main()
