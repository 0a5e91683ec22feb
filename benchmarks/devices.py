"""Times a training step on several devices, and the choice of weights on each device.

The step is that of `keras-popup train --devices ...`, which divides the batch. It is timed against a step on the first
device with the whole batch. The choice starts without a previous threshold. It is timed against an elementwise pass;
"GB/s" are the bytes of scores that it reads in a second.

python benchmarks/devices.py                                      use all GPUs
python benchmarks/devices.py --devices CPU:0,CPU:1 --threads 1    divide a CPU into two devices of one core each
"""

import keras
import numpy as np
import tensorflow as tf
from pairs import Table, compare, parser, repeated, timed

from keras_popup import distribution, selectors
from keras_popup.distribution import replicated
from keras_popup.training import RunConfig, experiment


def stepper(config: RunConfig, strategy: tf.distribute.Strategy, steps: int):
    """Returns a function, compiled and ready, that trains for a number of steps and waits for the last."""
    keras.utils.set_random_seed(1)
    rng = np.random.default_rng(1)
    images = rng.standard_normal((config.batch_size, 32, 32, 3)).astype(np.float32)
    labels = np.eye(10, dtype=np.float32)[rng.integers(0, 10, config.batch_size)]
    batches = tf.data.Dataset.from_tensors((images, labels)).repeat()
    with strategy.scope():
        model = experiment.build_model(config, images.shape[1:], 10)
        experiment.compile_model(model, config, steps=100)
        replicated.prepare(model, batches)
        model.optimizer.build(model.trainable_variables)
    step = replicated.trainer(model, strategy, batches)

    def run() -> None:
        for _ in range(steps):
            step()
        model.optimizer.iterations.numpy()

    return run


def finished(_: tf.Tensor) -> None:
    tf.test.experimental.sync_devices()


def choice(device: str, n: int, runs: int) -> dict[str, float]:
    with tf.device(device):
        scores = tf.random.stateless_normal([n], [1, 2])
        k = tf.constant(0.5, tf.float64)
        own = repeated(lambda: finished(selectors.TopK()(scores, k)), 4)
        elementwise = repeated(lambda: finished(tf.abs(scores) * 2), 4)
        return compare(own, elementwise, runs)


def main() -> None:
    arguments = parser(__doc__, runs=16)
    arguments.add_argument("--devices", help="the devices, such as GPU:0,GPU:1 (default: all GPUs)")
    arguments.add_argument("--models", default="conv2,conv4")
    arguments.add_argument("--precision", default="float32")
    arguments.add_argument(
        "--batch_size", type=int, default=128, help="images in a batch, over all devices (default: %(default)s)"
    )
    arguments.add_argument("--steps", type=int, default=3, help="steps in a run (default: %(default)s)")
    arguments.add_argument(
        "--scores", type=int, default=1 << 24, help="number of scores to choose from (default: %(default)s)"
    )
    arguments.add_argument(
        "--threads", type=int, help="threads of an operation, and operations at a time on each device"
    )
    arguments = arguments.parse_args()
    if arguments.threads:
        count = 1 + (arguments.devices or "").count(",")
        tf.config.threading.set_intra_op_parallelism_threads(arguments.threads)
        tf.config.threading.set_inter_op_parallelism_threads(arguments.threads * count)
    placement = distribution.place("mirrored", arguments.devices)
    one = tf.distribute.MirroredStrategy(placement.devices[:1])
    table = Table(("what", "precision", "devices", "GB/s"), arguments)
    for device in placement.devices:
        found = choice(device, arguments.scores, arguments.runs)
        bandwidth = f"{4e-6 * arguments.scores / found['own']:.2f}"
        table.add(found, f"choice of {arguments.scores} scores", "float32", device, bandwidth)
    for name in arguments.models.split(","):
        config = RunConfig(model=name, precision=arguments.precision, batch_size=arguments.batch_size).with_protocol()
        runs = [
            timed(stepper(config, strategy, arguments.steps), arguments.steps) for strategy in (placement.strategy, one)
        ]
        table.add(
            compare(*runs, arguments.runs), f"step of {name}", arguments.precision, ",".join(placement.devices), "-"
        )
    table.write()


if __name__ == "__main__":
    main()
