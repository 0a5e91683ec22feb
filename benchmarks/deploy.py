"""Measures sizes and latencies of each exported format.

Each row times a runtime against predict_on_batch of the unmasked Keras model, in turn, on the same batch. The masks
are those of untrained scores: size and time depend on k, not on which weights are kept.

python benchmarks/deploy.py --models conv6,resnet50 --k 0.3
"""

import gzip
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf
from pairs import Table, compare, parser, repeated

import keras_popup
from keras_popup import exports

SHAPES = {"fc": (28, 28, 1), "conv6": (32, 32, 3), "resnet50": (224, 224, 3)}
FILES = {"litert": "f.tflite", "litert_sparse": "s.tflite", "litert_int8": "i.tflite", "onnx": "m.onnx"}


def runner(runtime: str, path: str, images: np.ndarray, threads: int = 2) -> Callable[[], object]:
    """Returns a function that runs an exported file once. `threads` is for LiteRT and ONNX Runtime."""
    if runtime == "tf_saved_model":
        serve = tf.saved_model.load(path).signatures["serving_default"]
        (name,) = serve.structured_input_signature[1]
        tensor = tf.constant(images)
        return lambda: serve(**{name: tensor})["output_0"].numpy()
    if runtime == "onnx":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        return lambda: session.run(None, {name: images})
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(path, num_threads=threads)
    index = interpreter.get_input_details()[0]["index"]
    interpreter.resize_tensor_input(index, images.shape)
    interpreter.allocate_tensors()

    def run() -> object:
        interpreter.set_tensor(index, images)
        interpreter.invoke()
        return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])

    return run


def size(path: Path) -> tuple[int, int]:
    """Returns the bytes of a file or folder, and its bytes after compression with gzip."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    contents = [file.read_bytes() for file in files]
    return sum(map(len, contents)), sum(len(gzip.compress(content, 6)) for content in contents)


def main() -> None:
    arguments = parser(__doc__, runs=9)
    arguments.add_argument("--models", default="conv6,resnet50")
    arguments.add_argument("--width", type=float, default=1.0)
    arguments.add_argument("--k", type=float, default=0.3)
    arguments.add_argument("--batch_size", type=int, default=1)
    arguments.add_argument("--formats", default=",".join(exports.FORMATS))
    arguments.add_argument("--out", help="keep the exported files in this folder")
    arguments = arguments.parse_args()
    table = Table(("model", "format", "bytes", "gzip"), arguments)
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.models.split(","):
            shape = SHAPES[name]
            images = np.random.default_rng(0).random((arguments.batch_size, *shape)).astype(np.float32)
            dense = keras_popup.models.get(name)(shape, 1000 if name == "resnet50" else 10, arguments.width)
            masked = keras_popup.mask_model(dense, k=arguments.k, seed=1)
            stripped = keras_popup.strip_masks(masked)
            count = 3 if name == "resnet50" else 20
            base = repeated(lambda dense=dense, images=images: dense.predict_on_batch(images), count)
            stored = Path(arguments.out or folder) / name
            stored.mkdir(parents=True, exist_ok=True)
            for kind, model in (("masked", masked), ("stripped", stripped)):
                model.save(stored / f"{kind}.keras")
                run = repeated(lambda model=model, images=images: model.predict_on_batch(images), count)
                table.add(compare(run, base, arguments.runs), name, f"keras, {kind}", *size(stored / f"{kind}.keras"))
            for runtime in arguments.formats.split(","):
                path = stored / FILES.get(runtime, runtime)
                keras_popup.export(stripped, path, runtime, inputs=images)
                run = repeated(runner(runtime, str(path), images), count)
                table.add(compare(run, base, arguments.runs), name, runtime, *size(path))
    table.write()


if __name__ == "__main__":
    main()
