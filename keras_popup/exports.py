"""Export of models for other runtimes, each file read back by its runtime before it is handed over."""

import contextlib
import dataclasses
import importlib.util
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_popup import _litert, composites, conversion, layers

# What each format needs beyond TensorFlow, and how its files are called.
_NEEDS: dict[str, tuple[str, ...]] = {
    "saved_model": (),
    "litert": ("ai_edge_litert",),
    "litert_sparse": ("ai_edge_litert",),
    "litert_int8": ("ai_edge_litert",),
    "onnx": ("onnx", "onnxruntime", "tf2onnx"),
}
_SUFFIXES = {"litert": ".tflite", "litert_sparse": ".tflite", "litert_int8": ".tflite", "onnx": ".onnx"}

FORMATS = tuple(_NEEDS)
"""The formats that `export` knows."""

_TOLERANCE, _ROUNDED_TOLERANCE = 1e-4, 0.1
_EXAMPLES = 4


class ExportError(RuntimeError):
    """An exported file does not compute what the model does, or its runtime cannot read it."""


@dataclasses.dataclass(frozen=True)
class Export:
    """An exported model.

    Attributes:
        path: str, the file, or for "saved_model" the folder.
        format: str.
        bytes: int, its size, of all files together.
        difference: float, the largest difference between its outputs and the model's, in units of the largest
            output. As the runtime computed them.
        tolerance: float, what it was allowed to be.
    """

    path: str
    format: str
    bytes: int
    difference: float
    tolerance: float


def export(
    model: keras.Model,
    path: str | os.PathLike[str],
    format: str | None = None,
    *,
    inputs: Any = None,
    tolerance: float | None = None,
) -> Export:
    """Writes a model for another runtime, reads it back with that runtime, and compares the outputs.

    Masks are stripped first: no runtime chooses weights. The formats:

    - "saved_model": a folder for TensorFlow Serving, read back by TensorFlow's SavedModel loader;
    - "litert": a float32 file for LiteRT (TensorFlow Lite), read back by `ai-edge-litert`, as are the next two;
    - "litert_sparse": the same with sparsely encoded kernels, smaller below a `k` of some 0.6;
    - "litert_int8": the same with int8 kernels and float32 arithmetic. Signed constants lose nothing: they are
      -1, 0 and +1 times one scale, or one per channel where a normalization was folded in. Other kernels are
      rounded to 127 steps per channel;
    - "onnx": read back by ONNX Runtime.

    A model of a mixed precision policy is exported in float32, except to "saved_model". The file is written beside
    `path` and renamed once it has proved itself; it replaces one that was there.

    Args:
        model: a `keras.Model`, masked or not, built.
        path: of the file, ending in ".tflite" or ".onnx", or of the folder of a SavedModel.
        format: one of `FORMATS`. None chooses by the path's ending: "litert", "onnx", else "saved_model".
        inputs: a batch as `model.predict` takes it, arrays in the model's own structure, to compare the outputs
            on: best, some real ones. None draws uniform numbers in [0, 1) with a fixed seed, for
            integers 0 and 1, with 32 for each dimension but the batch's that the model leaves open.
        tolerance: float, the largest difference to accept, in units of the largest output. By default 1e-4,
            and 0.1 for int8 kernels that had to be rounded.

    Returns:
        An `Export` with path, size and difference.

    Raises:
        TypeError: if `model` is no model.
        ValueError: if it is not built, or if format, path or inputs do not fit.
        ImportError: if the runtime is not installed.
        FileExistsError: if the path is a folder that is no SavedModel, or a file where a folder is to be.
        ExportError: if the outputs differ by more than the tolerance, or the runtime cannot read the file. None
            is left then.

    Example:

    >>> import tempfile, keras_popup
    >>> masked = keras_popup.mask_model(keras_popup.models.FullyConnected(), k=0.3, seed=1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     result = keras_popup.export(masked, folder + "/saved")
    >>> result.format, result.difference <= result.tolerance
    ('saved_model', True)
    """
    target = Path(path)
    format = _checked_format(target, format)
    if not isinstance(model, keras.Model):
        raise TypeError(f"export takes a keras.Model. Received: {type(model).__name__}.")
    if not model.built or not getattr(model, "inputs", None):
        raise ValueError(
            f"Model '{model.name}' does not say what its inputs are. Expected a Functional model, or a Sequential "
            "one with an Input. Put a subclassed one into one: keras.Model(inputs, model(inputs))."
        )
    missing = [name for name in _NEEDS[format] if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f"format='{format}' needs {', '.join(missing)}: pip install 'keras-popup[export]'.")
    batch = _examples(model) if inputs is None else _checked_inputs(model, inputs)

    has_masks = any(isinstance(layer, layers.MaskedLayer) for _, layer in composites.walk(model))
    plain = conversion.strip_masks(model) if has_masks else model
    if format != "saved_model":
        plain = _in_float32(plain)
    expected = [np.asarray(output) for output in keras.tree.flatten(plain(_structured(plain, batch), training=False))]
    if not all(np.isfinite(output).all() for output in expected):
        raise ValueError(
            f"Model '{model.name}' gives outputs that are not finite numbers: there is nothing to compare."
        )

    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
        unproved = Path(folder) / f"model{_SUFFIXES.get(format, '')}"
        with _quiet():
            exact = _write(plain, unproved, format)
        if tolerance is None:
            tolerance = _TOLERANCE if exact else _ROUNDED_TOLERANCE
        try:
            with _quiet():
                outputs = _RUNTIMES[format](unproved, [x.name for x in plain.inputs], batch)
            difference = _difference(expected, outputs)
        except Exception as error:
            raise ExportError(f"The file for format='{format}' cannot be run by its runtime: {error}") from error
        if not difference <= tolerance:
            raise ExportError(
                f"The file for format='{format}' computes something else than model '{model.name}': its outputs "
                f"differ by {difference:.3g} of the largest one, where {tolerance:.3g} is accepted. It was removed."
            )
        size = sum(file.stat().st_size for file in (unproved, *unproved.rglob("*")) if file.is_file())
        with contextlib.suppress(FileNotFoundError):
            os.replace(target, Path(folder) / "replaced")
        os.replace(unproved, target)
    return Export(str(target), format, size, difference, tolerance)


