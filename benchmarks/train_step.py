"""Times a training step of a masked network against the same network with learned weights.

Both are built as `keras-popup train` builds them. They run in turn, in one process, on the same random batch.

With --memory the script measures the peak memory instead, each network in its own process. This works on Linux only.
"process" is the memory of the whole process; "step" does not count what the compilation of XLA programs leaves behind.

python benchmarks/train_step.py --models conv2,conv4 --precisions float32,mixed_bfloat16
python benchmarks/train_step.py --models conv2,resnet18 --memory
"""

import ctypes
import itertools
import multiprocessing
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from pairs import Table, compare, parser, timed

from keras_popup.training import RunConfig, experiment


def build(
    name: str, precision: str, method: str, batch_size: int, width: float = 1.0
) -> tuple[keras.Model, tf.data.Dataset]:
    """Returns a compiled model, and a dataset that repeats one batch."""
    keras.utils.set_random_seed(1)
    rng = np.random.default_rng(1)
    images = rng.standard_normal((batch_size, *((28, 28, 1) if name == "fc" else (32, 32, 3)))).astype(np.float32)
    labels = np.eye(10, dtype=np.float32)[rng.integers(0, 10, batch_size)]
    config = RunConfig(model=name, method=method, precision=precision, width=width).with_protocol()
    model = experiment.build_model(config, images.shape[1:], 10)
    experiment.compile_model(model, config, steps=100)
    return model, tf.data.Dataset.from_tensors((images, labels)).repeat()


def stepper(steps: int, *case) -> Callable[[], object]:
    """Returns a function, compiled and ready, that trains for a number of steps."""
    model, batches = build(*case)
    model.fit(batches, steps_per_epoch=1, verbose=0, shuffle=False)
    iterator = iter(batches)
    return lambda: [model.train_function(iterator) for _ in range(steps)]


def memory(*case) -> tuple[float, float]:
    """Returns the peak memory of this process in MB, in total and without what compilation leaves behind.

    The process must do nothing else.
    """
    model, batches = build(*case)
    built = status("VmRSS")
    model.fit(batches, steps_per_epoch=1, verbose=0, shuffle=False)
    first = status("VmHWM")
    ctypes.CDLL(None).malloc_trim(0)
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # Linux counts the peak from here on
    model.fit(batches, steps_per_epoch=5, verbose=0, shuffle=False)
    return max(first, status("VmHWM")), built + status("VmHWM") - before


def status(key: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(key)) / 1024


def main() -> None:
    arguments = parser(__doc__, runs=16)
    arguments.add_argument("--models", default="fc,conv2,conv4")
    arguments.add_argument("--precisions", default="float32,mixed_bfloat16")
    arguments.add_argument("--batch_size", type=int, default=128)
    arguments.add_argument("--width", type=float, default=1.0, help="of the networks (default: %(default)s)")
    arguments.add_argument("--method", default="edge-popup", help="edge-popup or supermask (default: %(default)s)")
    arguments.add_argument("--memory", action="store_true", help="measure memory, in MB, instead of time")
    arguments = arguments.parse_args()
    methods = arguments.method, "dense"
    size = arguments.batch_size, arguments.width
    cases = itertools.product(arguments.models.split(","), arguments.precisions.split(","))
    if arguments.memory:
        table = Table(("model", "precision", "of"), arguments, "MB")
        for case in cases:
            sides = []
            for method in methods:
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    sides.append(pool.apply(memory, (*case, method, *size)))
            for part, (own, base) in zip(("process", "step"), zip(*sides, strict=True), strict=True):
                table.add({"ratio": own / base, "own": own, "base": base}, *case, part)
    else:
        table = Table(("model", "precision"), arguments)
        for case in cases:
            steps = {"fc": 50, "resnet18": 1}.get(case[0], 3)
            runs = [timed(stepper(steps, *case, method, *size), steps) for method in methods]
            table.add(compare(*runs, arguments.runs), *case)
    table.write()


if __name__ == "__main__":
    main()
