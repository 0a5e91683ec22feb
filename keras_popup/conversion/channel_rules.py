"""What layers of Keras do with channels: which leave together, which are constant, and who reads them.

The channels of a tensor are its last axis. A *slot* is a set of channels of several tensors that stay or leave
together: a convolution gives new slots, and what computes each channel by itself, such as a normalization, keeps them.
An Add joins the slots of its inputs. A channel has a *value* if it has it at every position of every example.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from keras_popup import _keras

Array = NDArray[Any]

CONVOLUTIONS = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
TRANSPOSED = (keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose, keras.layers.Conv3DTranspose)
DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
READERS = (keras.layers.Dense, *CONVOLUTIONS, *TRANSPOSED)
"""Layers whose outputs are sums over all channels of the input, each times a weight."""

_ACTIVATIONS = frozenset(
    {
        keras.activations.celu,
        keras.activations.elu,
        keras.activations.exponential,
        keras.activations.gelu,
        keras.activations.hard_shrink,
        keras.activations.hard_sigmoid,
        keras.activations.hard_silu,
        keras.activations.hard_tanh,
        keras.activations.leaky_relu,
        keras.activations.linear,
        keras.activations.log_sigmoid,
        keras.activations.mish,
        keras.activations.relu,
        keras.activations.relu6,
        keras.activations.selu,
        keras.activations.sigmoid,
        keras.activations.silu,
        keras.activations.soft_shrink,
        keras.activations.softplus,
        keras.activations.softsign,
        keras.activations.sparse_plus,
        keras.activations.sparse_sigmoid,
        keras.activations.squareplus,
        keras.activations.tanh,
        keras.activations.tanh_shrink,
        keras.activations.threshold,
    }
)
# They return numbers of each channel, or numbers between them.
_UNCHANGING = (
    *(keras.layers.ActivityRegularization, keras.layers.Identity, keras.layers.RepeatVector),
    *(keras.layers.AlphaDropout, keras.layers.Dropout, keras.layers.GaussianDropout, keras.layers.GaussianNoise),
    *(keras.layers.SpatialDropout1D, keras.layers.SpatialDropout2D, keras.layers.SpatialDropout3D),
    *(keras.layers.AveragePooling1D, keras.layers.AveragePooling2D, keras.layers.AveragePooling3D),
    *(keras.layers.MaxPooling1D, keras.layers.MaxPooling2D, keras.layers.MaxPooling3D),
    *(keras.layers.GlobalAveragePooling1D, keras.layers.GlobalAveragePooling2D, keras.layers.GlobalAveragePooling3D),
    *(keras.layers.GlobalMaxPooling1D, keras.layers.GlobalMaxPooling2D, keras.layers.GlobalMaxPooling3D),
    *(keras.layers.Cropping1D, keras.layers.Cropping2D, keras.layers.Cropping3D),
    *(keras.layers.UpSampling1D, keras.layers.UpSampling2D, keras.layers.UpSampling3D),
)
_PADDING = (keras.layers.ZeroPadding1D, keras.layers.ZeroPadding2D, keras.layers.ZeroPadding3D)
# They compute each number by itself, or from the numbers at the same place of several inputs.
_ELEMENTWISE = (
    *(keras.layers.ELU, keras.layers.LeakyReLU, keras.layers.ReLU),
    *(keras.layers.Add, keras.layers.Average, keras.layers.Maximum, keras.layers.Minimum, keras.layers.Subtract),
    *(keras.layers.Multiply, *_keras.ELEMENTWISE_OPERATIONS),
)


class Channels(NamedTuple):
    """The channels of a tensor.

    Attributes:
        slots: int array of shape `(channels,)`.
        values: float64 array of shape `(channels,)`, NaN for channels that differ from place to place.
    """

    slots: Array
    values: Array


class Read(NamedTuple):
    """The kernel of a layer, as far as channels are concerned.

    Attributes:
        inputs, outputs: the channels on both sides of the kernel.
        weights: bool array of shape `(inputs, outputs)`: where a weight is not zero.
        foldable: bool array of shape `(inputs,)`: which inputs have a value that the layer's bias can take over.
    """

    inputs: Channels
    outputs: Channels
    weights: Array
    foldable: Array


class Slots:
    """The slots of a model, numbered from 0.

    Attributes:
        reads: list of `Read`, in the order of the model.
        producers: list of (layer, channels that it gives), for the layers with a kernel.
        pinned: dict from slots that stay to the reasons why.
        padded: set of slots that cannot leave because of zero padding.
    """

    def __init__(self) -> None:
        self._parents: list[int] = []  # of each slot one that it has been joined with, or itself
        self.reads: list[Read] = []
        self.producers: list[tuple[Any, Channels]] = []
        self.pinned: dict[int, str] = {}
        self.padded: set[int] = set()

    def new(self, number: int) -> Array:
        """Returns an array of new slots."""
        slots = np.arange(len(self._parents), len(self._parents) + number)
        self._parents.extend(slots.tolist())
        return slots

    def join(self, first: Array, second: Array) -> None:
        """Joins each slot of an array with that at the same index of another."""
        for one, other in zip(first.tolist(), second.tolist(), strict=True):
            self._parents[self._find(other)] = self._find(one)

    def find_roots(self) -> Array:
        """Returns for each slot the number that stands for all that it has been joined with."""
        return np.array([self._find(slot) for slot in range(len(self._parents))], int)

    def _find(self, slot: int) -> int:
        while self._parents[slot] != slot:
            self._parents[slot] = self._parents[self._parents[slot]]
            slot = self._parents[slot]
        return slot

    def pin(self, slots: Array, reason: str) -> None:
        """Notes that slots stay. The first reason counts."""
        for slot in slots.tolist():
            self.pinned.setdefault(slot, reason)

    def note_padding(self, slots: Array, where: Array) -> None:
        """Notes that zero padding makes some slots stay."""
        self.padded.update(slots[where].tolist())


Rule = Callable[[Slots, _keras.Call, list[Channels]], Channels | None]
"""A function from the channels that a call takes to those that it gives. None if they cannot be told."""


def _read(slots: Slots, call: _keras.Call, inputs: list[Channels]) -> Channels | None:
    """Dense layers and convolutions: each output is a sum over the channels of the input."""
    layer, (taken,) = call.operation, inputs
    if getattr(layer, "groups", 1) != 1:
        return None
    weights, sums = read_kernel(layer)
    foldable = _find_foldable(layer, taken.values)
    constant = ~weights[~foldable].any(axis=0)
    before = np.where(constant, np.where(foldable, taken.values, 0.0) @ sums + read_bias(layer), np.nan)
    given = Channels(slots.new(len(before)), _activate(layer, before))
    slots.reads.append(Read(taken, given, weights, foldable))
    slots.producers.append((layer, given))
    if layer.activation not in _ACTIVATIONS:
        slots.pin(given.slots, f"the activation of '{layer.name}'")
    return given


def _read_depthwise(slots: Slots, call: _keras.Call, inputs: list[Channels]) -> Channels | None:
    """Depthwise convolutions: some outputs for each channel, which leave with it."""
    layer, (taken,) = call.operation, inputs
    if layer.activation not in _ACTIVATIONS:
        return None
    kernel = np.asarray(layer.kernel, np.float64)
    places = tuple(range(kernel.ndim - 2))
    foldable = _find_foldable(layer, taken.values)[:, None]
    constant = foldable | ~(kernel != 0).any(axis=places)
    before = np.where(constant, np.where(foldable, taken.values[:, None], 0.0) * kernel.sum(axis=places), np.nan)
    slots.note_padding(taken.slots, ~constant.all(axis=1) & ~np.isnan(taken.values))
    given = Channels(np.repeat(taken.slots, kernel.shape[-1]), _activate(layer, before.reshape(-1) + read_bias(layer)))
    slots.producers.append((layer, given))
    return given


def _normalize(slots: Slots, call: _keras.Call, inputs: list[Channels]) -> Channels | None:
    layer, (taken,) = call.operation, inputs
    if layer.axis not in (-1, len(call.inputs[0].shape) - 1):
        return None
    known = ~np.isnan(taken.values)
    if layer.scale:
        known |= np.asarray(layer.gamma) == 0
    return Channels(taken.slots, _evaluate(call, inputs, known))


def _compute(slots: Slots, call: _keras.Call, inputs: list[Channels]) -> Channels | None:
    """Functions of the numbers at one place of one channel, of one input or several."""
    if len({(len(x.shape), x.shape[-1]) for x in (*call.inputs, *call.outputs)}) != 1:
        return None  # inputs that are repeated along the channels
    known = np.logical_and.reduce([~np.isnan(taken.values) for taken in inputs])
    if type(call.operation) in (keras.layers.Multiply, _keras.MULTIPLY):
        known |= np.logical_or.reduce([taken.values == 0 for taken in inputs])
    for other in inputs[1:]:
        slots.join(inputs[0].slots, other.slots)
    return Channels(inputs[0].slots, _evaluate(call, inputs, known))


def _activate_each(slots: Slots, call: _keras.Call, inputs: list[Channels]) -> Channels | None:
    return _compute(slots, call, inputs) if call.operation.activation in _ACTIVATIONS else None


def _rescale(slots: Slots, call: _keras.Call, inputs: list[Channels]) -> Channels | None:
    layer = call.operation
    return _compute(slots, call, inputs) if np.ndim(layer.scale) == np.ndim(layer.offset) == 0 else None


def _return_unchanged(slots: Slots, call: _keras.Call, inputs: list[Channels]) -> Channels | None:
    stays_between = getattr(call.operation, "interpolation", "nearest") in ("nearest", "bilinear")
    return inputs[0] if stays_between else None


def _pad(slots: Slots, call: _keras.Call, inputs: list[Channels]) -> Channels:
    (taken,) = inputs
    slots.note_padding(taken.slots, ~np.isnan(taken.values) & (taken.values != 0))
    return Channels(taken.slots, np.where(taken.values == 0, 0.0, np.nan))


def _reshape(slots: Slots, call: _keras.Call, inputs: list[Channels]) -> Channels | None:
    """Flatten and Reshape, where the new last axis is made of whole positions with all their channels."""
    (taken,), shape = inputs, call.outputs[0].shape
    if not isinstance(shape[-1], int) or shape[-1] % len(taken.slots) or shape[1:].count(None) > 1:
        return None
    times = shape[-1] // len(taken.slots)
    return Channels(np.tile(taken.slots, times), np.tile(taken.values, times))


def _concatenate(slots: Slots, call: _keras.Call, inputs: list[Channels]) -> Channels | None:
    if call.operation.axis not in (-1, len(call.inputs[0].shape) - 1):
        return None
    return Channels(*(np.concatenate(arrays) for arrays in zip(*inputs, strict=True)))


_RULES: dict[Any, Rule] = {
    **dict.fromkeys(READERS, _read),
    **dict.fromkeys(DEPTHWISE, _read_depthwise),
    **dict.fromkeys(_UNCHANGING, _return_unchanged),
    **dict.fromkeys(_PADDING, _pad),
    **dict.fromkeys(_ELEMENTWISE, _compute),
    **dict.fromkeys((keras.layers.Flatten, keras.layers.Reshape), _reshape),
    keras.layers.Activation: _activate_each,
    keras.layers.BatchNormalization: _normalize,
    keras.layers.Concatenate: _concatenate,
    keras.layers.Rescaling: _rescale,
}


def find_rule(layer: Any) -> Rule | None:
    """Returns the rule of a layer or operation; None if there is none, as for subclasses, which may have other code."""
    return _RULES.get(type(layer))


def read_kernel(layer: Any) -> tuple[Array, Array]:
    """Returns of the kernel of one of `READERS` where weights are not zero, and their sums over the places.

    Returns:
        Two arrays of shape `(input channels, output channels)`: a bool and a float64 one.
    """
    kernel = np.asarray(layer.kernel)
    if isinstance(layer, TRANSPOSED):
        kernel = kernel.swapaxes(-1, -2)
    places = tuple(range(kernel.ndim - 2))
    return (kernel != 0).any(axis=places), kernel.sum(axis=places, dtype=np.float64)


def read_bias(layer: Any) -> Any:
    """Returns the bias of a layer in float64, or 0 if it has none."""
    return 0.0 if layer.bias is None else np.asarray(layer.bias, np.float64)


def _find_foldable(layer: Any, values: Array) -> Array:
    """Returns which values do the same at each place of a layer's output. Beside zero padding only 0 does."""
    pads = getattr(layer, "padding", "valid") != "valid" and math.prod(layer.kernel_size) > 1
    everywhere: Array = values == 0
    # The border of a transposed convolution is made of fewer places of the input.
    return everywhere if pads or isinstance(layer, TRANSPOSED) else ~np.isnan(values)


