"""Masked layers: Keras layers whose kernels are frozen and masked by the choice of a selector."""

import inspect
import math
from typing import Any

import keras
import tensorflow as tf

from keras_popup import _keras, composites, initializers, selectors
from keras_popup._masked_kernel import KernelArguments, KernelSpec, MaskedKernel
from keras_popup._masked_layer import MaskedLayer, define_maskable, stock_class
from keras_popup._masked_layer import register_maskable as register_maskable

_MASKED_ARGUMENTS = """

    All arguments of the stock layer keep their meaning, with two other defaults: no bias, and a
    signed-constant kernel. A kernel regularizer applies to the masked kernel; a kernel constraint has
    nothing to do, since it would act after updates of the kernel. Further arguments, all by keyword:

    Args:
        k: float in (0, 1], the fraction of the kernel's weights that is kept.
        selector: a name, object or config as in `keras_popup.selectors.get`.
        scores_initializer: of the float32 scores, as in `keras_popup.initializers.get`. None is the selector's:
            "score_uniform" for "top_k", "zeros" for "bernoulli". Scores of "top_k" that start at 0 stay there:
            they have no gradient.
        scores_regularizer: Keras regularizer of the scores. The L2 of the reference with weight decay `wd`
            is `keras.regularizers.L2(wd / 2)`.
        train_bias: bool, whether the bias of a layer with `use_bias=True` is trained, or frozen like the kernel.
        seed: integer in [0, 2**64), for kernel and scores where their initializers have none of their own.
            None draws one. It is kept in the config, so a copy of the layer has the same kernel.

    Attributes:
        k: float, the fraction kept. Setting it takes effect at the next step, inside a compiled `fit` too.
        kept: int, how many weights are kept: round-half-up(k * n) for "top_k".
        scores: float32 variable of the kernel's shape, the only trainable weight of a layer without bias.
        kernel: tensor of the compute dtype, the masked kernel that the layer uses.

    Raises:
        ValueError: if `k` is outside (0, 1] or keeps no weight, or for LoRA and quantized dtypes, which
            would go round the mask.

    Reference:
        Ramanujan et al., [What's Hidden in a Randomly Weighted Neural
        Network?](https://arxiv.org/abs/1911.13299)
"""


def _einsum_parts(layer: Any) -> tuple[str, str, str]:
    """Returns the axes of inputs, kernel and outputs in the equation of an EinsumDense."""
    operands, output = layer.equation.replace(" ", "").split("->")
    inputs, kernel = operands.split(",")
    return inputs, kernel, output


def _einsum_fans(layer: Any, shape: tuple[int, ...]) -> tuple[int, int]:
    inputs, kernel, output = _einsum_parts(layer)
    axes = list(zip(kernel, shape, strict=True))
    fan_in = math.prod(size for axis, size in axes if axis not in output)
    return fan_in, math.prod(size for axis, size in axes if axis not in inputs)


