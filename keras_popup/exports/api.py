"""Exports models for other runtimes. The runtime runs each file before the file replaces an existing one."""

import contextlib
import dataclasses
import functools
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
from numpy.typing import NDArray

from keras_popup import _keras, _workarounds, conversion, selectors
from keras_popup.conversion import copy_model
from keras_popup.exports import litert_int8, runtimes
from keras_popup.layers import walk

# The packages that each format needs besides TensorFlow, and the suffixes of its files.
_NEEDS: dict[str, tuple[str, ...]] = {
    "tf_saved_model": (),
    "litert": ("ai_edge_litert",),
    "litert_sparse": ("ai_edge_litert",),
    "litert_int8": ("ai_edge_litert",),
    "onnx": ("onnx", "onnxruntime", "tf2onnx"),
}
_SUFFIXES = {"litert": ".tflite", "litert_sparse": ".tflite", "litert_int8": ".tflite", "onnx": ".onnx"}

_logger = logging.getLogger("keras_popup")

_SAVED_MODEL = {"saved_model.pb", "fingerprint.pb", "variables", "assets", "assets.extra"}

FORMATS = tuple(_NEEDS)
"""The formats of `export`."""

_TOLERANCE, _ROUNDED_TOLERANCE = 1e-4, 0.1

_MISSING_OPERATIONS = (
    ". LiteRT lacks some of the operations. Recurrent layers need none of those with a fixed batch size, as in "
    "keras.Input(..., batch_size=1), or with unroll=True. format='onnx' and 'tf_saved_model' need neither."
)

Array = NDArray[Any]


class ExportError(RuntimeError):
    """An exported file gives other outputs than the model, or its runtime cannot read it."""


