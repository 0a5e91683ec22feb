"""Measures what leaving out dead channels brings, on networks whose masks were searched.

Each network is trained on the digits. Then each row times the smaller network against the whole one, in turn, both
stripped, in the same runtime, on the same batch.

python benchmarks/dead_channels.py --models fc,conv4,resnet18 --k 0.02
"""

import contextlib
import sys
import tempfile
from pathlib import Path

import keras
import numpy as np
from deploy import FILES, runner, size
from pairs import Table, compare, parser, repeated

import keras_popup
from keras_popup import conversion


def main() -> None:
    arguments = parser(__doc__, runs=9)
    arguments.add_argument("--models", default="fc,conv4,resnet18")
    arguments.add_argument("--width", type=float, default=0.25)
    arguments.add_argument("--k", type=float, default=0.02)
    arguments.add_argument("--epochs", type=int, default=20)
    arguments.add_argument("--batch_size", type=int, default=1)
    arguments.add_argument("--formats", default="litert,onnx")
    arguments = arguments.parse_args()
    columns = ("model", "accuracy", "channels", "leave", "weights", "weights left", "format", "bytes", "bytes left")
    table = Table(columns, arguments)
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.models.split(","):
            run = Path(folder) / name
            config = keras_popup.RunConfig(
                model=name, width=arguments.width, k=arguments.k, epochs=arguments.epochs, batch_size=64
            )
            with contextlib.redirect_stdout(sys.stderr):
                summary = keras_popup.train(config, run)
            masked = keras.models.load_model(run / "model.keras")
            whole = keras_popup.strip_masks(masked)
            smaller = keras_popup.strip_masks(masked, remove_dead=True)
            dead = conversion.find_dead(masked)
            found = name, f"{summary['test']['accuracy']:.4f}", dead.channels, dead.leaving
            found = *found, whole.count_params(), smaller.count_params()
            images = np.random.default_rng(0).random((arguments.batch_size, *whole.input_shape[1:]), np.float32)
            for runtime in arguments.formats.split(","):
                paths = [Path(folder) / f"{name}_{kind}_{FILES.get(runtime, runtime)}" for kind in ("whole", "smaller")]
                for model, path in zip((whole, smaller), paths, strict=True):
                    keras_popup.export(model, path, runtime, inputs=images)
                base, run_smaller = (repeated(runner(runtime, str(path), images), 200) for path in paths)
                measured = compare(run_smaller, base, arguments.runs)
                table.add(measured, *found, runtime, *(size(path)[0] for path in paths))
    table.write()


if __name__ == "__main__":
    main()
