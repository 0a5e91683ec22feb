"""Export of models for other runtimes, each file read back by its runtime before it is handed over."""

import contextlib
import dataclasses
import importlib.util
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_popup import _workarounds, conversion, selectors
from keras_popup.conversion import copy_model
from keras_popup.exports import litert_int8, runtimes
from keras_popup.layers import walk

# What each format needs beyond TensorFlow, and how its files are called.
_NEEDS: dict[str, tuple[str, ...]] = {
    "saved_model": (),
    "litert": ("ai_edge_litert",),
    "litert_sparse": ("ai_edge_litert",),
    "litert_int8": ("ai_edge_litert",),
    "onnx": ("onnx", "onnxruntime", "tf2onnx"),
}
_SUFFIXES = {"litert": ".tflite", "litert_sparse": ".tflite", "litert_int8": ".tflite", "onnx": ".onnx"}

_SAVED_MODEL = {"saved_model.pb", "fingerprint.pb", "variables", "assets", "assets.extra"}

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
            value of the output that it is in. As the runtime computed them.
        tolerance: float, what it was allowed to be.
    """

    path: str
    format: str
    bytes: int
    difference: float
    tolerance: float


def export(
    model: keras.Model,
    filepath: str | os.PathLike[str],
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
    `filepath` and renamed once it has proved itself; it replaces one that was there.

    Args:
        model: a `keras.Model`, masked or not, built.
        filepath: of the file, ending in ".tflite" or ".onnx", or of the folder of a SavedModel.
        format: one of `FORMATS`. None chooses by the path's ending: "litert", "onnx", else "saved_model".
        inputs: a batch as `model.predict` takes it, arrays in the model's own structure, to compare the outputs
            on: best, some real ones. None draws uniform numbers in [0, 1) with a fixed seed, for
            integers 0 and 1, with 32 for each dimension but the batch's that the model leaves open.
        tolerance: float, the largest difference to accept, in units of the largest value of the output that it is
            in. By default 1e-4, and 0.1 for int8 kernels that had to be rounded.

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
    target = Path(filepath).resolve()  # of a link, what it leads to is replaced
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
    if tolerance is not None and not tolerance >= 0:
        raise ValueError(f"`tolerance` must be a number of 0 or more. Received: {tolerance!r}.")
    batch = _examples(model) if inputs is None else _checked_inputs(model, inputs)

    plain = conversion.strip_masks(model) if conversion.masked_layers(model) else model
    if format != "saved_model":
        plain = _in_float32(plain)
    with selectors.without_compiling():
        given = _outputs(model, batch)
    expected = _outputs(plain, batch)
    if not all(np.isfinite(output).all() for output in expected.values()):
        raise ValueError(
            f"Model '{model.name}' gives outputs that are not finite numbers: there is nothing to compare."
        )
    rounding = _difference(given, expected)
    if not rounding <= (_ROUNDED_TOLERANCE if plain is not model and _is_half(model) else _TOLERANCE):
        raise ExportError(
            f"The stripped model, in the types to export, differs from model '{model.name}' by {rounding:.3g} of the "
            "largest output. Nothing was written."
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
                outputs = runtimes.RUNTIMES[format](unproved, [x.name for x in plain.inputs], batch, list(expected))
            difference = _difference(expected, outputs)
        except Exception as error:
            raise ExportError(f"The file for format='{format}' cannot be run by its runtime: {error}") from error
        if not difference <= tolerance:
            raise ExportError(
                f"The file for format='{format}' computes something else than model '{model.name}': its outputs "
                f"differ by {difference:.3g} of the largest one, where {tolerance:.3g} is accepted. It was removed."
            )
        size = sum(file.stat().st_size for file in (unproved, *unproved.rglob("*")) if file.is_file())
        _hand_over(unproved, target)
    return Export(str(filepath), format, size, difference, tolerance)


def _hand_over(proved: Path, target: Path) -> None:
    """Puts a file or folder in the place of what may be there, which comes back if that fails."""
    if not target.is_dir():
        os.replace(proved, target)
        return
    replaced = proved.with_name("replaced")
    os.replace(target, replaced)
    try:
        os.replace(proved, target)
    except BaseException:
        os.replace(replaced, target)
        raise


def _checked_format(target: Path, format: str | None) -> str:
    if format is None:
        format = next((name for name, suffix in _SUFFIXES.items() if target.suffix == suffix), "saved_model")
    if format not in FORMATS:
        raise ValueError(f"`format` must be one of {', '.join(FORMATS)}. Received: {format!r}.")
    suffix = _SUFFIXES.get(format, "")
    if suffix and target.suffix != suffix:
        raise ValueError(f"A path for format='{format}' must end in '{suffix}'. Received: '{target}'.")
    if not suffix and target.suffix in (".keras", ".h5", *_SUFFIXES.values()):
        raise ValueError(f"A SavedModel is a folder: its path cannot end in '{target.suffix}'. Received: '{target}'.")
    if suffix and target.is_dir():
        raise FileExistsError(f"'{target}' is a folder, where format='{format}' is to write a file.")
    if not suffix and target.exists():
        others = {entry.name for entry in target.iterdir()} - _SAVED_MODEL if target.is_dir() else {target.name}
        if others:
            raise FileExistsError(
                f"'{target}' is there and is no SavedModel, or holds more than one: {', '.join(sorted(others))}. "
                "Remove that, or choose another path."
            )
    return format


def _examples(model: keras.Model) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    batch = []
    for x in model.inputs:
        shape = (x.shape[0] or _EXAMPLES, *(size or 32 for size in x.shape[1:]))
        numbers = rng.random(shape) if "float" in x.dtype else rng.integers(0, 2, shape)
        batch.append(numbers.astype(_numpy_type(x)))
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
    return [array.astype(_numpy_type(x)) for array, x in zip(batch, model.inputs, strict=True)]


def _numpy_type(x: Any) -> Any:
    if x.dtype == "string":
        raise ValueError(
            "export has no way to compare a model that is given strings. Export what follows their lookup."
        )
    return tf.as_dtype(x.dtype).as_numpy_dtype


def _structured(model: Any, batch: list[Any]) -> Any:
    structure = getattr(model, "_inputs_struct", None)
    return keras.tree.pack_sequence_as(structure, batch) if structure is not None else batch[0]


def _named(outputs: Any) -> dict[str, Any]:
    """Returns the outputs as a SavedModel and LiteRT name them, in the order that ONNX has."""
    flat = keras.tree.flatten(outputs)
    if isinstance(outputs, dict) and len(flat) == len(outputs):
        return {name: outputs[name] for name in sorted(outputs)}
    return {f"output_{number}": output for number, output in enumerate(flat)}


def _outputs(model: Any, batch: list[Any]) -> dict[str, np.ndarray]:
    outputs = _named(model(_structured(model, batch), training=False))
    return {name: np.asarray(tf.cast(output, tf.float32)) for name, output in outputs.items()}


def _is_half(model: keras.Model) -> bool:
    """Tells whether some layers compute in a type of 16 bits."""
    return any(layer.compute_dtype in ("float16", "bfloat16") for _, layer in walk(model))


def _in_float32(model: keras.Model) -> keras.Model:
    """Returns the model, or a copy in float32 if some of its layers compute in a type of 16 bits."""
    if not _is_half(model):
        return model

    def in_float32(config: Any) -> Any:
        if isinstance(config, dict):
            if config.get("class_name") == "DTypePolicy" and "float16" in config["config"]["name"]:
                return {**config, "config": {"name": "float32"}}
            return {key: in_float32(value) for key, value in config.items()}
        return [in_float32(value) for value in config] if isinstance(config, (list, tuple)) else config

    return copy_model(model, in_float32)[0]


def _write(plain: keras.Model, path: Path, format: str) -> bool:
    """Writes a file, and returns whether its weights have kept their values."""
    if format == "saved_model":
        _write_saved_model(plain, path)
    elif format == "onnx":
        with _constant_statistics(plain):
            plain.export(str(path), format="onnx", verbose=False)
        _workarounds.replace_erfc(path)
    else:
        sparse = {"optimizations": [tf.lite.Optimize.EXPERIMENTAL_SPARSITY]} if format == "litert_sparse" else {}
        plain.export(str(path), format="litert", verbose=False, **sparse)
    if format != "litert_int8":
        return True
    content, exact = litert_int8.with_int8_weights(path.read_bytes())
    path.write_bytes(content)
    return exact


@contextlib.contextmanager
def _constant_statistics(plain: keras.Model) -> Iterator[None]:
    """Has a Normalization's statistics traced as constants: as tensors they become inputs of an ONNX file."""
    found = [layer for _, layer in walk(plain) if isinstance(layer, keras.layers.Normalization)]
    tensors = [(layer.mean, layer.variance) for layer in found]
    try:
        for layer in found:
            layer.mean, layer.variance = np.asarray(layer.mean), np.asarray(layer.variance)
        yield
    finally:
        for layer, (mean, variance) in zip(found, tensors, strict=True):
            layer.mean, layer.variance = mean, variance


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


