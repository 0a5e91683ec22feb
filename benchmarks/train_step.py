"""Times a training step of a masked network against the same network with learned weights.

The two are measured in turn, in one process, on the same random batch. Printed: the median ratio of the
paired runs with its quartiles, then the medians.

python benchmarks/train_step.py --models conv2,conv4 --precisions float32,mixed_bfloat16
"""

import argparse
import statistics
import time

import keras
import numpy as np
import tensorflow as tf

from keras_popup import training
from keras_popup.config import RunConfig


def stepper(config: RunConfig, images: np.ndarray, labels: np.ndarray, steps: int):
    """Returns a function that trains for some steps and returns the seconds a step took."""
    config = config.with_protocol()
    model = training.build_model(config, images.shape[1:], labels.shape[1])
    training.compile_model(model, config, steps=100)
    batches = tf.data.Dataset.from_tensors((images, labels)).repeat()

    def run() -> float:
        start = time.perf_counter()
        model.fit(batches, steps_per_epoch=steps, verbose=0, shuffle=False)
        return (time.perf_counter() - start) / steps

    run()
    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="fc,conv2,conv4")
    parser.add_argument("--precisions", default="float32,mixed_bfloat16")
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=5, help="steps a run")
    parser.add_argument("--runs", type=int, default=9, help="paired runs")
    arguments = parser.parse_args()

    keras.utils.set_random_seed(1)
    rng = np.random.default_rng(1)
    labels = np.eye(10, dtype=np.float32)[rng.integers(0, 10, arguments.batch_size)]
    print("model, precision: masked / dense (quartiles), masked ms, dense ms")
    for name in arguments.models.split(","):
        shape = (28, 28, 1) if name == "fc" else (32, 32, 3)
        images = rng.standard_normal((arguments.batch_size, *shape)).astype(np.float32)
        for precision in arguments.precisions.split(","):
            masked, dense = (
                stepper(RunConfig(model=name, method=method, precision=precision), images, labels, arguments.steps)
                for method in ("edge-popup", "dense")
            )
            pairs = [(masked(), dense()) for _ in range(arguments.runs)]
            low, median, high = statistics.quantiles([a / b for a, b in pairs], n=4)
            milliseconds = [1e3 * statistics.median(times) for times in zip(*pairs, strict=True)]
            print(
                f"{name}, {precision}: {median:.2f} ({low:.2f}-{high:.2f}), "
                f"{milliseconds[0]:.1f}, {milliseconds[1]:.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
