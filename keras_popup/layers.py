"""Masked layers: stock Keras layers whose kernel is frozen and masked by the choice of a selector."""

import functools
import inspect
import math
import threading
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

from keras_popup import (
    _programs,
    _strategy_checks,
    composites,  # noqa: F401  importing this module registers all that a saved model may hold
    initializers,
    selectors,
)

# What the mixin's `self` and `super()` are, in every class that is used.
if TYPE_CHECKING:
    _StockLayer = Any
else:
    _StockLayer = object

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


class _InUse(threading.local):
    """The kernels of the calls that are going on, by the layer's id: each thread has its own, as Keras's calls do."""

    def __init__(self) -> None:
        self.kernels: dict[int, tf.Tensor] = {}


_in_use = _InUse()


def _own_parameters() -> list[inspect.Parameter]:
    """Returns the arguments that masked layers have and stock layers have not."""
    return [p for p in inspect.signature(MaskedLayer.__init__).parameters.values() if p.kind == p.KEYWORD_ONLY]


class MaskedLayer(_StockLayer):
    """What all masked layers share: mixed in before a stock Keras layer that has one `kernel`.

    forward: the stock layer with the kernel `w * m`, `m = selector(s, k)`;
    backward, of `TopK`: `dL/ds = dL/d(w * m) * w * sign(s)`. The kernel `w` never changes.
    """

    # The stock layer's name for the arguments kernel_initializer, _regularizer and _constraint.
    kernel_argument = "kernel"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.__module__ != __name__:
            if "__init__" in vars(cls):  # a user's class speaks for itself
                _, *parameters = inspect.signature(cls.__init__).parameters.values()
                cls.__signature__ = inspect.Signature(parameters)
            return
        stock_class = next(base for base in cls.__mro__ if not issubclass(base, MaskedLayer))
        if stock_class is object:
            return
        cls.__doc__ = (cls.__doc__ or "").rstrip() + _MASKED_ARGUMENTS
        # What help() and an editor show: the stock layer's arguments, then those of a masked layer.
        defaults = {"use_bias": False, f"{cls.kernel_argument}_initializer": "signed_constant"}
        *stock, others = inspect.signature(stock_class).parameters.values()
        parameters = [p.replace(default=defaults.get(p.name, p.default)) for p in stock]
        parameters += [*_own_parameters(), others]
        cls.__signature__ = inspect.Signature(parameters)

    def __init__(
        self,
        *args: Any,
        k: float = 0.5,
        selector: Any = "top_k",
        scores_initializer: Any = None,
        scores_regularizer: Any = None,
        train_bias: bool = True,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        k = selectors.check_k(k)
        seed = initializers.fresh_seed() if seed is None else initializers.check_seed(seed)
        signature = inspect.signature(super().__init__)
        stock = signature.bind_partial(*args, **kwargs).arguments
        stock |= stock.pop("kwargs", {})
        if "use_bias" in signature.parameters:
            stock.setdefault("use_bias", False)
        kernel_initializer = f"{self.kernel_argument}_initializer"
        identifier = stock.get(kernel_initializer) or "signed_constant"
        stock[kernel_initializer] = initializers.get_filled(identifier, seed=seed, k=k)
        super().__init__(**stock)
        if getattr(self, "lora_rank", None) or self.quantization_mode:
            raise ValueError(self._goes_round_the_mask("LoRA and quantized dtypes"))
        self.seed = seed
        self.selector = selectors.get(selector)
        if self.selector.draws and self._remat_mode:
            raise ValueError(
                f"Layer '{self.name}' draws its masks, and rematerialization would draw others in the backward pass. "
                "Leave it out of the RematScope."
            )
        scores_seed = initializers.derive_seed(seed, "scores")
        identifier = self.selector.scores_initializer if scores_initializer is None else scores_initializer
        self.scores_initializer = initializers.get_filled(identifier, seed=scores_seed, k=k)
        self.scores_regularizer = keras.regularizers.get(scores_regularizer)
        self.train_bias = bool(train_bias)
        self._k_value = k
        self._k: Any = None
        self.scores: Any = None
        self._hint: Any = None
        self._draws: Any = None

    def add_weight(self, *args: Any, name: str | None = None, **kwargs: Any) -> Any:
        """Creates a weight; the stock layer's request for its kernel makes the scores and `k` too."""
        if name == "bias" and not self.train_bias:
            kwargs["trainable"] = False
        if name != "kernel":
            return super().add_weight(*args, name=name, **kwargs)
        _strategy_checks.check_strategy()
        shape = tuple(kwargs["shape"])
        if not all(shape):
            raise ValueError(
                f"Layer '{self.name}' needs an input whose channels are known and not 0. "
                f"Received: a kernel of shape {shape}."
            )
        where = f" of layer '{self.name}'"
        selectors.check_kept(self._k_value, math.prod(shape), where)
        fans = self._fans(shape)
        # Not by `trainable = False` afterwards: setting `trainable` on the model would thaw it again.
        # Not autocast: the product with the mask is rounded to the compute type, once.
        kwargs |= {"trainable": False, "autocast": False, "initializer": self._for_fans(kwargs["initializer"], fans)}
        kernel = super().add_weight(name=name, **kwargs)
        self.scores = super().add_weight(
            name="scores",
            shape=shape,
            dtype="float32",
            autocast=False,  # ranked in a half type, scores would tie
            initializer=self._for_fans(self.scores_initializer, fans),
            regularizer=self._penalty if self.scores_regularizer or self._kernel_regularizer else None,
        )
        self._k = super().add_weight(
            name="k",
            shape=(),
            dtype="float64",  # in float32, k = 0.7 keeps 3 of 5 weights instead of 4
            autocast=False,
            # Keras's own Constant goes through float32.
            initializer=lambda shape, dtype: tf.constant(self._k_value, dtype),
            trainable=False,
        )
        if self.selector.draws:
            self._draws = super().add_weight(
                name="draws",
                shape=(),
                dtype="int64",
                autocast=False,
                initializer="zeros",
                trainable=False,
                aggregation="only_first_replica",  # they count alike
            )
        # Not a weight: nothing is lost with it, and each replica has its own.
        with tf.init_scope():
            self._hint = tf.Variable(
                tf.zeros((), tf.int64),
                trainable=False,
                synchronization=tf.VariableSynchronization.ON_READ,
                aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
                name="hint",
            )
        return kernel

    def _penalty(self, scores: Any) -> tf.Tensor:
        """Returns what the regularizers ask for. Keras calls this once per layer, however often it is shared."""
        penalty = tf.constant(0.0)
        if self.scores_regularizer is not None:
            penalty += self.scores_regularizer(scores)
        if self._kernel_regularizer is not None:
            penalty += tf.cast(self._kernel_regularizer(self._masked_kernel()), tf.float32)
        return penalty

    @property
    def frozen_initializer(self) -> Any:
        """The initializer of the frozen kernel, whatever the stock layer calls it."""
        return getattr(self, f"{self.kernel_argument}_initializer")

    @property
    def _kernel_regularizer(self) -> Any:
        return getattr(self, f"{self.kernel_argument}_regularizer")

    def _for_fans(self, initializer: Any, fans: tuple[int, int]) -> Any:
        if isinstance(initializer, initializers.FrozenInitializer):
            return functools.partial(initializer, fans=fans)
        return initializer

    def _fans(self, shape: tuple[int, ...]) -> tuple[int, int]:
        return initializers.kernel_fans(shape)

    def channel_axes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Returns the kernel's axes of input channels and those of output channels."""
        return (self.scores.ndim - 2,), (self.scores.ndim - 1,)

    @property
    def k(self) -> float:
        """The fraction of weights kept, in (0, 1]."""
        return self._k_value if self._k is None else float(self._k.numpy())

    @k.setter
    def k(self, value: float) -> None:
        value = selectors.check_k(value)
        if self._k is not None:
            selectors.check_kept(value, math.prod(self.scores.shape), f" of layer '{self.name}'")
            self._k.assign(value)
        self._k_value = value

    @property
    def kept(self) -> int:
        """The number of weights kept outside of training, as the selector has it."""
        self._check_built("kept")
        return self.selector.kept(self.scores.value, self.k)

    def mask(self, training: bool = False) -> tf.Tensor:
        """Returns the mask of the kernel.

        Args:
            training: bool, for selectors that choose differently in training: then the mask of the next call.

        Returns:
            float32 tensor of the kernel's shape, exactly 0 or 1.
        """
        self._check_built("mask()")
        return self.selector(self.scores.value, tf.convert_to_tensor(self._k), training, **self._next_seed(training))

    @property
    def kernel(self) -> tf.Tensor:
        """The kernel that is used: frozen kernel times mask, in the compute dtype."""
        in_use = _in_use.kernels.get(id(self))
        return self._masked_kernel() if in_use is None else in_use

    @kernel.setter
    def kernel(self, variable: Any) -> None:
        # Some stock layers keep their kernel under this name, others under the private one.
        self._kernel = variable

    def _masked_kernel(self, training: bool = False, dtype: str | None = None, **seed: Any) -> tf.Tensor:
        self._check_built("kernel")
        k = tf.convert_to_tensor(self._k)
        kernel, scores, dtype = self._kernel.value, self.scores.value, dtype or self.compute_dtype
        return self.selector.masked_kernel(kernel, scores, k, training, dtype, self._hint, **seed)

    def _next_seed(self, training: bool) -> dict[str, Any]:
        """Returns what a selector that draws is given besides: the seed of the next draw."""
        if not (training and self.selector.draws):
            return {}
        own = tf.constant(initializers.derive_seed(self.seed, "draws"), tf.int64)
        return {"seed": tf.stack([own, self._draws.value])}

    def baked_kernel(self) -> tf.Tensor:
        """Returns the masked kernel in the type it is kept in, with plain zeros, none of them negative."""
        with _programs.interpreted():
            return self._masked_kernel(dtype=self._kernel.dtype) + 0.0

    def __dir__(self) -> list[str]:
        # Keras, saving, asks for everything that is listed here, and the kernel would be computed each time.
        return [name for name in super().__dir__() if name != "kernel"]

    def stock_copy(self) -> Any:
        """Returns a new stock layer of the same config, not built."""
        config = self.get_config()
        for name in (*(parameter.name for parameter in _own_parameters()), f"{self.kernel_argument}_initializer"):
            config.pop(name)
        stock: Any = next((stock for stock, masked in MASKED_LAYERS.items() if masked is type(self)), None)
        if stock is None:
            raise ValueError(
                f"Layer '{self.name}' ({type(self).__name__}) has code of its own on top of a masked layer's. No "
                "stock layer does what it does."
            )
        return stock.from_config(config)

    def _check_built(self, attribute: str) -> None:
        if self.scores is None:
            raise AttributeError(
                f"Layer '{self.name}' has no `{attribute}` before it is built. "
                "Call it on an input, or call its `build(input_shape)`, first."
            )

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        self._check_exporter()
        _strategy_checks.check_training_step()
        seed = self._next_seed(bool(training))
        if seed:  # before the kernel: other replicas, which are threads, may run in the meantime
            self._draws.assign(self._draws.value + 1)
        _in_use.kernels[id(self)] = self._masked_kernel(bool(training), **seed)
        try:
            return super().call(inputs)
        finally:
            del _in_use.kernels[id(self)]

    def _check_exporter(self) -> None:
        """Raises ValueError inside Keras's exports to formats that cannot choose weights.

        Their converters write a file all the same, which no runtime can read. Nothing but the call stack tells
        a layer which export it is traced for; eager calls and graphs that are there already do not come here.
        """
        if tf.executing_eagerly():
            return
        frame = inspect.currentframe()
        while frame is not None:
            if frame.f_globals.get("__name__") in ("keras.src.export.onnx", "keras.src.export.litert"):
                raise ValueError(
                    f"Layer '{self.name}' ({type(self).__name__}) cannot be exported to this format with its mask. "
                    "Use keras_popup.export(model, path), or strip the masks first: "
                    "keras_popup.strip_masks(model).export(path, ...)."
                )
            frame = frame.f_back

    # The stock layers save what `kernel` returns, and know nothing of scores.
    def save_own_variables(self, store: Any) -> None:
        keras.layers.Layer.save_own_variables(self, store)

    def load_own_variables(self, store: Any) -> None:
        keras.layers.Layer.load_own_variables(self, store)

    def quantize(self, *args: Any, **kwargs: Any) -> None:
        """Raises ValueError: quantization would replace the masked kernel."""
        # Not NotImplementedError, which `Model.quantize` turns into a warning.
        raise ValueError(self._goes_round_the_mask("quantize()"))

    def enable_lora(self, *args: Any, **kwargs: Any) -> None:
        """Raises ValueError: LoRA would add unmasked weights to the kernel."""
        raise ValueError(self._goes_round_the_mask("enable_lora()"))

    def _goes_round_the_mask(self, what: str) -> str:
        return (
            f"{what} would go round the mask of layer '{self.name}' ({type(self).__name__}). Strip the masks "
            "first, with keras_popup.strip_masks(model)."
        )

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "k": self.k,
            "selector": selectors.serialize(self.selector),
            "scores_initializer": initializers.serialize(self.scores_initializer),
            "scores_regularizer": keras.regularizers.serialize(self.scores_regularizer),
            "train_bias": self.train_bias,
            "seed": self.seed,
        }