def _einsum_axes(layer: Any, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    inputs, kernel, output = _einsum_parts(layer)
    rows = tuple(number for number, axis in enumerate(kernel) if axis in inputs)
    return rows, tuple(number for number, axis in enumerate(kernel) if axis in output)


def _depthwise_fans(layer: Any, shape: tuple[int, ...]) -> tuple[int, int]:
    *window, _, multiplier = shape
    return math.prod(window), math.prod(window) * multiplier


def _depthwise_axes(layer: Any, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return (rank - 2,), (rank - 2, rank - 1)


def _transposed_fans(layer: Any, shape: tuple[int, ...]) -> tuple[int, int]:
    fan_out, fan_in = initializers.kernel_fans(shape)  # a transposed kernel is (*window, outputs, inputs)
    return fan_in, fan_out


def _table_fans(layer: Any, shape: tuple[int, ...]) -> tuple[int, int]:
    return shape[-1], shape[-1]  # each output is one weight, and what is next sums over as many


_KERNEL = KernelSpec("kernel", "_kernel", "kernel")
_DEPTHWISE_KERNEL = KernelSpec("kernel", "", "depthwise", _depthwise_fans, _depthwise_axes)
_TRANSPOSED_KERNEL = KernelSpec(
    "kernel", "", "kernel", _transposed_fans, lambda layer, rank: ((rank - 1,), (rank - 2,))
)
_SEPARABLE_KERNELS = (
    KernelSpec("depthwise_kernel", "", "depthwise", _depthwise_fans, _depthwise_axes),
    KernelSpec("pointwise_kernel", "", "pointwise"),
)
_TABLE = KernelSpec("embeddings", "_embeddings", "embeddings", _table_fans)
_REVERSE_TABLE = KernelSpec("reverse_embeddings", "", "embeddings", is_there=lambda layer: not layer.tie_weights)
_RECURRENT_KERNELS = (KernelSpec("kernel", "", "kernel"), KernelSpec("recurrent_kernel", "", "recurrent"))


def own_parameters() -> list[inspect.Parameter]:
    """Returns the arguments that masked layers have and Keras's layers have not."""
    return [p for p in inspect.signature(_Constructed.__init__).parameters.values() if p.kind == p.KEYWORD_ONLY]


def kernel_seed(seed: int, spec: KernelSpec, specs: tuple[KernelSpec, ...]) -> int:
    """Returns the seed of one kernel of a layer: the layer's for the first, else one that follows from it."""
    return seed if spec is specs[0] else initializers.derive_seed(seed, spec.name)


class _Constructed(MaskedLayer):
    """What the masked layers share that can be made by hand: their constructor and config."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "kernel_specs" not in vars(cls):
            if "__init__" in vars(cls):  # a user's class speaks for itself
                _, *parameters = inspect.signature(cls.__init__).parameters.values()
                cls.__signature__ = inspect.Signature(parameters)
            return
        cls.__doc__ = (cls.__doc__ or "").rstrip() + _MASKED_ARGUMENTS
        # What help() and an editor show: the stock layer's arguments, then those of a masked layer.
        defaults: dict[str, Any] = {"use_bias": False}
        defaults |= {f"{spec.argument}_initializer": "signed_constant" for spec in cls.kernel_specs}
        *stock, others = inspect.signature(stock_class(cls)).parameters.values()
        parameters = [p.replace(default=defaults.get(p.name, p.default)) for p in stock]
        cls.__signature__ = inspect.Signature([*parameters, *own_parameters(), others])
        define_maskable(stock_class(cls), cls.kernel_specs, cls)

    def __init__(
        self,
        *args: Any,
        k: Any = 0.5,
        selector: Any = "top_k",
        scores_initializer: Any = None,
        scores_regularizer: Any = None,
        train_bias: bool = True,
        seed: Any = None,
        **kwargs: Any,
    ) -> None:
        specs = self.kernel_specs
        fractions = k if isinstance(k, dict) else dict.fromkeys((spec.name for spec in specs), selectors.check_k(k))
        if not isinstance(seed, dict):
            seed = initializers.fresh_seed() if seed is None else initializers.check_seed(seed)
        signature = inspect.signature(super().__init__)
        stock = signature.bind_partial(*args, **kwargs).arguments
        stock |= stock.pop("kwargs", {})
        if "use_bias" in signature.parameters:
            stock.setdefault("use_bias", False)
        if stock.get("weights") is not None:
            raise ValueError(
                "A masked layer has frozen weights of its own. Received: `weights`. Make a stock layer with them, and "
                'mask it with mask_model(weights="keep").'
            )
        chosen: dict[str, KernelArguments] = {}
        for spec in specs:
            if spec.name not in fractions:
                continue
            argument = f"{spec.argument}_initializer"
            own_seed = seed[spec.name] if isinstance(seed, dict) else kernel_seed(seed, spec, specs)
            identifier = stock.get(argument) or "signed_constant"
            is_first = all(other.argument != spec.argument for other in specs if other.name in chosen)
            if not is_first:  # or both would have the same values
                identifier = initializers.without_seed(identifier)
            arguments = KernelArguments.fill(fractions[spec.name], own_seed, selector, scores_initializer, identifier)
            chosen[spec.name] = arguments
            if is_first:
                stock[argument] = arguments.initializer
        super().__init__(**stock)
        regularizer = keras.regularizers.get(scores_regularizer)
        kernels = {
            spec.name: MaskedKernel(self, spec, chosen[spec.name], regularizer)
            for spec in specs
            if spec.name in chosen and spec.is_there(self)
        }
        object.__setattr__(self, "masked_kernels", kernels)
        object.__setattr__(self, "train_bias", bool(train_bias))
        if getattr(self, "lora_rank", None) or self.quantization_mode:
            raise ValueError(self._goes_round_the_mask("LoRA and quantized dtypes"))
        composites.check_rematerialization(self, selectors.get(selector))

    @property
    def _one(self) -> MaskedKernel:
        kernels = list(self.masked_kernels.values())
        if len(kernels) != 1:
            raise AttributeError(
                f"Layer '{self.name}' has several masked kernels, {list(self.masked_kernels)}: see `masked_kernels`."
            )
        return kernels[0]

    @property
    def k(self) -> Any:
        """The fraction of weights kept, in (0, 1]; of several kernels a dict. A number can be set for all of them."""
        kernels = self.masked_kernels
        return self._one.k if len(kernels) == 1 else {name: kernel.k for name, kernel in kernels.items()}

    @k.setter
    def k(self, value: float) -> None:
        for kernel in self.masked_kernels.values():
            kernel.k = value

    @property
    def kept(self) -> int:
        """The number of weights kept outside of training, of all kernels, as the selector has it."""
        return sum(kernel.kept for kernel in self.masked_kernels.values())

    def mask(self, training: bool = False) -> tf.Tensor:
        """Returns the mask of the kernel.

        Args:
            training: bool, for selectors that choose differently in training: then the mask of the next call.

        Returns:
            float32 tensor of the kernel's shape, exactly 0 or 1.

        Raises:
            AttributeError: if the layer is not built, or has several kernels: see `masked_kernels`.
        """
        return self._one.mask(training)

    def baked_kernel(self) -> tf.Tensor:
        """Returns the masked kernel in the type it is kept in, with plain zeros, none of them negative."""
        return self._one.baked()

    @property
    def frozen_kernel(self) -> Any:
        """The variable of the frozen kernel."""
        return self._one.kernel

    @property
    def scores(self) -> Any:
        """The variable of the scores, None before the layer is built."""
        return self._one.scores

    @property
    def seed(self) -> int:
        """The seed of the kernel, its initial scores and its draws; of several kernels, that of the first."""
        return next(iter(self.masked_kernels.values())).seed

    @property
    def selector(self) -> selectors.Selector:
        """The selector of the layer."""
        return next(iter(self.masked_kernels.values())).selector

    @property
    def scores_initializer(self) -> Any:
        """The initializer of the scores."""
        return next(iter(self.masked_kernels.values())).scores_initializer

    @property
    def scores_regularizer(self) -> Any:
        """The regularizer of the scores."""
        return next(iter(self.masked_kernels.values())).scores_regularizer

    def get_config(self) -> dict[str, Any]:
        kernels = list(self.masked_kernels.values())
        first = kernels[0]
        several = len(kernels) > 1
        scores_initializer = first.scores_initializer
        if several:  # each kernel fills in its own
            scores_initializer = initializers.without_seed(scores_initializer)
        return {
            **super().get_config(),
            "k": {kernel.name: kernel.k for kernel in kernels} if several else first.k,
            "selector": selectors.serialize(first.selector),
            "scores_initializer": _keras.without_sharing(initializers.serialize(scores_initializer)),
            "scores_regularizer": keras.regularizers.serialize(first.scores_regularizer),
            "train_bias": self.train_bias,
            "seed": {kernel.name: kernel.seed for kernel in kernels} if several else first.seed,
        }

    @classmethod
    def to_stock_serialized(cls, config: dict[str, Any]) -> dict[str, Any]:
        """Returns a layer of the Keras class, serialized, of the config of one of this class."""
        own = {parameter.name for parameter in own_parameters()}
        own |= {f"{spec.argument}_initializer" for spec in cls.kernel_specs}
        config = {name: composites.to_stock(each) for name, each in config.items() if name not in own}
        stock = stock_class(cls)
        return {"module": "keras.layers", "class_name": stock.__name__, "config": config, "registered_name": None}


@keras.saving.register_keras_serializable("keras_popup")
class MaskedDense(_Constructed, keras.layers.Dense):
    """Dense layer with a frozen, masked kernel: `activation(inputs @ (w * m) + bias)`.

    Input shape:
        `(batch, ..., inputs)`

    Output shape:
        `(batch, ..., units)`

    Example:

    >>> import numpy as np
    >>> import keras_popup
    >>> layer = keras_popup.layers.MaskedDense(2, k=0.5, seed=1)
    >>> layer(np.ones((1, 4), "float32")).shape
    TensorShape([1, 2])
    >>> layer.kept, int(layer.mask().numpy().sum())
    (4, 4)
    """

    kernel_specs = (_KERNEL,)


@keras.saving.register_keras_serializable("keras_popup")
class MaskedEinsumDense(_Constructed, keras.layers.EinsumDense):
    """EinsumDense layer with a frozen, masked kernel: `activation(einsum(equation, inputs, w * m) + bias)`.

    fan_in is the product of the kernel's axes that the sum runs over, those absent from the output.

    Input shape:
        as the equation says.

    Output shape:
        as the equation says.

    Example:

    >>> import numpy as np
    >>> import keras_popup
    >>> layer = keras_popup.layers.MaskedEinsumDense("abc,cd->abd", output_shape=(None, 5), k=0.3, seed=1)
    >>> layer(np.ones((1, 2, 4), "float32")).shape
    TensorShape([1, 2, 5])
    """

    kernel_specs = (KernelSpec("kernel", "_kernel", "kernel", _einsum_fans, _einsum_axes),)


@keras.saving.register_keras_serializable("keras_popup")
class MaskedConv1D(_Constructed, keras.layers.Conv1D):
    """1D convolution with a frozen, masked kernel.

    Input shape:
        `(batch, steps, channels)`, or `(batch, channels, steps)` for "channels_first".

    Output shape:
        `(batch, new_steps, filters)`, or `(batch, filters, new_steps)`.
    """

    kernel_specs = (_KERNEL,)


@keras.saving.register_keras_serializable("keras_popup")
class MaskedConv2D(_Constructed, keras.layers.Conv2D):
    """2D convolution with a frozen, masked kernel.

    Input shape:
        `(batch, height, width, channels)`, or `(batch, channels, height, width)` for "channels_first".

    Output shape:
        `(batch, new_height, new_width, filters)`, or `(batch, filters, new_height, new_width)`.

    Example:

    >>> import numpy as np
    >>> import keras_popup
    >>> layer = keras_popup.layers.MaskedConv2D(8, 3, padding="same", k=0.3, seed=1)
    >>> layer(np.ones((1, 32, 32, 3), "float32")).shape
    TensorShape([1, 32, 32, 8])
    >>> layer.kept  # of 3 * 3 * 3 * 8 = 216
    65
    """

    kernel_specs = (_KERNEL,)


@keras.saving.register_keras_serializable("keras_popup")
class MaskedConv3D(_Constructed, keras.layers.Conv3D):
    """3D convolution with a frozen, masked kernel.

    Input shape:
        `(batch, depth, height, width, channels)`, or channels second for "channels_first".

    Output shape:
        `(batch, new_depth, new_height, new_width, filters)`, or filters second.
    """

    kernel_specs = (_KERNEL,)


@keras.saving.register_keras_serializable("keras_popup")
class MaskedDepthwiseConv1D(_Constructed, keras.layers.DepthwiseConv1D):
    """1D depthwise convolution with a frozen, masked kernel. fan_in is the kernel size.

    Input shape:
        `(batch, steps, channels)`, or `(batch, channels, steps)` for "channels_first".

    Output shape:
        `(batch, new_steps, channels * depth_multiplier)`, or channels second.
    """

    kernel_specs = (_DEPTHWISE_KERNEL,)


@keras.saving.register_keras_serializable("keras_popup")
class MaskedDepthwiseConv2D(_Constructed, keras.layers.DepthwiseConv2D):
    """2D depthwise convolution with a frozen, masked kernel. fan_in is kernel height * width.

    Input shape:
        `(batch, height, width, channels)`, or `(batch, channels, height, width)` for "channels_first".

    Output shape:
        `(batch, new_height, new_width, channels * depth_multiplier)`, or channels second.
    """

    kernel_specs = (_DEPTHWISE_KERNEL,)


@keras.saving.register_keras_serializable("keras_popup")
class MaskedConv2DTranspose(_Constructed, keras.layers.Conv2DTranspose):
    """2D transposed convolution with a frozen, masked kernel.

    fan_in is kernel height * width * input channels, whatever the strides.

    Input shape:
        `(batch, height, width, channels)`, or `(batch, channels, height, width)` for "channels_first".

    Output shape:
        `(batch, new_height, new_width, filters)`, or `(batch, filters, new_height, new_width)`.
    """

    kernel_specs = (_TRANSPOSED_KERNEL,)


@keras.saving.register_keras_serializable("keras_popup")
class MaskedConv1DTranspose(_Constructed, keras.layers.Conv1DTranspose):
    """1D transposed convolution with a frozen, masked kernel.

    fan_in is the kernel size * input channels, whatever the strides.

    Input shape:
        `(batch, steps, channels)`, or `(batch, channels, steps)` for "channels_first".

    Output shape:
        `(batch, new_steps, filters)`, or `(batch, filters, new_steps)`.
    """

    kernel_specs = (_TRANSPOSED_KERNEL,)


@keras.saving.register_keras_serializable("keras_popup")
class MaskedConv3DTranspose(_Constructed, keras.layers.Conv3DTranspose):
    """3D transposed convolution with a frozen, masked kernel.

    fan_in is the size of the window * input channels, whatever the strides.

    Input shape:
        `(batch, depth, height, width, channels)`, or channels second for "channels_first".

    Output shape:
        `(batch, new_depth, new_height, new_width, filters)`, or filters second.
    """

    kernel_specs = (_TRANSPOSED_KERNEL,)


@keras.saving.register_keras_serializable("keras_popup")
class MaskedSeparableConv1D(_Constructed, keras.layers.SeparableConv1D):
    """1D separable convolution with two frozen, masked kernels: "depthwise_kernel" and "pointwise_kernel".

    Input shape:
        `(batch, steps, channels)`, or `(batch, channels, steps)` for "channels_first".

    Output shape:
        `(batch, new_steps, filters)`, or `(batch, filters, new_steps)`.
    """

    kernel_specs = _SEPARABLE_KERNELS


@keras.saving.register_keras_serializable("keras_popup")
class MaskedSeparableConv2D(_Constructed, keras.layers.SeparableConv2D):
    """2D separable convolution with two frozen, masked kernels: "depthwise_kernel" and "pointwise_kernel".

    Input shape:
        `(batch, height, width, channels)`, or `(batch, channels, height, width)` for "channels_first".

    Output shape:
        `(batch, new_height, new_width, filters)`, or `(batch, filters, new_height, new_width)`.

    Example:

    >>> import numpy as np
    >>> import keras_popup
    >>> layer = keras_popup.layers.MaskedSeparableConv2D(4, 3, k=0.5, seed=1)
    >>> layer(np.ones((1, 8, 8, 2), "float32")).shape
    TensorShape([1, 6, 6, 4])
    >>> {name: kernel.kept for name, kernel in layer.masked_kernels.items()}
    {'depthwise_kernel': 9, 'pointwise_kernel': 4}
    """

    kernel_specs = _SEPARABLE_KERNELS


@keras.saving.register_keras_serializable("keras_popup")
class MaskedEmbedding(_Constructed, keras.layers.Embedding):
    """Embedding with a frozen, masked table. fan_in is the output dimension.

    Input shape:
        `(batch, ...)`, integers.

    Output shape:
        `(batch, ..., output_dim)`
    """

    kernel_specs = (_TABLE,)


@keras.saving.register_keras_serializable("keras_popup")
class MaskedReversibleEmbedding(_Constructed, keras.layers.ReversibleEmbedding):
    """Embedding with a frozen, masked table that is used both ways, or one for each with `tie_weights=False`.

    Input shape:
        `(batch, ...)`, integers; with `reverse=True`, `(batch, ..., output_dim)`.

    Output shape:
        `(batch, ..., output_dim)`; with `reverse=True`, `(batch, ..., input_dim)`.
    """

    kernel_specs = (_TABLE, _REVERSE_TABLE)

    def kernels_of_call(self, *args: Any, reverse: bool = False, **kwargs: Any) -> list[MaskedKernel]:
        name = "reverse_embeddings" if reverse and not self.tie_weights else "embeddings"
        return [self.masked_kernels[name]]


# A recurrent layer makes its cell, which is masked where it is.
for _cell in (keras.layers.SimpleRNNCell, keras.layers.LSTMCell, keras.layers.GRUCell, _keras.ConvLSTMCell):
    define_maskable(_cell, _RECURRENT_KERNELS)

MASKED_LAYERS: dict[type, Any] = {
    keras.layers.Dense: MaskedDense,
    keras.layers.EinsumDense: MaskedEinsumDense,
    keras.layers.Conv1D: MaskedConv1D,
    keras.layers.Conv2D: MaskedConv2D,
    keras.layers.Conv3D: MaskedConv3D,
    keras.layers.DepthwiseConv1D: MaskedDepthwiseConv1D,
    keras.layers.DepthwiseConv2D: MaskedDepthwiseConv2D,
    keras.layers.SeparableConv1D: MaskedSeparableConv1D,
    keras.layers.SeparableConv2D: MaskedSeparableConv2D,
    keras.layers.Conv1DTranspose: MaskedConv1DTranspose,
    keras.layers.Conv2DTranspose: MaskedConv2DTranspose,
    keras.layers.Conv3DTranspose: MaskedConv3DTranspose,
    keras.layers.Embedding: MaskedEmbedding,
    keras.layers.ReversibleEmbedding: MaskedReversibleEmbedding,
}
"""The masked layer of each of Keras's layers that has one which can be made by hand."""