def _checked_format(target: Path, format: str | None) -> str:
    if format is None:
        format = next((name for name, suffix in _SUFFIXES.items() if target.suffix == suffix), "saved_model")
    if format not in FORMATS:
        raise ValueError(f"`format` must be one of {', '.join(FORMATS)}. Received: {format!r}.")
    suffix = _SUFFIXES.get(format, "")
    if suffix and target.suffix != suffix:
        raise ValueError(f"A path for format='{format}' must end in '{suffix}'. Received: '{target}'.")
    if suffix and target.is_dir():
        raise FileExistsError(f"'{target}' is a folder, where format='{format}' is to write a file.")
    if not suffix and target.exists() and not (target / "saved_model.pb").exists() and any(_entries(target)):
        raise FileExistsError(f"'{target}' is there and is no SavedModel. Remove it, or choose another path.")
    return format


def _entries(target: Path) -> Iterator[Path]:
    return target.iterdir() if target.is_dir() else iter([target])


def _examples(model: keras.Model) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    batch = []
    for x in model.inputs:
        shape = (x.shape[0] or _EXAMPLES, *(size or 32 for size in x.shape[1:]))
        numbers = rng.random(shape) if "float" in x.dtype else rng.integers(0, 2, shape)
        batch.append(numbers.astype(x.dtype))
    return batch


def _checked_inputs(model: keras.Model, inputs: Any) -> list[np.ndarray]:
    batch = [np.asarray(x) for x in keras.tree.flatten(inputs)]
    expected = [tuple(x.shape) for x in model.inputs]
    fits = len(batch) == len(expected) and all(
        len(array.shape) == len(shape) and all(a == b or b is None for a, b in zip(array.shape, shape, strict=True))
        for array, shape in zip(batch, expected, strict=True)
    )
    if not fits or any(array.shape[0] == 0 for array in batch):
        raise ValueError(f"`inputs` must be arrays of shapes {expected}. Received: {[x.shape for x in batch]}.")
    return [array.astype(x.dtype) for array, x in zip(batch, model.inputs, strict=True)]


def _structured(model: Any, batch: list[np.ndarray]) -> Any:
    structure = getattr(model, "_inputs_struct", None)
    return keras.tree.pack_sequence_as(structure, batch) if structure is not None else batch[0]