@keras.saving.register_keras_serializable("keras_popup")
class MaskedDense(MaskedLayer, keras.layers.Dense):
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


@keras.saving.register_keras_serializable("keras_popup")
class MaskedEinsumDense(MaskedLayer, keras.layers.EinsumDense):
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

    def _fans(self, shape: tuple[int, ...]) -> tuple[int, int]:
        operands, output = self.equation.replace(" ", "").split("->")
        inputs, kernel = operands.split(",")
        axes = list(zip(kernel, shape, strict=True))
        fan_in = math.prod(size for axis, size in axes if axis not in output)
        return fan_in, math.prod(size for axis, size in axes if axis not in inputs)

    def channel_axes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        operands, output = self.equation.replace(" ", "").split("->")
        inputs, kernel = operands.split(",")
        rows = tuple(number for number, axis in enumerate(kernel) if axis in inputs)
        return rows, tuple(number for number, axis in enumerate(kernel) if axis in output)


@keras.saving.register_keras_serializable("keras_popup")
class MaskedConv1D(MaskedLayer, keras.layers.Conv1D):
    """1D convolution with a frozen, masked kernel.

    Input shape:
        `(batch, steps, channels)`, or `(batch, channels, steps)` for "channels_first".

    Output shape:
        `(batch, new_steps, filters)`, or `(batch, filters, new_steps)`.
    """


