"""Converts the weights of LiteRT files to int8, so that signed constants keep their exact values.

LiteRT's own "dynamic range" conversion rounds weights to 127 steps, and also quantizes activations at run time. Here,
only weights become int8. A kernel with one magnitude becomes -1, 0 and +1 times that magnitude, which are its exact
values. One whose magnitudes are multiples of the smallest, as with several coats, becomes whole numbers. A DEQUANTIZE
operation converts the weights to float32. The runtime executes it once.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

# The operations whose second input is a kernel, with the axis of output channels in the kernel.
_CHANNEL_AXES = {"CONV_2D": 0, "FULLY_CONNECTED": 0, "DEPTHWISE_CONV_2D": 3, "TRANSPOSE_CONV": 0, "CONV_3D": 4}
_LEAST_SIZE = 64  # weights; smaller kernels would grow, because a scale and an operation are added


def with_int8_weights(content: bytes) -> tuple[bytes, bool]:
    """Returns a LiteRT file with int8 kernels, and whether all kernels have kept their exact values.

    If all magnitudes in a kernel are whole multiples, up to 127, of one value, the kernel becomes these numbers times
    one scale: -1, 0 and +1 for signed constants. If that is true for each output channel only, because a normalization
    was folded into the kernel, each channel has its own scale. All other kernels are rounded to 127 steps per channel.

    Args:
        content: bytes of a LiteRT file with float32 weights.

    Returns:
        (content of the new file, whether no kernel was rounded).
    """
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(bytearray(content), 0)
    operation_names = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
    names = [operation_names[max(c.builtinCode, c.deprecatedBuiltinCode)] for c in model.operatorCodes]
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.DEQUANTIZE
    code.version = 5  # the first version with a scale per channel
    model.operatorCodes.append(code)
    exact = True
    for graph in model.subgraphs:
        axes = {}  # the axis of output channels for each tensor that is a kernel
        for operation in graph.operators:
            name = names[operation.opcodeIndex]
            if name in _CHANNEL_AXES and len(operation.inputs) > 1:
                axes[int(operation.inputs[1])] = _CHANNEL_AXES[name]
        added = []
        for index, axis in axes.items():
            tensor = graph.tensors[index]
            data = model.buffers[tensor.buffer].data
            if data is None or tensor.type != schema.TensorType.FLOAT32 or np.prod(tensor.shape) < _LEAST_SIZE:
                continue
            kernel = np.asarray(data, np.uint8).view("<f4").reshape(tensor.shape)
            steps, scales, is_exact = _quantize(kernel, axis)
            exact = exact and is_exact
            buffer = schema.BufferT()
            buffer.data = steps.reshape(-1).view(np.uint8)
            model.buffers.append(buffer)
            int8 = schema.TensorT()
            int8.name = tensor.name + b"_int8"
            int8.shape, int8.shapeSignature = tensor.shape, tensor.shapeSignature
            int8.type = schema.TensorType.INT8
            int8.buffer = len(model.buffers) - 1
            int8.quantization = schema.QuantizationParametersT()
            int8.quantization.scale = scales.astype(np.float32)
            int8.quantization.zeroPoint = np.zeros(len(scales), np.int64)
            int8.quantization.quantizedDimension = axis
            graph.tensors.append(int8)
            operation = schema.OperatorT()
            operation.opcodeIndex = len(model.operatorCodes) - 1
            operation.inputs, operation.outputs = [len(graph.tensors) - 1], [index]
            added.append(operation)
            tensor.buffer = 0  # no data: the operation computes this tensor
        graph.operators = added + graph.operators
    used = {tensor.buffer for graph in model.subgraphs for tensor in graph.tensors}
    used |= {entry.buffer for entry in model.metadata or []}
    for index, buffer in enumerate(model.buffers):
        if index not in used:
            buffer.data = None
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output()), exact


def _quantize(kernel: NDArray[np.float32], axis: int) -> tuple[NDArray[np.int8], NDArray[np.floating[Any]], bool]:
    """Returns (int8 kernel, one scale or one scale per channel, whether their product is exactly the kernel)."""
    magnitudes = np.abs(kernel)
    others = tuple(a for a in range(kernel.ndim) if a != axis)
    along = tuple(-1 if a == axis else 1 for a in range(kernel.ndim))
    some = np.where(magnitudes == 0, np.inf, magnitudes)
    for scales in (np.atleast_1d(some.min()), some.min(others)):
        scales = np.where(np.isfinite(scales), scales, 1).astype(np.float32)
        shaped = scales if len(scales) == 1 else scales.reshape(along)
        steps = np.rint(kernel / shaped)
        if np.all(np.abs(steps) <= 127) and np.array_equal(steps.astype(np.float32) * shaped, kernel):
            return steps.astype(np.int8), scales, True
    largest = magnitudes.max(others)
    scales = np.where(largest > 0, largest, 1) / np.float32(127)
    return np.rint(kernel / scales.reshape(along)).astype(np.int8), scales, False
