"""LiteRT files with int8 weights: edited so that signed constants lose nothing.

LiteRT's own "dynamic range" conversion has weights of 127 steps, and quantizes activations at run time as well.
Here only weights are int8, and a kernel of one magnitude becomes -1, 0 and +1 times that magnitude: exactly the
values that it had. A DEQUANTIZE operation, which the runtime executes once, gives the float operations their input.
"""

from typing import Any

import numpy as np

# The operations whose second input is a kernel, and the axis of its output channels.
_CHANNEL_AXES = {"CONV_2D": 0, "FULLY_CONNECTED": 0, "DEPTHWISE_CONV_2D": 3, "TRANSPOSE_CONV": 0, "CONV_3D": 4}
_LEAST_SIZE = 64  # smaller kernels would grow by what describes them


def with_int8_weights(content: bytes) -> tuple[bytes, bool]:
    """Returns a LiteRT file with the kernels as int8, and whether they have kept their values exactly.

    A kernel, or each of its output channels where they differ (a folded normalization makes them do so), is
    -1, 0 and +1 times a scale if its magnitudes are 0 and one other. Else it is rounded to 127 steps per channel.

    Args:
        content: a LiteRT file with float32 weights.
    """
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(bytearray(content), 0)
    operation_names = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
    names = [operation_names[max(c.builtinCode, c.deprecatedBuiltinCode)] for c in model.operatorCodes]
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.DEQUANTIZE
    code.version = 5  # the first one with a scale per channel
    model.operatorCodes.append(code)
    exact = True
    for graph in model.subgraphs:
        axes = {}  # of the kernels in this graph, by their tensors
        for operation in graph.operators:
            name = names[operation.opcodeIndex]
            if name in _CHANNEL_AXES and len(operation.inputs) > 1:
                axes[int(operation.inputs[1])] = _CHANNEL_AXES[name]
        before = []
        for index, axis in axes.items():
            tensor = graph.tensors[index]
            data = model.buffers[tensor.buffer].data
            if data is None or tensor.type != schema.TensorType.FLOAT32 or np.prod(tensor.shape) < _LEAST_SIZE:
                continue
            kernel = np.asarray(data, np.uint8).view("<f4").reshape(tensor.shape)
            steps, scales, is_exact = _steps(kernel, axis)
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
            before.append(operation)
            tensor.buffer = 0  # now computed
        graph.operators = before + graph.operators
    used = {tensor.buffer for graph in model.subgraphs for tensor in graph.tensors}
    used |= {entry.buffer for entry in model.metadata or []}
    for index, buffer in enumerate(model.buffers):
        if index not in used:
            buffer.data = None
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output()), exact


def _steps(kernel: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray, bool]:
    """Returns a kernel as int8, the scale or the scale of each channel, and whether the product is the kernel."""
    magnitudes = np.abs(kernel)
    others = tuple(a for a in range(kernel.ndim) if a != axis)
    along = tuple(-1 if a == axis else 1 for a in range(kernel.ndim))
    largest = magnitudes.max(), magnitudes.max(others)
    for scales in (np.atleast_1d(largest[0]), largest[1]):
        each: Any = scales if len(scales) == 1 else scales.reshape(along)
        if np.all((magnitudes == 0) | (magnitudes == each)):
            return np.sign(kernel).astype(np.int8), np.where(scales > 0, scales, 1), True
    scales = np.where(largest[1] > 0, largest[1], 1) / np.float32(127)
    return np.rint(kernel / scales.reshape(along)).astype(np.int8), scales, False