def _in_float32(model: keras.Model) -> keras.Model:
    """Returns the model, or a copy in float32 if some of its layers compute in another type."""
    policies = {layer.dtype_policy.name for _, layer in composites.walk(model)}
    if policies <= {"float32"}:
        return model

    def in_float32(config: Any) -> Any:
        if isinstance(config, dict):
            if config.get("class_name") == "DTypePolicy":
                return {**config, "config": {"name": "float32"}}
            return {key: in_float32(value) for key, value in config.items()}
        return [in_float32(value) for value in config] if isinstance(config, (list, tuple)) else config

    copy = type(model).from_config(in_float32(model.get_config()))
    copy.set_weights(model.get_weights())
    return copy


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences what the converters and loaders say of themselves: deprecations, old NumPy names."""
    logger = logging.getLogger("tensorflow")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _write(plain: keras.Model, path: Path, format: str) -> bool:
    """Writes a file, and returns whether its weights have kept their values."""
    if format == "saved_model":
        _write_saved_model(plain, path)
    elif format == "onnx":
        plain.export(str(path), format="onnx", verbose=False)
        _mend_onnx(path)
    else:
        sparse = {"optimizations": [tf.lite.Optimize.EXPERIMENTAL_SPARSITY]} if format == "litert_sparse" else {}
        plain.export(str(path), format="litert", verbose=False, **sparse)
    if format != "litert_int8":
        return True
    content, exact = _litert.with_int8_weights(path.read_bytes())
    path.write_bytes(content)
    return exact


def _write_saved_model(plain: keras.Model, path: Path) -> None:
    # Keras 3.15's own export stores every variable twice.
    signature = [tf.TensorSpec(x.shape, x.dtype, name=x.name) for x in plain.inputs]

    @tf.function(input_signature=signature, autograph=False)
    def serve(*inputs: tf.Tensor) -> Any:
        outputs = plain(_structured(plain, list(inputs)), training=False)
        if isinstance(outputs, dict):
            return outputs
        return {f"output_{number}": output for number, output in enumerate(keras.tree.flatten(outputs))}

    module = tf.Module()
    module.weights = [variable.value for variable in plain.variables]
    module.serve = serve
    tf.saved_model.save(module, str(path), signatures={"serving_default": serve, "serve": serve})


def _mend_onnx(path: Path) -> None:
    """Mends what tf2onnx 1.17 gets wrong."""
    import onnx

    content = onnx.load(path)
    graph = content.graph
    # Constants that it has folded away stay inputs, which a caller would have to feed: of keras.layers.Normalization.
    used = {name for node in graph.node for name in node.input}
    inputs = [value for value in graph.input if value.name in used]
    # ONNX has no erfc(x), as in an exact GELU: it is 1 - erf(x).
    nodes = []
    for node in graph.node:
        if node.op_type != "Erfc":
            nodes.append(node)
            continue
        erf, one = f"{node.output[0]}_erf", f"{node.output[0]}_one"
        tensor = onnx.helper.make_tensor("one", onnx.TensorProto.FLOAT, (), [1.0])
        nodes.append(onnx.helper.make_node("Erf", node.input, [erf]))
        nodes.append(onnx.helper.make_node("Constant", [], [one], value=tensor))
        nodes.append(onnx.helper.make_node("Sub", [one, erf], node.output))
    if len(nodes) > len(graph.node) or len(inputs) < len(graph.input):
        del graph.node[:], graph.input[:]
        graph.node.extend(nodes)
        graph.input.extend(inputs)
        onnx.save(content, path)


def _run_saved_model(path: Path, names: list[str], batch: list[np.ndarray]) -> list[np.ndarray]:
    # The loader that TensorFlow Serving uses: a graph, a session and a tag, without anything of Keras.
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        signature = tf.compat.v1.saved_model.load(session, ["serve"], str(path)).signature_def["serving_default"]
        tensors = _by_name({name: info.name for name, info in signature.inputs.items()}, names)
        outputs = [info.name for _, info in sorted(signature.outputs.items(), key=_natural)]
        return session.run(outputs, dict(zip(tensors, batch, strict=True)))


def _run_litert(path: Path, names: list[str], batch: list[np.ndarray]) -> list[np.ndarray]:
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(str(path)).get_signature_runner()
    keys = _by_name({name: name for name in runner.get_input_details()}, names)
    outputs = runner(**dict(zip(keys, batch, strict=True)))
    return [value for _, value in sorted(outputs.items(), key=_natural)]


def _run_onnx(path: Path, names: list[str], batch: list[np.ndarray]) -> list[np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    keys = _by_name({entry.name: entry.name for entry in session.get_inputs()}, names)
    return session.run(None, dict(zip(keys, batch, strict=True)))


_RUNTIMES: dict[str, Callable[[Path, list[str], list[np.ndarray]], list[np.ndarray]]] = {
    "saved_model": _run_saved_model,
    "litert": _run_litert,
    "litert_sparse": _run_litert,
    "litert_int8": _run_litert,
    "onnx": _run_onnx,
}


def _by_name(found: dict[str, str], names: list[str]) -> list[str]:
    """Returns what is found for the model's inputs, in their order. One alone may have been renamed."""
    return list(found.values()) if len(names) == 1 else [found[name] for name in names]


def _natural(item: tuple[str, Any]) -> tuple[int, str]:
    """Orders output_2 before output_10."""
    return len(item[0]), item[0]


def _difference(expected: list[np.ndarray], outputs: list[np.ndarray]) -> float:
    if [x.shape for x in expected] != [x.shape for x in outputs]:
        raise ValueError(f"outputs of shapes {[x.shape for x in outputs]}, not {[x.shape for x in expected]}")
    scale = max(float(np.abs(x).max()) for x in expected) or 1.0
    return (
        max(float(np.abs(np.float64(x) - np.float64(y)).max()) for x, y in zip(expected, outputs, strict=True)) / scale
    )