def _activate(layer: Any, before: Array) -> Array:
    """Returns what the activation of a layer makes of constants; NaN of those that are not known."""
    if layer.activation not in _ACTIVATIONS:
        return np.full(len(before), np.nan)
    known = ~np.isnan(before)
    after = layer.activation(tf.cast(np.where(known, before, 0.0), layer.compute_dtype))
    return _where_finite(known, after)


def _evaluate(call: _keras.Call, inputs: list[Channels], known: Array) -> Array:
    """Returns what a layer or operation makes of constants; NaN where `known` is false."""
    constants = {
        id(x): tf.cast(np.nan_to_num(values).reshape((1,) * (len(x.shape) - 1) + (-1,)), x.dtype)
        for x, (_, values) in zip(call.inputs, inputs, strict=True)
    }
    args, kwargs = keras.tree.map_structure(lambda value: constants.get(id(value), value), (call.args, call.kwargs))
    if isinstance(call.operation, keras.layers.Layer):
        kwargs |= _keras.without_training(call.operation)
    return _where_finite(known, call.operation(*args, **kwargs))


def _where_finite(known: Array, result: Any) -> Array:
    values = np.asarray(tf.cast(result, tf.float64)).reshape(-1)
    return np.where(known & np.isfinite(values), values, np.nan)
