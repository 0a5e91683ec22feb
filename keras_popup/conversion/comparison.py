"""Compares the outputs of two models, on inputs that are made up where there are none."""

from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from keras_popup.layers import walk

Array = NDArray[Any]

_EXAMPLES = 4


def draw_inputs(model: Any) -> list[Array]:
    """Returns a batch for a model that knows its inputs, always the same.

    Floats are uniform numbers in [0, 1), integers 0 or 1, texts empty. The batch has 4 examples, and each other
    unknown dimension has size 32.
    """
    rng = np.random.default_rng(0)
    batch = []
    for x in model.inputs:
        shape = (x.shape[0] or _EXAMPLES, *(size or 32 for size in x.shape[1:]))
        if x.dtype == "string":
            batch.append(np.full(shape, ""))
            continue
        numbers = rng.random(shape) if "float" in x.dtype else rng.integers(0, 2, shape)
        batch.append(numbers.astype(tf.as_dtype(x.dtype).as_numpy_dtype))
    return batch


def compute_difference(expected: dict[str, Array], outputs: dict[str, Array]) -> float:
    """Returns the largest difference, in units of the largest magnitude of the same expected output.

    Args:
        expected: arrays by the names of the outputs.
        outputs: arrays with these names, and maybe others.

    Returns:
        A float, NaN if a difference is not a number: it is not below any tolerance.

    Raises:
        ValueError: if two arrays have different shapes.
    """
    differences = []
    for name, x in expected.items():
        y = np.asarray(outputs[name], np.float64)
        if x.shape != y.shape:
            raise ValueError(f"its output '{name}' has shape {y.shape}, not {x.shape}")
        scale = np.abs(x).max(initial=0.0) or 1.0
        differences.append((np.abs(x - y) / scale).max(initial=0.0))
    return float(np.max(differences))


def uses_16_bits(model: Any) -> bool:
    """Tells whether some layers of a model compute in float16 or bfloat16."""
    return any(layer.compute_dtype in ("float16", "bfloat16") for _, layer in walk(model))