@keras.saving.register_keras_serializable("keras_popup")
class MaskedConv2D(MaskedLayer, keras.layers.Conv2D):
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


@keras.saving.register_keras_serializable("keras_popup")
class MaskedConv3D(MaskedLayer, keras.layers.Conv3D):
    """3D convolution with a frozen, masked kernel.

    Input shape:
        `(batch, depth, height, width, channels)`, or channels second for "channels_first".

    Output shape:
        `(batch, new_depth, new_height, new_width, filters)`, or filters second.
    """


class _MaskedDepthwise(MaskedLayer):
    kernel_argument = "depthwise"

    def _fans(self, shape: tuple[int, ...]) -> tuple[int, int]:
        *window, _, multiplier = shape
        return math.prod(window), math.prod(window) * multiplier

    def channel_axes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        last = self.scores.ndim - 1
        return (last - 1,), (last - 1, last)


@keras.saving.register_keras_serializable("keras_popup")
class MaskedDepthwiseConv1D(_MaskedDepthwise, keras.layers.DepthwiseConv1D):
    """1D depthwise convolution with a frozen, masked kernel. fan_in is the kernel size.

    Input shape:
        `(batch, steps, channels)`, or `(batch, channels, steps)` for "channels_first".

    Output shape:
        `(batch, new_steps, channels * depth_multiplier)`, or channels second.
    """


