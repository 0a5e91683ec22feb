"""flops: how many operations the kernels of a model take, with all weights and with those that the masks keep."""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import rich.box
import rich.table

from keras_popup import _keras, selectors
from keras_popup._tables import format_table
from keras_popup.conversion.inspection import check_model
from keras_popup.conversion.patterns import Paths
from keras_popup.layers import MaskedLayer, kernels_of, walk

_PER_POSITION = (
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv1D,
    keras.layers.SeparableConv2D,
    _keras.ConvLSTMCell,
)
_TRANSPOSED = (keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose, keras.layers.Conv3DTranspose)


_Key = tuple[int, str]  # id of a layer, name of a kernel


@dataclasses.dataclass(frozen=True)
class KernelFlops:
    """One kernel.

    Attributes:
        path: str, the path of the layer; the kernel's name follows if the layer has several.
        dense: int, the operations with all weights.
        kept: int, the operations with the weights that the mask keeps; `dense` without a mask.
    """

    path: str
    dense: int
    kept: int


@dataclasses.dataclass(frozen=True)
class Flops:
    """The floating-point operations of a model's kernels for one example. `str()` gives a table.

    Attributes:
        name: str, the name of the model.
        kernels: tuple of `KernelFlops`.
    """

    name: str
    kernels: tuple[KernelFlops, ...]

    @property
    def dense(self) -> int:
        """The operations with all weights."""
        return sum(kernel.dense for kernel in self.kernels)

    @property
    def kept(self) -> int:
        """The operations with the weights that the masks keep."""
        return sum(kernel.kept for kernel in self.kernels)

    def __str__(self) -> str:
        table = rich.table.Table(box=rich.box.SIMPLE_HEAD)
        for title in ("kernel", "dense", "kept"):
            table.add_column(title, justify="left" if title == "kernel" else "right", max_width=70)
        for kernel in self.kernels:
            table.add_row(kernel.path, f"{kernel.dense:,}", f"{kernel.kept:,}")
        table.add_section()
        table.add_row("all kernels", f"{self.dense:,}", f"{self.kept:,}")
        return "\n".join([f"Operations of model: {self.name}, for one example", format_table(table)])


def flops(model: keras.Model, inputs: Any = None) -> Flops:
    """Counts the floating-point operations of a model's kernels for one example.

    A multiplication and an addition are two operations. A weight of a Dense layer is used once, one of a convolution at
    each position, one of a recurrent layer in each time step. Embeddings look up and take none. Biases, activations,
    normalizations and the products inside of attention are not counted.

    "kept" is what a runtime would need that skips the weights that are not kept. Keras, LiteRT and ONNX Runtime
    multiply by the zeros, and are as fast as with all weights.

    Args:
        model: a built `keras.Model`, masked or not.
        inputs: one example or a batch of which the first is taken, as for `model.predict`. None takes zeros, with
            size 32 for each dimension that is not known. A subclassed model needs them.

    Returns:
        A `Flops`.

    Raises:
        TypeError: if `model` is not a `keras.Model`.
        ValueError: if the model is not built, or does not know its inputs and none are given.

    Example:

    >>> import keras_popup
    >>> masked = keras_popup.mask_model(keras_popup.models.FullyConnected(), k=0.5, seed=1)
    >>> keras_popup.flops(masked).dense, keras_popup.flops(masked).kept
    (532400, 266200)
    """
    check_model(model, "flops")
    if not model.built or (inputs is None and not getattr(model, "inputs", None)):
        raise ValueError(
            f"Model '{model.name}' is not built, or does not say what its inputs are. Call it on data, and pass "
            "some as `inputs`."
        )
    if inputs is None:
        shapes = [(x.shape[0] or 1, *(size or 32 for size in x.shape[1:])) for x in model.inputs]
        zeros = [
            np.full(shape, "") if x.dtype == "string" else np.zeros(shape, x.dtype)
            for shape, x in zip(shapes, model.inputs, strict=True)
        ]
        example = _keras.pack_inputs(model, zeros)
    else:
        if isinstance(inputs, (list, tuple)) and len(inputs) == 1:
            (inputs,) = inputs
        example = keras.tree.map_structure(lambda x: np.asarray(x)[:1], inputs)
    batch = len(keras.tree.flatten(example)[0])
    paths = Paths(model)
    layers = [layer for layer in (model, *(layer for _, layer in walk(model))) if _find_kernels(layer)]
    uses: dict[_Key, int] = {}
    with _count_calls(model, layers, uses), selectors.without_compiling():
        model(example, training=False)
    found = []
    for layer in layers:
        kernels = _find_kernels(layer)
        masked = layer.masked_kernels if isinstance(layer, MaskedLayer) else {}
        for name, variable in kernels.items():
            size, number = math.prod(variable.shape), uses.get((id(layer), name), 0) // batch
            kept = masked[name].kept if name in masked else size
            path = paths.of_kernel(layer, name, len(kernels) > 1) or model.name
            found.append(KernelFlops(path, 2 * number * size, 2 * number * kept))
    return Flops(model.name, tuple(found))


