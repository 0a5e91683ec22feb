"""Times the callbacks against the training that they watch, in turn.

For KSchedule, steps of training with a new k for each step are timed against steps without the callback. For
MaskStatistics, its work at the end of an epoch is timed against an epoch of --steps steps.

python benchmarks/instruments.py --models fc,conv2
"""

import argparse

from pairs import Table, compare, parser, timed
from train_step import build

from keras_popup.callbacks import KSchedule, Linear, MaskStatistics

SHORT = 10
"""Steps in a run that times KSchedule."""


def main() -> None:
    arguments = parser(__doc__, runs=8)
    arguments.add_argument("--models", default="fc,conv2")
    arguments.add_argument("--precision", default="mixed_bfloat16")
    arguments.add_argument("--batch_size", type=int, default=128)
    arguments.add_argument(
        "--steps", type=int, default=391, help="steps in an epoch (default: %(default)s, as on CIFAR-10)"
    )
    arguments = arguments.parse_args()
    table = Table(("model", "callback"), arguments)
    for name in arguments.models.split(","):
        for callback, measured in measure(name, arguments).items():
            table.add(measured, name, callback)
    table.write()


def measure(name: str, arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    model, batches = build(name, arguments.precision, "edge-popup", arguments.batch_size)
    model.fit(batches, steps_per_epoch=1, verbose=0, shuffle=False)
    iterator = iter(batches)

    def train(steps: int, schedule: KSchedule | None = None) -> None:
        for step in range(steps):
            model.train_function(iterator)
            if schedule:
                schedule.on_train_batch_end(step)
        model.optimizer.iterations.numpy()

    schedule, statistics = KSchedule(Linear(0.5, 10**6)), MaskStatistics()
    for callback in (schedule, statistics):
        callback.set_model(model)
        callback.set_params({"steps": 10**6})
        callback.on_train_begin()
    schedule.on_epoch_begin(0)
    statistics.on_train_batch_begin(0)
    with_schedule, without = (timed(lambda each=each: train(SHORT, each), SHORT) for each in (schedule, None))
    end, epoch = timed(lambda: statistics.on_epoch_end(0)), timed(lambda: train(arguments.steps))
    return {
        "KSchedule": compare(with_schedule, without, arguments.runs),
        "MaskStatistics": compare(end, epoch, max(2, arguments.runs // 2)),
    }


if __name__ == "__main__":
    main()