def _write_saved_model(plain: keras.Model, path: Path) -> None:
    # Keras 3.15's own export stores every variable twice.
    signature = [tf.TensorSpec(x.shape, x.dtype, name=x.name) for x in plain.inputs]

    @tf.function(input_signature=signature, autograph=False)
    def serve(*inputs: tf.Tensor) -> Any:
        return _named(plain(_structured(plain, list(inputs)), training=False))

    module = tf.Module()
    module.weights = [variable.value for variable in plain.variables]
    module.tables = [layer.lookup_table for _, layer in walk(plain) if hasattr(layer, "lookup_table")]
    module.serve = serve
    tf.saved_model.save(module, str(path), signatures={"serving_default": serve, "serve": serve})


def _difference(expected: dict[str, np.ndarray], outputs: dict[str, np.ndarray]) -> float:
    """Returns the largest difference, in units of the largest value of the output that it is in."""
    differences = []
    for name, x in expected.items():
        y = np.asarray(outputs[name], np.float64)
        if x.shape != y.shape:
            raise ValueError(f"its output '{name}' is of shape {y.shape}, not {x.shape}")
        scale = np.abs(x).max(initial=0.0) or 1.0
        differences.append((np.abs(x - y) / scale).max(initial=0.0))
    return float(np.max(differences))  # NaN if there is one, which is within no tolerance
