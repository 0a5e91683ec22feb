"""The runtimes of exported files: each runs a file on a batch.

They are given the names of the model's inputs and outputs, and return the outputs by name.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf


def _run_saved_model(path: Path, names: list[str], batch: list[Any], outputs: list[str]) -> dict[str, np.ndarray]:
    # The loader that TensorFlow Serving uses: a graph, a session and a tag, without anything of Keras.
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        signature = tf.compat.v1.saved_model.load(session, ["serve"], str(path)).signature_def["serving_default"]
        tensors = _by_name({name: info.name for name, info in signature.inputs.items()}, names)
        fetched = {name: signature.outputs[name].name for name in outputs}
        return session.run(fetched, dict(zip(tensors, batch, strict=True)))


def _run_litert(path: Path, names: list[str], batch: list[Any], outputs: list[str]) -> dict[str, np.ndarray]:
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(str(path)).get_signature_runner()
    keys = _by_name({name: name for name in runner.get_input_details()}, names)
    found = runner(**dict(zip(keys, batch, strict=True)))
    return {name: found[name] for name in outputs}


def _run_onnx(path: Path, names: list[str], batch: list[Any], outputs: list[str]) -> dict[str, np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    keys = _by_name({entry.name: entry.name for entry in session.get_inputs()}, names)
    return dict(zip(outputs, session.run(None, dict(zip(keys, batch, strict=True))), strict=True))


RUNTIMES: dict[str, Callable[[Path, list[str], list[Any], list[str]], dict[str, np.ndarray]]] = {
    "saved_model": _run_saved_model,
    "litert": _run_litert,
    "litert_sparse": _run_litert,
    "litert_int8": _run_litert,
    "onnx": _run_onnx,
}


def _by_name(found: dict[str, str], names: list[str]) -> list[str]:
    """Returns what is found for the model's inputs, in their order. One alone may have been renamed."""
    return list(found.values()) if len(names) == 1 else [found[name] for name in names]
