"""Runs exported files with their runtimes.

Each function runs a file on a batch. It takes the names of the model's inputs and outputs, and returns the outputs by
name.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf
from numpy.typing import NDArray

Outputs = dict[str, NDArray[Any]]


def _run_saved_model(path: Path, names: list[str], batch: list[Any], outputs: list[str]) -> Outputs:
    # As TensorFlow Serving does: a graph, a session and a tag, without Keras.
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        signature = tf.compat.v1.saved_model.load(session, ["serve"], str(path)).signature_def["serving_default"]
        tensors = _order_keys({name: info.name for name, info in signature.inputs.items()}, names)
        fetched = {name: signature.outputs[name].name for name in outputs}
        results: Outputs = session.run(fetched, dict(zip(tensors, batch, strict=True)))
    return results


def _run_litert(path: Path, names: list[str], batch: list[Any], outputs: list[str]) -> Outputs:
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(str(path)).get_signature_runner()
    keys = _order_keys({name: name for name in runner.get_input_details()}, names)
    results = runner(**dict(zip(keys, batch, strict=True)))
    return {name: results[name] for name in outputs}


def _run_onnx(path: Path, names: list[str], batch: list[Any], outputs: list[str]) -> Outputs:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    keys = _order_keys({entry.name: entry.name for entry in session.get_inputs()}, names)
    return dict(zip(outputs, session.run(None, dict(zip(keys, batch, strict=True))), strict=True))


RUNTIMES: dict[str, Callable[[Path, list[str], list[Any], list[str]], Outputs]] = {
    "tf_saved_model": _run_saved_model,
    "litert": _run_litert,
    "litert_sparse": _run_litert,
    "litert_int8": _run_litert,
    "onnx": _run_onnx,
}


def _order_keys(keys: dict[str, str], names: list[str]) -> list[str]:
    """Returns the file's keys of the model's inputs, in the order of `names`. A single input may have another name."""
    return list(keys.values()) if len(names) == 1 else [keys[name] for name in names]