def _find_kernels(layer: Any) -> dict[str, Any]:
    """Returns the variables of a layer's kernels by name, masked or not."""
    masked = layer.masked_kernels if isinstance(layer, MaskedLayer) else {}
    specs = layer.kernel_specs if masked else kernels_of(layer)
    variables = {
        spec.name: masked[spec.name].kernel if spec.name in masked else spec.plain_variable(layer) for spec in specs
    }
    return {name: variable for name, variable in variables.items() if variable is not None}


@contextlib.contextmanager
def _count_calls(model: Any, layers: list[Any], uses: dict[_Key, int]) -> Iterator[None]:
    """Adds up how often the calls of layers use each weight of a kernel."""
    calls: dict[_Key, int] = {}

    def counting(layer: Any, call: Any) -> Any:
        @functools.wraps(call)
        def counted(*args: Any, **kwargs: Any) -> Any:
            outputs = call(*args, **kwargs)
            for name, variable in _find_kernels(layer).items():
                number = _count_uses(layer, variable.shape, args[0], outputs)
                uses[id(layer), name] = uses.get((id(layer), name), 0) + number
                calls[id(layer), name] = calls.get((id(layer), name), 0) + 1
            return outputs

        return counted

    def counting_steps(layer: Any, call: Any) -> Any:
        cells = {id(part) for _, part in walk(layer)}

        @functools.wraps(call)
        def counted(*args: Any, **kwargs: Any) -> Any:
            before, calls_before = dict(uses), dict(calls)
            outputs = call(*args, **kwargs)
            # Keras calls the cell once more than there are steps, or once for all of them.
            for key in calls:
                if key[0] in cells and (number := calls[key] - calls_before.get(key, 0)):
                    each = (uses[key] - before.get(key, 0)) // number
                    uses[key] = before.get(key, 0) + each * int(args[0].shape[1])
            return outputs

        return counted

    recurrent = [layer for _, layer in walk(model) if isinstance(layer, keras.layers.RNN)]
    states = [
        (state, state.numpy())
        for layer in recurrent
        if layer.stateful
        for state in keras.tree.flatten(layer.states)
        if state is not None
    ]
    for layer in layers:
        object.__setattr__(layer, "call", counting(layer, layer.call))
    for layer in recurrent:
        object.__setattr__(layer, "call", counting_steps(layer, layer.call))
    try:
        yield
    finally:
        for state, value in states:
            state.assign(value)
        for layer in {id(layer): layer for layer in (*layers, *recurrent)}.values():
            object.__delattr__(layer, "call")


def _count_uses(layer: Any, kernel: tuple[int, ...], inputs: Any, outputs: Any) -> int:
    """Returns how often a call uses each weight of the layer's kernels."""
    first = keras.tree.flatten(inputs)[0]
    given, result = tuple(map(int, first.shape)), tuple(map(int, keras.tree.flatten(outputs)[0].shape))
    if isinstance(layer, keras.layers.Embedding):
        looks_up = "int" in keras.backend.standardize_dtype(first.dtype) or result[-1] == layer.output_dim
        return 0 if looks_up else math.prod(given[:-1])
    if isinstance(layer, keras.layers.EinsumDense):
        return _count_combinations(layer.equation, given, kernel) // math.prod(kernel)
    if isinstance(layer, (*_PER_POSITION, *_TRANSPOSED)):
        shape = given if isinstance(layer, _TRANSPOSED) else result
        channels_first = getattr(layer, "data_format", "channels_last") == "channels_first"
        return math.prod((shape[0], *(shape[2:] if channels_first else shape[1:-1])))
    return math.prod(given[:-1])  # Dense, and cells of recurrent layers


def _count_combinations(equation: str, inputs: tuple[int, ...], kernel: tuple[int, ...]) -> int:
    """Returns how many products an einsum computes: the product of the sizes of all its indices."""
    of_inputs, of_kernel = equation.replace(" ", "").partition("->")[0].split(",")
    free = len(inputs) - len(of_inputs.replace("...", ""))
    sizes = dict(zip(of_kernel.replace("...", ""), kernel, strict=True))
    if "..." in of_inputs:
        before, _, after = of_inputs.partition("...")
        rest = inputs[len(before) : len(before) + free]
        named = dict(zip(before + after, (*inputs[: len(before)], *inputs[len(inputs) - len(after) :]), strict=True))
        return math.prod({**named, **sizes}.values()) * math.prod(rest)
    return math.prod({**dict(zip(of_inputs, inputs, strict=True)), **sizes}.values())