@keras.saving.register_keras_serializable("keras_popup")
class MaskedDepthwiseConv2D(_MaskedDepthwise, keras.layers.DepthwiseConv2D):
    """2D depthwise convolution with a frozen, masked kernel. fan_in is kernel height * width.

    Input shape:
        `(batch, height, width, channels)`, or `(batch, channels, height, width)` for "channels_first".

    Output shape:
        `(batch, new_height, new_width, channels * depth_multiplier)`, or channels second.
    """


@keras.saving.register_keras_serializable("keras_popup")
class MaskedConv2DTranspose(MaskedLayer, keras.layers.Conv2DTranspose):
    """2D transposed convolution with a frozen, masked kernel.

    fan_in is kernel height * width * input channels, whatever the strides.

    Input shape:
        `(batch, height, width, channels)`, or `(batch, channels, height, width)` for "channels_first".

    Output shape:
        `(batch, new_height, new_width, filters)`, or `(batch, filters, new_height, new_width)`.
    """

    def _fans(self, shape: tuple[int, ...]) -> tuple[int, int]:
        fan_out, fan_in = initializers.kernel_fans(shape)  # a transposed kernel is (*window, outputs, inputs)
        return fan_in, fan_out

    def channel_axes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        outputs, inputs = super().channel_axes()
        return inputs, outputs


MASKED_LAYERS: dict[type, Any] = {
    keras.layers.Dense: MaskedDense,
    keras.layers.EinsumDense: MaskedEinsumDense,
    keras.layers.Conv1D: MaskedConv1D,
    keras.layers.Conv2D: MaskedConv2D,
    keras.layers.Conv3D: MaskedConv3D,
    keras.layers.DepthwiseConv1D: MaskedDepthwiseConv1D,
    keras.layers.DepthwiseConv2D: MaskedDepthwiseConv2D,
    keras.layers.Conv2DTranspose: MaskedConv2DTranspose,
}
"""The masked layer of each stock layer that has one."""
