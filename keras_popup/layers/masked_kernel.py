"""A masked kernel: a frozen kernel, scores, the fraction k and a selector. A masked layer has one or several."""

import contextlib
import dataclasses
import functools
import math
import threading
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from keras_popup import _keras, initializers, selectors
from keras_popup.layers import strategy_checks

Axes = tuple[int, ...]


def _dense_fans(layer: Any, shape: Axes) -> tuple[int, int]:
    return initializers.kernel_fans(shape)


def _last_axes(layer: Any, rank: int) -> tuple[Axes, Axes]:
    return (rank - 2,) if rank > 1 else (0,), (rank - 1,)


@dataclasses.dataclass(frozen=True)
class KernelSpec:
    """One kernel of a layer class that can be masked.

    Attributes:
        name: str, its name: that of the weight, and of the attribute that the layer's code reads.
        variable: str, the attribute that holds the variable, where that is another one.
        argument: str, what the layer's arguments call it: "depthwise" of `depthwise_initializer`. None of a layer
            whose initializer is not an argument.
        fans: function of (layer, shape) that returns (fan_in, fan_out).
        axes: function of (layer, rank) that returns the axes of input channels, and those of output channels.
        is_there: function of a layer that tells whether it has this kernel at all.
    """

    name: str
    variable: str = ""
    argument: str | None = None
    fans: Callable[[Any, Axes], tuple[int, int]] = _dense_fans
    axes: Callable[[Any, int], tuple[Axes, Axes]] = _last_axes
    is_there: Callable[[Any], bool] = lambda layer: True

    @property
    def attributes(self) -> tuple[str, ...]:
        """The attributes of a layer by which its code comes to the kernel."""
        return tuple(dict.fromkeys((self.name, self.variable or self.name)))

    def plain_variable(self, layer: Any) -> Any:
        """Returns the variable of this kernel in a layer that does not mask it, None if there is none."""
        return vars(layer).get(self.attributes[-1])