@dataclasses.dataclass(frozen=True)
class Export:
    """An exported model.

    Attributes:
        path: str, the path of the file, or of the folder for "tf_saved_model".
        format: str, one of `FORMATS`.
        bytes: int, the size of all files together.
        difference: float, the largest difference between the outputs of the runtime and those of the model. It is
            relative: the unit is the largest magnitude in the same output of the model.
        tolerance: float, the largest `difference` that was accepted.
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
    remove_dead: bool = False,
) -> Export:
    """Exports a model for another runtime, runs the file with that runtime, and compares the outputs.

    Masks are stripped first, because no runtime can choose weights. The formats:

    - "tf_saved_model": a folder for TensorFlow Serving, run by TensorFlow's SavedModel loader;
    - "litert": a float32 file for LiteRT (TensorFlow Lite), run by `ai-edge-litert`, like the next two formats;
    - "litert_sparse": the same with sparsely encoded kernels, which is smaller for `k` below about 0.6;
    - "litert_int8": the same with int8 kernels and float32 arithmetic. Signed constants keep their exact values: they
      become -1, 0 and +1 times one scale, or times one scale per channel if a normalization was folded into the
      kernel. Other kernels are rounded to 127 steps per channel;
    - "onnx": a file for ONNX Runtime, run by it.

    Layers that do nothing at inference, such as RandomFlip, are left out of ONNX files, which cannot hold them. A log
    line names them. A model with a mixed precision policy is exported in float32, except as "tf_saved_model".

    The file is written beside `filepath`. After the comparison, it is renamed and replaces an existing file.

    Args:
        model: a built `keras.Model`, masked or not. A subclassed model with several inputs needs `inputs`.
        filepath: path of the file, with the suffix ".tflite" or ".onnx", or path of the folder of a SavedModel.
        format: one of `FORMATS`. None chooses by the suffix of the path: "litert", "onnx", else "tf_saved_model".
        inputs: a batch of inputs, as for `model.predict`, on which the outputs are compared. Real data are best. None
            draws 4 examples with a fixed seed: uniform numbers in [0, 1) for floats, 0 and 1 for integers, with
            size 32 for each unknown dimension except the batch dimension.
        tolerance: float, 0 or more, the largest difference to accept. It is relative to the largest magnitude in the
            same output. None is 1e-4, or 0.1 if int8 kernels had to be rounded.
        remove_dead: bool, whether channels that change nothing are left out, as in `strip_masks`. The file is smaller
            and quicker then.

    Returns:
        An `Export` with path, size and difference.

    Raises:
        TypeError: if `model` is not a `keras.Model`.
        ValueError: if the model is not built or does not know its inputs, or if `format`, `filepath`, `inputs` or
            `tolerance` is not valid.
        ImportError: if the runtime is not installed.
        FileExistsError: if there is a folder at the path that is not a SavedModel, or a file instead of a folder.
        ExportError: if the outputs differ by more than the tolerance, or if the runtime cannot read the file. The
            file is removed then.

    Example:

    >>> import tempfile, keras_popup
    >>> masked = keras_popup.mask_model(keras_popup.models.FullyConnected(), k=0.3, seed=1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     result = keras_popup.export(masked, folder + "/saved")
    >>> result.format, result.difference <= result.tolerance
    ('tf_saved_model', True)
    """
    target = Path(filepath).resolve()  # replaces the target of a link, not the link
    _keras.require_tensorflow("keras_popup.export")
    format = _check_format(target, format)
    if not isinstance(model, keras.Model):
        raise TypeError(f"export takes a keras.Model. Received: {type(model).__name__}.")
    model = _give_inputs(model, inputs)
    missing = [name for name in _NEEDS[format] if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f"format='{format}' needs {', '.join(missing)}: pip install 'keras-popup[export]'.")
    if tolerance is not None and not (isinstance(tolerance, (int, float, np.number)) and tolerance >= 0):
        raise ValueError(f"`tolerance` must be a number, 0 or more. Received: {tolerance!r}.")
    batch = _check_inputs(model, conversion.draw_inputs(model) if inputs is None else inputs)

    plain = conversion.strip_masks(model) if conversion.masked_layers(model) else model
    plain = _remove_dead(plain) if remove_dead else plain
    if format != "tf_saved_model":
        plain = _convert_to_float32(plain)
    if format == "onnx":
        plain = _prepare_for_onnx(plain, copy=plain is model)
    with selectors.without_compiling():
        original_outputs = _compute_outputs(model, batch)
    expected = _compute_outputs(plain, batch)
    if not all(np.isfinite(output).all() for output in expected.values()):
        raise ValueError(
            f"Model '{model.name}' gives outputs that are not finite numbers, so they cannot be compared. Check its "
            "weights, or pass other `inputs`."
        )
    difference = conversion.compute_difference(original_outputs, expected)
    if not difference <= (_ROUNDED_TOLERANCE if plain is not model and conversion.uses_16_bits(model) else _TOLERANCE):
        raise ExportError(
            f"The model to export, without masks and in its export dtype, gives other outputs than model "
            f"'{model.name}': they differ by {difference:.3g} of the largest output. Nothing was written."
        )

    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
        unchecked = Path(folder) / f"model{_SUFFIXES.get(format, '')}"
        with _silence_warnings():
            exact = _write(plain, unchecked, format)
        if tolerance is None:
            tolerance = _TOLERANCE if exact else _ROUNDED_TOLERANCE
        try:
            with _silence_warnings():
                outputs = runtimes.RUNTIMES[format](unchecked, [x.name for x in plain.inputs], batch, list(expected))
            difference = conversion.compute_difference(expected, outputs)
        except Exception as error:
            hint = _MISSING_OPERATIONS if "Flex delegate" in str(error) else ""
            raise ExportError(f"The file for format='{format}' cannot be run by its runtime: {error}{hint}") from error
        if not difference <= tolerance:
            raise ExportError(
                f"The file for format='{format}' gives other outputs than model '{model.name}': they differ by "
                f"{difference:.3g} of the largest output, but tolerance={tolerance:.3g}. The file was removed."
            )
        size = sum(file.stat().st_size for file in (unchecked, *unchecked.rglob("*")) if file.is_file())
        _replace(unchecked, target)
    return Export(str(filepath), format, size, difference, tolerance)


def _give_inputs(model: keras.Model, inputs: Any) -> keras.Model:
    """Returns the model, or for a subclassed one a Functional model around it.

    Raises:
        ValueError: if the model is not built, or if its inputs are not known.
    """
    if model.built and getattr(model, "inputs", None):
        return model
    if isinstance(inputs, (list, tuple)) and len(inputs) == 1:
        (inputs,) = inputs
    shape = (model.get_build_config() or {}).get("input_shape") if model.built else None
    if model.built and inputs is not None:
        symbolic = keras.tree.map_structure(
            lambda x: keras.Input(np.shape(x)[1:], dtype=_find_input_dtype(np.asarray(x))), inputs
        )
    elif isinstance(shape, (list, tuple)) and all(size is None or isinstance(size, int) for size in shape):
        symbolic = keras.Input(shape[1:])
    else:
        raise ValueError(
            f"Model '{model.name}' is not built, or does not say what its inputs are. Call it on data, and pass "
            "some as `inputs`."
        )
    return keras.Model(symbolic, model(symbolic), name=model.name)


def _find_input_dtype(example: Array) -> str:
    """Returns the dtype of a model's input: that of the example, but floats are Keras's."""
    dtype = str(keras.backend.standardize_dtype(example.dtype))
    return str(keras.config.floatx()) if "float" in dtype else dtype


def _remove_dead(plain: keras.Model) -> keras.Model:
    try:
        return conversion.remove_dead(plain)
    except RuntimeError as error:
        raise ExportError(f"{error} Nothing was written.") from error


def _replace(source: Path, target: Path) -> None:
    """Renames a file or folder to `target`. An existing folder is replaced, and put back if that fails."""
    if not target.is_dir():
        os.replace(source, target)
        return
    old = source.with_name("replaced")
    os.replace(target, old)
    try:
        os.replace(source, target)
    except BaseException:
        os.replace(old, target)
        raise


def _check_format(target: Path, format: str | None) -> str:
    """Returns the format, after checks that it is valid and that the path fits it."""
    if format is None:
        format = next((name for name, suffix in _SUFFIXES.items() if target.suffix == suffix), "tf_saved_model")
    if format not in FORMATS:
        raise ValueError(f"`format` must be one of {', '.join(FORMATS)}. Received: {format!r}.")
    suffix = _SUFFIXES.get(format, "")
    if suffix and target.suffix != suffix:
        raise ValueError(f"A path for format='{format}' must end in '{suffix}'. Received: '{target}'.")
    if not suffix and target.suffix in (".keras", ".h5", *_SUFFIXES.values()):
        raise ValueError(f"A SavedModel is a folder: its path cannot end in '{target.suffix}'. Received: '{target}'.")
    if suffix and target.is_dir():
        raise FileExistsError(f"'{target}' is a folder, but format='{format}' writes a file. Choose another path.")
    if not suffix and target.exists():
        others = {entry.name for entry in target.iterdir()} - _SAVED_MODEL if target.is_dir() else {target.name}
        if others:
            raise FileExistsError(
                f"'{target}' exists and is not a SavedModel, or has other files too: {', '.join(sorted(others))}. "
                "Remove it, or choose another path."
            )
    return format


def _check_inputs(model: keras.Model, inputs: Any) -> list[Array]:
    batch = [np.asarray(x) for x in keras.tree.flatten(inputs)]
    expected = [tuple(x.shape) for x in model.inputs]
    fits = len(batch) == len(expected) and all(
        len(array.shape) == len(shape) and all(a == b or b is None for a, b in zip(array.shape, shape, strict=True))
        for array, shape in zip(batch, expected, strict=True)
    )
    if not fits or any(array.shape[0] == 0 for array in batch):
        raise ValueError(f"`inputs` must be arrays of shapes {expected}. Received: {[x.shape for x in batch]}.")
    return [array.astype(_find_numpy_dtype(x)) for array, x in zip(batch, model.inputs, strict=True)]


def _find_numpy_dtype(x: Any) -> Any:
    if x.dtype == "string":
        raise ValueError(
            "export cannot compare the outputs of a model with string inputs. Export the part of the model after the "
            f"lookup of strings. Received: a string input '{x.name}'."
        )
    return tf.as_dtype(x.dtype).as_numpy_dtype


def _name_outputs(outputs: Any) -> dict[str, Any]:
    """Returns the outputs by their names in SavedModel and LiteRT files, in the order of ONNX files."""
    flat = keras.tree.flatten(outputs)
    if isinstance(outputs, dict) and len(flat) == len(outputs):
        return {name: outputs[name] for name in sorted(outputs)}
    return {f"output_{number}": output for number, output in enumerate(flat)}


def _compute_outputs(model: Any, batch: list[Any]) -> dict[str, Array]:
    outputs = _name_outputs(model(_keras.pack_inputs(model, batch), training=False))
    return {name: np.asarray(tf.cast(output, tf.float32)) for name, output in outputs.items()}


def _convert_to_float32(model: keras.Model) -> keras.Model:
    """Returns the model, or a copy in float32 if some of its layers compute in float16 or bfloat16."""
    if not conversion.uses_16_bits(model):
        return model

    def convert(config: Any) -> Any:
        if isinstance(config, dict):
            if config.get("class_name") == "DTypePolicy" and "float16" in config["config"]["name"]:
                return {**config, "config": {"name": "float32"}}
            return {key: convert(value) for key, value in config.items()}
        return [convert(value) for value in config] if isinstance(config, (list, tuple)) else config

    return copy_model(model, convert)[0]


def _write(plain: keras.Model, path: Path, format: str) -> bool:
    """Writes a file. Returns whether its weights have the exact values of the model."""
    if format == "tf_saved_model":
        _write_saved_model(plain, path)
    elif format == "onnx":
        plain.export(str(path), format="onnx", verbose=False)
        _workarounds.replace_erfc(path)
    else:
        sparse = {"optimizations": [tf.lite.Optimize.EXPERIMENTAL_SPARSITY]} if format == "litert_sparse" else {}
        # Without a signature, Keras would make a fixed batch dimension unknown. LiteRT.js takes fixed shapes only.
        specs = [keras.layers.InputSpec(dtype=x.dtype, shape=x.shape, name=x.name) for x in plain.inputs]
        signature = [_keras.pack_inputs(plain, specs)]
        plain.export(str(path), format="litert", verbose=False, input_signature=signature, **sparse)
    if format != "litert_int8":
        return True
    content, exact = litert_int8.with_int8_weights(path.read_bytes())
    path.write_bytes(content)
    return exact


# Of the layers whose names begin with Random: RandomCrop crops at inference too.
_AUGMENTATIONS = tuple(
    kind
    for name, kind in vars(keras.layers).items()
    if (name.startswith("Random") and name != "RandomCrop") or name in ("AugMix", "CutMix", "MixUp", "RandAugment")
)


def _prepare_for_onnx(plain: keras.Model, *, copy: bool) -> keras.Model:
    """Changes a model, or a copy of it, so that an ONNX file can hold it.

    Augmentation does nothing at inference, but has states of random numbers. Statistics of Normalizations become
    arrays, because tensors would become inputs of the file. Convolutions in groups leave their functions.
    """
    kinds = keras.layers.Normalization, *_AUGMENTATIONS
    if not any(isinstance(layer, kinds) or _has_groups(layer) for _, layer in walk(plain)):
        return plain
    plain = copy_model(plain)[0] if copy else plain
    left_out = {}
    for _, layer in walk(plain):
        if isinstance(layer, keras.layers.Normalization):
            layer.mean, layer.variance = np.asarray(layer.mean), np.asarray(layer.variance)
        if _has_groups(layer):
            _workarounds.inline_convolution(layer)
        if isinstance(layer, _AUGMENTATIONS):
            left_out[layer.name] = type(layer).__name__
            cast = functools.partial(keras.ops.cast, dtype=layer.compute_dtype)
            object.__setattr__(layer, "call", lambda inputs, training=None, cast=cast: cast(inputs))
    if left_out:
        _logger.warning("Left out, as they do nothing at inference: %s.", ", ".join(sorted(set(left_out.values()))))
    return plain


def _has_groups(layer: keras.layers.Layer) -> bool:
    # tf2onnx ignores the groups of Conv3D.
    return isinstance(layer, (keras.layers.Conv1D, keras.layers.Conv2D)) and layer.groups > 1


@contextlib.contextmanager
def _silence_warnings() -> Iterator[None]:
    """Silences what converters and loaders say of themselves, such as deprecations.

    An operation that tf2onnx does not know is an error of ONNX Runtime, which names it, or has been replaced.
    """
    silenced = {"tensorflow": logging.ERROR, "tf2onnx": logging.CRITICAL}
    levels = {name: logging.getLogger(name).level for name in silenced}
    for name, level in silenced.items():
        logging.getLogger(name).setLevel(level)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _write_saved_model(plain: keras.Model, path: Path) -> None:
    # Not Keras's own export: that of Keras 3.15 stores every variable twice.
    signature = [tf.TensorSpec(x.shape, x.dtype, name=x.name) for x in plain.inputs]

    @tf.function(input_signature=signature, autograph=False)
    def serve(*inputs: tf.Tensor) -> Any:
        return _name_outputs(plain(_keras.pack_inputs(plain, list(inputs)), training=False))

    module = tf.Module()
    module.weights = [variable.value for variable in plain.variables]
    module.tables = [layer.lookup_table for _, layer in walk(plain) if hasattr(layer, "lookup_table")]
    module.serve = serve
    tf.saved_model.save(module, str(path), signatures={"serving_default": serve, "serve": serve})