@dataclasses.dataclass(frozen=True)
class KernelArguments:
    """What a masked kernel is made with.

    Attributes:
        k: float in (0, 1], the fraction of its weights that is kept.
        seed: int in [0, 2**64), of the kernel, the initial scores and the draws.
        selector: a `Selector`.
        scores_initializer: of the scores, with its seed.
        initializer: of the frozen kernel, with its seed. None for the kernel that is there.
    """

    k: float
    seed: int
    selector: selectors.Selector
    scores_initializer: Any
    initializer: Any = None

    @classmethod
    def fill(
        cls, k: float, seed: int, selector: Any, scores_initializer: Any = None, initializer: Any = None
    ) -> "KernelArguments":
        """Returns arguments whose initializers have the seeds that follow from `seed`, where they have none."""
        k, seed, selector = selectors.check_k(k), initializers.check_seed(seed), selectors.get(selector)
        scores = selector.scores_initializer if scores_initializer is None else scores_initializer
        return cls(
            k,
            seed,
            selector,
            initializers.get_filled(scores, seed=initializers.derive_seed(seed, "scores"), k=k),
            None if initializer is None else initializers.get_filled(initializer, seed=seed, k=k),
        )

    def to_json(self) -> dict[str, Any]:
        initializer = None if self.initializer is None else initializers.serialize(self.initializer)
        return {
            "k": self.k,
            "seed": self.seed,
            "selector": _keras.without_sharing(selectors.serialize(self.selector)),
            "scores_initializer": _keras.without_sharing(initializers.serialize(self.scores_initializer)),
            "initializer": _keras.without_sharing(initializer),
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "KernelArguments":
        return cls.fill(**value)


class _InUse(threading.local):
    """The kernels of the calls that are going on, by layer and name: each thread has its own, as Keras's calls do."""

    def __init__(self) -> None:
        self.kernels: dict[tuple[int, str], tf.Tensor] = {}


_in_use = _InUse()


class MaskedKernel:
    """A frozen kernel and the mask over it: `w * m`, `m = selector(s, k)`.

    Attributes:
        layer: the layer that has it.
        spec: its `KernelSpec`.
        kernel: variable, frozen. None before the layer is built.
        scores: float32 variable of the kernel's shape.
        draws: int64 variable, how many masks have been drawn. None of a selector that draws none.
        seed, selector, scores_initializer, initializer: as in `KernelArguments`.
        scores_regularizer: Keras regularizer of the scores, or None.
    """

    def __init__(self, layer: Any, spec: KernelSpec, arguments: KernelArguments, scores_regularizer: Any = None):
        self.layer, self.spec = layer, spec
        self.seed, self.selector = arguments.seed, arguments.selector
        self.scores_initializer, self.initializer = arguments.scores_initializer, arguments.initializer
        self.scores_regularizer = scores_regularizer
        self._k_value = arguments.k
        self.kernel: Any = None
        self.scores: Any = None
        self.draws: Any = None
        self.k_variable: Any = None
        self._hint: Any = None
        self._autocast = True

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def where(self) -> str:
        return f" of layer '{self.layer.name}'"

    def arguments(self) -> KernelArguments:
        """Returns what this kernel is made with, `k` as it is now."""
        return KernelArguments(self.k, self.seed, self.selector, self.scores_initializer, self.initializer)

    # Making

    def check_shape(self, shape: Axes) -> None:
        """Raises ValueError if a kernel of this shape cannot be masked."""
        strategy_checks.check_strategy()
        if not all(shape):
            raise ValueError(
                f"Layer '{self.layer.name}' needs an input whose channels are known and not 0. "
                f"Received: a kernel of shape {tuple(shape)}."
            )
        selectors.check_kept(self._k_value, math.prod(shape), self.where)

    def for_fans(self, initializer: Any, shape: Axes) -> Any:
        """Returns an initializer that knows the fans of this kernel."""
        if isinstance(initializer, initializers.FrozenInitializer):
            return functools.partial(initializer, fans=self.fans(shape))
        return initializer

    def fans(self, shape: Axes | None = None) -> tuple[int, int]:
        """Returns (fan_in, fan_out) of the kernel."""
        return self.spec.fans(self.layer, tuple(self.kernel.shape) if shape is None else tuple(shape))

    def channel_axes(self) -> tuple[Axes, Axes]:
        """Returns the kernel's axes of input channels and those of output channels."""
        return self.spec.axes(self.layer, len(self.kernel.shape))

    def freeze(self, kernel: Any, prefix: bool) -> None:
        """Takes a layer's kernel, tracked by it, and makes the variables that mask it beside it.

        Their order among the layer's variables is that of a layer which is built anew: the scores have the place
        that the kernel had, the kernel and what is not trained stand before all that a layer makes later.

        Args:
            prefix: bool, whether the variables are named after the kernel: the layer has several.
        """
        layer, trainable = self.layer, _keras.own_variables(self.layer, _keras.TRAINABLE)
        # Keras saves variables by their position in these two lists. The kernel moves to the second one, as
        # `trainable = False` alone would be undone by setting `trainable` on the model.
        place = next((i for i, variable in enumerate(trainable) if variable is kernel), len(trainable))
        before = [other for other in layer.masked_kernels.values() if other.kernel is not None]
        others = sum(3 if other.draws is not None else 2 for other in before)
        self.kernel = kernel
        kernel.trainable = False
        # Not autocast: the product with the mask is rounded to the compute type, once.
        self._autocast, kernel._autocast = kernel._autocast, False
        _keras.track(layer, _keras.NON_TRAINABLE, kernel, others)
        shape = tuple(kernel.shape)
        self.scores = keras.Variable(
            self.for_fans(self.scores_initializer, shape),
            shape=shape,
            dtype="float32",
            autocast=False,  # ranked in a half type, scores would tie
            name="scores",
        )
        self.k_variable = keras.Variable(
            # Keras's own Constant goes through float32.
            lambda shape, dtype: tf.constant(self._k_value, dtype),
            shape=(),
            dtype="float64",  # in float32, k = 0.7 keeps 3 of 5 weights instead of 4
            autocast=False,
            trainable=False,
            name="k",
        )
        if self.selector.draws:
            self.draws = keras.Variable(
                "zeros",
                shape=(),
                dtype="int64",
                autocast=False,
                trainable=False,
                aggregation="only_first_replica",  # they count alike
                name="draws",
            )
        path = kernel.path if prefix else kernel.path.rpartition("/")[0]
        # As of variables that `add_weight` makes: Keras reads them.
        for variable in (self.scores, self.k_variable, self.draws):
            if variable is not None:
                variable.constraint = variable.regularizer = None
                variable.overwrite_with_gradient = False
                _keras.set_path(variable, f"{path}/{variable.name}".lstrip("/"))
        self.scores.regularizer = self._penalty if self.scores_regularizer or self.regularizer else None
        self.scores.trainable = layer.trainable
        _keras.track(layer, _keras.TRAINABLE, self.scores, place)
        _keras.track(layer, _keras.NON_TRAINABLE, self.k_variable, others + 1)
        if self.draws is not None:
            _keras.track(layer, _keras.NON_TRAINABLE, self.draws, others + 2)
        # Not a weight: nothing is lost with it, and each replica has its own.
        with tf.init_scope():
            self._hint = tf.Variable(
                tf.zeros((), tf.int64),
                trainable=False,
                synchronization=tf.VariableSynchronization.ON_READ,
                aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
                name="hint",
            )

    def thaw(self) -> None:
        """Undoes `freeze`: the layer has the kernel as a plain variable again, in the place of the scores."""
        store = _keras.untrack(self.layer, self.scores)
        for variable in (self.k_variable, self.draws):
            if variable is not None:
                _keras.untrack(self.layer, variable)
        self.kernel._autocast = self._autocast
        self.kernel.trainable = self.layer.trainable
        _keras.track(self.layer, _keras.TRAINABLE, self.kernel, store[1] if store else None)

    @property
    def regularizer(self) -> Any:
        """The kernel's own regularizer, which applies to the masked kernel."""
        return getattr(self.kernel, "regularizer", None)

    def _penalty(self, scores: Any) -> tf.Tensor:
        """Returns what the regularizers ask for. Keras calls this once per layer, however often it is shared."""
        penalty = tf.constant(0.0)
        if self.scores_regularizer is not None:
            penalty += self.scores_regularizer(scores)
        if self.regularizer is not None:
            penalty += tf.cast(self.regularizer(self.masked()), tf.float32)
        return penalty

    # Using

    @property
    def k(self) -> float:
        """The fraction of weights kept, in (0, 1]."""
        return self._k_value if self.k_variable is None else float(self.k_variable.numpy())

    @k.setter
    def k(self, value: float) -> None:
        value = selectors.check_k(value)
        if self.k_variable is not None:
            selectors.check_kept(value, self.size, self.where)
            self.k_variable.assign(value)
        self._k_value = value

    @property
    def size(self) -> int:
        """The number of weights."""
        self.check_built("size")
        return math.prod(self.scores.shape)

    @property
    def kept(self) -> int:
        """The number of weights kept outside of training, as the selector has it."""
        self.check_built("kept")
        return self.selector.kept(self.scores.value, self.k)

    def mask(self, training: bool = False) -> tf.Tensor:
        """Returns the mask: a float32 tensor, 0 or 1. In training, of a selector that draws, that of the next call."""
        self.check_built("mask()")
        k = tf.convert_to_tensor(self.k_variable)
        return self.selector(self.scores.value, k, training, **self._next_seed(training))

    def read(self) -> tf.Tensor:
        """Returns the kernel as the code of layers reads it: that of the call which is going on, else a new one."""
        self.check_built(self.name)
        in_use = _in_use.kernels.get((id(self.layer), self.name))
        return self.masked(dtype=self._dtype_of_reads()) if in_use is None else in_use

    def masked(self, training: bool = False, dtype: str | None = None, **seed: Any) -> tf.Tensor:
        """Returns kernel times mask, in the layer's compute type if no other is given."""
        self.check_built("kernel")
        k, dtype = tf.convert_to_tensor(self.k_variable), dtype or self.layer.compute_dtype
        kernel, scores = self.kernel.value, self.scores.value
        return self.selector.masked_kernel(kernel, scores, k, training, dtype, self._hint, **seed)

    def baked(self) -> tf.Tensor:
        """Returns the masked kernel in the type it is kept in, with plain zeros, none of them negative."""
        # A compiled program would be used only once, and compiling it takes longer than NumPy's choice.
        with selectors.without_compiling():
            return self.masked(dtype=self.kernel.dtype) + 0.0

    def choose(self, training: bool) -> tf.Tensor:
        """Returns the masked kernel for one call of the layer, and counts it where the selector draws."""
        seed = self._next_seed(training)
        if seed:  # before the kernel: other replicas, which are threads, may run in the meantime
            self.draws.assign(self.draws.value + 1)
        return self.masked(training, dtype=self._dtype_of_reads(), **seed)

    def _dtype_of_reads(self) -> str:
        """Returns the type that Keras would give the kernel in now, if it were a plain variable."""
        if "float" not in self.kernel.dtype:
            return str(self.kernel.dtype)
        if (dtype := _keras.autocast_dtype()) is not None:
            return dtype
        return str(self.layer.compute_dtype if self.layer.autocast else self.kernel.dtype)

    def _next_seed(self, training: bool) -> dict[str, Any]:
        """Returns what a selector that draws is given besides: the seed of the next draw."""
        if not (training and self.selector.draws):
            return {}
        own = tf.constant(initializers.derive_seed(self.seed, "draws"), tf.int64)
        return {"seed": tf.stack([own, self.draws.value])}

    def check_built(self, attribute: str) -> None:
        if self.scores is None:
            raise AttributeError(
                f"Layer '{self.layer.name}' has no `{attribute}` before it is built. "
                "Call it on an input, or call its `build(input_shape)`, first."
            )


@contextlib.contextmanager
def choose_once(kernels: list[MaskedKernel], training: bool) -> Iterator[None]:
    """Chooses the weights of kernels once, for all that reads them inside: not anew at every time step, say."""
    made = []
    try:
        for kernel in kernels:
            key = id(kernel.layer), kernel.name
            if key not in _in_use.kernels and kernel.scores is not None:
                _in_use.kernels[key] = kernel.choose(training)
                made.append(key)
        yield
    finally:
        for key in made:
            del _in_use.kernels[key]
