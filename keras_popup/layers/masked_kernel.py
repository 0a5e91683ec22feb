"""A masked kernel: a frozen kernel, its scores, the fraction k and a selector. A masked layer has one or more."""

import contextlib
import dataclasses
import functools
import math
import threading
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from keras_popup import _keras, _workarounds, initializers, selectors
from keras_popup.layers import exact_k, kernel_groups, strategy_checks
from keras_popup.layers.remembered import RememberedKernel

Axes = tuple[int, ...]


def _compute_dense_fans(layer: Any, shape: Axes) -> tuple[int, int]:
    return initializers.kernel_fans(shape)


def _find_last_axes(layer: Any, rank: int) -> tuple[Axes, Axes]:
    return (rank - 2,) if rank > 1 else (0,), (rank - 1,)


@dataclasses.dataclass(frozen=True)
class KernelSpec:
    """One kernel of a layer class that can be masked.

    Attributes:
        name: str, the name of the weight, and of the attribute that the layer's code reads.
        variable: str, the attribute that holds the variable, or "" if it is the attribute `name`.
        argument: str, the prefix of the kernel's arguments in the layer's constructor, such as "depthwise" for
            `depthwise_initializer`. None if the constructor has no initializer of the kernel.
        fans: function that takes (layer, shape) and returns (fan_in, fan_out).
        axes: function that takes (layer, rank) and returns (axes of input channels, axes of output channels).
        is_there: function that takes a layer and returns whether it has this kernel.
    """

    name: str
    variable: str = ""
    argument: str | None = None
    fans: Callable[[Any, Axes], tuple[int, int]] = _compute_dense_fans
    axes: Callable[[Any, int], tuple[Axes, Axes]] = _find_last_axes
    is_there: Callable[[Any], bool] = lambda layer: True

    @property
    def attributes(self) -> tuple[str, ...]:
        """The attributes of a layer by which its code can read the kernel."""
        return tuple(dict.fromkeys((self.name, self.variable or self.name)))

    def find_axes(self, layer: Any, rank: int, selector: selectors.Selector) -> dict[str, Any]:
        """Returns the axes of channels as an argument, if a selector takes them."""
        return {"axes": self.axes(layer, rank)} if "axes" in selector.takes else {}

    def plain_variable(self, layer: Any) -> Any:
        """Returns the variable of this kernel in a layer that does not mask it, or None if the layer has none."""
        return vars(layer).get(self.attributes[-1])


@dataclasses.dataclass(frozen=True)
class KernelArguments:
    """The arguments of a masked kernel.

    Attributes:
        k: float in (0, 1], the fraction of its weights that is kept.
        seed: int in [0, 2**64), the seed of the kernel, the initial scores and the draws.
        selector: a `Selector`.
        scores_initializer: initializer of the scores, with its seed.
        initializer: initializer of the frozen kernel, with its seed. None keeps the values that the kernel has.
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
        """Returns checked arguments. Initializers without a seed get one that follows from `seed`."""
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
    """The masked kernels of the layer calls that are running in this thread, by `id(layer)` and kernel name."""

    def __init__(self) -> None:
        self.kernels: dict[tuple[int, str], tf.Tensor] = {}


_in_use = _InUse()


class MaskedKernel:
    """A frozen kernel and its mask: `w * m` with `m = selector(s, k)`.

    Attributes:
        layer: the layer that the kernel belongs to.
        spec: the `KernelSpec` of the kernel.
        kernel: variable w, frozen. None before the layer is built.
        scores: float32 variable s of the kernel's shape. None before the layer is built.
        k_variable: float32 variable of shape (3,): numbers whose sum is the fraction kept, exactly. None before the
            layer is built. `read_k` adds them up.
        draws: int64 variable, the number of masks drawn so far. None if the selector draws no masks.
        group: the `KernelGroup` of the kernels that choose together with this one. None if it chooses alone.
        seed, selector, scores_initializer, initializer: as in `KernelArguments`.
        scores_regularizer: Keras regularizer of the scores, or None.
    """

    def __init__(self, layer: Any, spec: KernelSpec, arguments: KernelArguments, scores_regularizer: Any = None):
        _keras.require_tensorflow("A masked layer")
        self.layer, self.spec = layer, spec
        self.seed, self.selector = arguments.seed, arguments.selector
        self.scores_initializer, self.initializer = arguments.scores_initializer, arguments.initializer
        self.scores_regularizer = scores_regularizer
        self._k_value = arguments.k
        self.kernel: Any = None
        self.scores: Any = None
        self.draws: Any = None
        self.k_variable: Any = None
        self._regularizer: Any = None
        self._constraint: Any = None
        self._position = 0  # among the layer's trainable variables, of the scores and the kernel
        self._hint: Any = None
        self._fixed: Any = None
        self._remembered: RememberedKernel | None = None
        self._autocast = True
        self.group = kernel_groups.join(self)

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def where(self) -> str:
        """The words that name the layer in error messages."""
        return f" of layer '{self.layer.name}'"

    @property
    def hint(self) -> Any:
        """The int64 variable in which the selector notes where to begin its next choice."""
        return self._hint

    def arguments(self) -> KernelArguments:
        """Returns the arguments of this kernel, with the present value of `k`."""
        return KernelArguments(self.k, self.seed, self.selector, self.scores_initializer, self.initializer)

    def takes(self) -> dict[str, Any]:
        """Returns the arguments that the selector takes besides scores, k, training and a seed."""
        threshold = {} if self.group is None else {"threshold": self.group.find_threshold(self)}
        fixed = {} if self._fixed is None else {"fixed": self._fixed}
        return {**self._find_axes(len(self.scores.shape)), **self._find_fans(), **fixed, **threshold}

    def _find_fans(self) -> dict[str, Any]:
        return {"fans": self.fans()} if "fans" in self.selector.takes else {}

    def make_scores(self, mask: Any) -> Any:
        """Returns scores for which the selector chooses `mask`, an array, made from the present scores."""
        return self.selector.scores_for(mask, self.scores.numpy(), **self._find_fans())

    def _find_axes(self, rank: int) -> dict[str, Any]:
        return self.spec.find_axes(self.layer, rank, self.selector)

    @property
    def fixed_seed(self) -> int:
        """The seed from which the selector draws which parts of the mask are fixed."""
        return initializers.derive_seed(self.seed, "fixed")

    def variables(self) -> dict[str, Any]:
        """Returns the variables of this kernel by name: those that are there."""
        variables = {"kernel": self.kernel, "scores": self.scores, "k": self.k_variable, "draws": self.draws}
        return {name: variable for name, variable in variables.items() if variable is not None}

    # Creating and removing the variables

    def check_shape(self, shape: Axes) -> None:
        """Raises ValueError if a kernel of this shape cannot be masked."""
        strategy_checks.check_strategy()
        if not all(shape):
            raise ValueError(
                f"Layer '{self.layer.name}' needs an input whose channels are known and not 0. "
                f"Received an input that gives a kernel of shape {tuple(shape)}."
            )
        self.selector.check(tuple(shape), self._k_value, self.where, **self._find_axes(len(shape)))
        if self.selector.draws and isinstance(self.scores_initializer, initializers.Magnitude):
            raise ValueError(
                f"Layer '{self.layer.name}' draws its masks by probabilities, which magnitudes are not. Received: "
                'scores_initializer="magnitude". Use the selector "top_k".'
            )

    def bind_fans(self, initializer: Any, shape: Axes) -> Any:
        """Returns the initializer with the fans of this kernel, and the kernel, as fixed arguments, if it has them."""
        if isinstance(initializer, initializers.Magnitude):
            # A mask with signs begins as one without: all weights keep theirs.
            signed = min(self.selector.levels) < 0
            kernel = keras.ops.abs(self.kernel) if signed else self.kernel
            return functools.partial(initializer, kernel=kernel, fans=self.fans(shape))
        if isinstance(initializer, initializers.FrozenInitializer):
            return functools.partial(initializer, fans=self.fans(shape))
        return initializer

    def fans(self, shape: Axes | None = None) -> tuple[int, int]:
        """Returns (fan_in, fan_out) of the kernel."""
        return self.spec.fans(self.layer, tuple(self.kernel.shape) if shape is None else tuple(shape))

    def channel_axes(self) -> tuple[Axes, Axes]:
        """Returns (axes of input channels, axes of output channels) of the kernel."""
        return self.spec.axes(self.layer, len(self.kernel.shape))

    def freeze(self, kernel: Any, prefix: bool) -> None:
        """Freezes a variable of the layer as the kernel, and creates the scores and the other variables of the mask.

        The order of the layer's variables is the same whether a layer is masked while it is built or afterwards. The
        scores take the position of the kernel among the trainable variables. The kernel and the other variables of
        the mask are the first of the variables that are not trainable.

        Args:
            kernel: the variable, tracked by the layer.
            prefix: bool, whether the paths of the variables contain the kernel's name. True if the layer has several
                kernels.
        """
        layer, trainable = self.layer, _keras.own_variables(self.layer, _keras.TRAINABLE)
        # Keras saves variables by their position in the two lists, trainable and not trainable. The kernel moves to the
        # second list, because `trainable = False` alone is undone when someone sets `trainable` on the model.
        position = next((i for i, variable in enumerate(trainable) if variable is kernel), len(trainable))
        first = self._find_first_position()
        self.kernel, self._regularizer = kernel, getattr(kernel, "regularizer", None)
        self._constraint = getattr(kernel, "constraint", None)
        kernel.trainable = False
        # Not autocast: the product with the mask is rounded to the compute dtype once.
        self._autocast = _keras.set_autocast(kernel, False)
        _keras.track(layer, _keras.NON_TRAINABLE, kernel, first)
        shape = tuple(kernel.shape)
        self.scores = keras.Variable(
            self.bind_fans(self.scores_initializer, shape),
            shape=shape,
            dtype="float32",
            autocast=False,  # rounded to 16 bits, many scores would be equal
            name="scores",
        )
        self.k_variable = keras.Variable(
            lambda shape, dtype: tf.constant(exact_k.split(self._k_value), dtype),
            shape=(exact_k.PARTS,),
            dtype="float32",
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
                aggregation="only_first_replica",  # all replicas count the same
                name="draws",
            )
        path = kernel.path if prefix else kernel.path.rpartition("/")[0]
        # Attributes that `add_weight` sets and Keras reads.
        for variable in (self.scores, self.k_variable, self.draws):
            if variable is not None:
                variable.constraint = variable.regularizer = None
                variable.overwrite_with_gradient = False
                _keras.set_path(variable, f"{path}/{variable.name}".lstrip("/"))
        _keras.track(layer, _keras.TRAINABLE, self.scores, position)
        _keras.track(layer, _keras.NON_TRAINABLE, self.k_variable, first + 1)
        if self.draws is not None:
            _keras.track(layer, _keras.NON_TRAINABLE, self.draws, first + 2)
        self.train()
        # Not weights: what is fixed follows from the seed, files do not need the hint, and each replica has its own.
        with tf.init_scope():
            if "fixed" in self.selector.takes:
                self._fixed = tf.constant(self.selector.draw_fixed(shape, self.fixed_seed))
            self._hint = tf.Variable(
                tf.zeros(self.selector.hint_shape, tf.int64),
                trainable=False,
                synchronization=tf.VariableSynchronization.ON_READ,
                aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
                name="hint",
            )
        self._remembered = RememberedKernel(
            lambda dtype: self.masked(dtype=dtype), [self.scores, self.kernel, self.k_variable]
        )
        if self.group is not None:
            self._remembered.list_more = self.group.list_variables

    def _find_first_position(self) -> int:
        """Returns how many of the layer's variables that are not trainable belong to its kernels so far."""
        others = [other for other in self.layer.masked_kernels.values() if other is not self]
        ids = {id(each) for other in others for each in other.variables().values()}
        return sum(id(each) in ids for each in _keras.own_variables(self.layer, _keras.NON_TRAINABLE))

    def train(self) -> None:
        """Makes trainable what the layer's arguments say: the scores, the kernel, or both.

        Those that are not trained stand right before `k` among the variables that are not trainable: first the kernel.
        """
        layer = self.layer
        trained = [self.scores] * layer.train_scores + [self.kernel] * layer.train_kernel
        self._position = self._find_position()
        for variable in (self.scores, self.kernel):
            _keras.untrack(layer, variable)
            variable.trainable = layer.trainable and any(each is variable for each in trained)
        for number, variable in enumerate(trained):
            _keras.track(layer, _keras.TRAINABLE, variable, self._position + number)
        for variable in (self.kernel, self.scores):
            if not any(each is variable for each in trained):
                fixed = _keras.own_variables(layer, _keras.NON_TRAINABLE)
                before_k = next(i for i, each in enumerate(fixed) if each is self.k_variable)
                _keras.track(layer, _keras.NON_TRAINABLE, variable, before_k)
        # Keras adds up the penalties of trainable variables. One of the two has that of both.
        penalty = self._compute_penalty if self.scores_regularizer or self._regularizer else None
        self.scores.regularizer = penalty if layer.train_scores else None
        self.kernel.regularizer = None if layer.train_scores else penalty
        self.kernel.constraint = self._constrain if layer.train_kernel and self._constraint else self._constraint

    def _find_position(self) -> int:
        own = _keras.own_variables(self.layer, _keras.TRAINABLE)
        return next((i for i, each in enumerate(own) if each is self.scores or each is self.kernel), self._position)

    def _constrain(self, kernel: Any) -> tf.Tensor:
        """Returns the kernel with its constraint applied to the weights that are kept: the others count as 0."""
        kernel, mask = tf.convert_to_tensor(kernel), self.mask() != 0
        return tf.where(mask, self._constraint(tf.where(mask, kernel, tf.zeros_like(kernel))), kernel)

    def put_in_order(self, trainable: list[Any], others: list[Any]) -> None:
        """Moves the scores and the kernel, in lists of variables, to where they are if the scores alone are trained."""
        place = next(
            (i for i, each in enumerate(trainable) if each is self.scores or each is self.kernel), self._position
        )
        for variables in (trainable, others):
            variables[:] = [each for each in variables if each is not self.scores and each is not self.kernel]
        trainable.insert(place, self.scores)
        others.insert(next((i for i, each in enumerate(others) if each is self.k_variable), len(others)), self.kernel)

    def thaw(self) -> None:
        """Undoes `freeze`: the kernel is a plain variable of the layer again, at the position of the scores."""
        position = self._find_position()
        for variable in (self.scores, self.kernel):
            _keras.untrack(self.layer, variable)
        for variable in (self.k_variable, self.draws):
            if variable is not None:
                _keras.untrack(self.layer, variable)
        _keras.set_autocast(self.kernel, self._autocast)
        self.kernel.trainable = self.layer.trainable
        self.kernel.regularizer, self.kernel.constraint = self._regularizer, self._constraint
        _keras.track(self.layer, _keras.TRAINABLE, self.kernel, position)

    @property
    def regularizer(self) -> Any:
        """The kernel's own regularizer, which applies to the masked kernel."""
        return self._regularizer

    def _compute_penalty(self, _: Any) -> tf.Tensor:
        """Returns the sum of the two penalties. Keras calls this once per layer, even if the layer is shared."""
        penalty = tf.constant(0.0)
        if self.scores_regularizer is not None and self.layer.train_scores:
            penalty += self.scores_regularizer(self.scores)
        if self.regularizer is not None:
            penalty += tf.cast(self.regularizer(self.masked()), tf.float32)
        return penalty

    # Reading

    @property
    def k(self) -> float:
        """The fraction of weights kept, in (0, 1]. A new one is set for all kernels of the group, if there is one."""
        return self._k_value if self.k_variable is None else exact_k.read(self.k_variable.numpy())

    @k.setter
    def k(self, value: float) -> None:
        value = selectors.check_k(value)
        if self.group is not None:
            self.group.set_k(value)
            return
        if self.k_variable is not None:
            self.check_k(value)
        self.assign_k(value)

    def assign_k(self, value: float) -> None:
        """Sets `k` of this kernel alone, to a value that was checked."""
        if self.k_variable is not None:
            self.k_variable.assign(exact_k.split(value))
        self._k_value = value

    def read_k(self) -> tf.Tensor:
        """Returns `k` as a float64 scalar tensor, for selectors. In a function it is read at each call."""
        return exact_k.join(self.k_variable)

    def check_k(self, k: float) -> None:
        """Raises ValueError if the selector cannot keep the fraction `k` of this kernel."""
        self.selector.check(tuple(self.scores.shape), k, self.where, **self._find_axes(len(self.scores.shape)))

    def round_k(self, k: float) -> float:
        """Returns the fraction nearest to `k` that the selector can keep of this kernel."""
        if self.group is not None:
            return k
        shape = tuple(self.scores.shape)
        return self.selector.round_k(shape, k, **self._find_axes(len(shape)))

    @property
    def size(self) -> int:
        """The number of weights."""
        self.check_built("size")
        return math.prod(self.scores.shape)

    @property
    def kept(self) -> int:
        """The number of weights that the selector keeps outside of training."""
        self.check_built("kept")
        return self.selector.kept(self.scores.value, self.k, **self.takes())

    def mask(self, training: bool = False) -> tf.Tensor:
        """Returns the mask, float32, with the selector's levels: 0 and 1, or others.

        In training, a selector that draws gives the mask of the next call.
        """
        self.check_built("mask()")
        takes = {**self.takes(), **self._make_next_seed(training)}
        return self.selector(self.scores.value, self.read_k(), training, **takes)

    def read_mask(self) -> NDArray[np.float32]:
        """Returns the mask that is used outside of training, as an array. Nothing is compiled for it."""
        with selectors.without_compiling():
            mask: NDArray[np.float32] = self.mask().numpy()
        return mask

    def read(self) -> tf.Tensor:
        """Returns the masked kernel for the code of layers: that of the running call, or a new one outside of calls."""
        self.check_built(self.name)
        in_use = _in_use.kernels.get((id(self.layer), self.name))
        return self.choose(training=False) if in_use is None else in_use

    def masked(self, training: bool = False, dtype: str | None = None, **seed: Any) -> tf.Tensor:
        """Returns kernel times mask, in `dtype` or else in the layer's compute dtype."""
        self.check_built("kernel")
        if not tf.executing_eagerly():
            _workarounds.let_graph_go(tf.compat.v1.get_default_graph())
        k, dtype = self.read_k(), dtype or self.layer.compute_dtype
        kernel, scores, takes = self.kernel.value, self.scores.value, {**self.takes(), **seed}
        if not self.layer.train_kernel:
            return self.selector.masked_kernel(kernel, scores, k, training, dtype, self._hint, **takes)
        # What selectors do to a kernel of ones is the mask, times their scale. The product with it has both gradients.
        ones, own = tf.ones_like(kernel), str(self.kernel.dtype)
        return tf.cast(kernel * self.selector.masked_kernel(ones, scores, k, training, own, self._hint, **takes), dtype)

    def baked(self) -> tf.Tensor:
        """Returns the masked kernel in the variable's dtype; -0.0 becomes +0.0."""
        # A compiled program would be used only once. Compiling it takes longer than a choice by NumPy.
        with selectors.without_compiling():
            return self.masked(dtype=self.kernel.dtype) + 0.0

    def choose(self, training: bool) -> tf.Tensor:
        """Returns the masked kernel for one call of the layer. Counts the call if the selector draws masks."""
        dtype = self._find_read_dtype()
        drawn = training and self.layer.train_scores  # a mask that is fixed is that of inference
        if not training and self._remembered is not None and (kernel := self._remembered.read(dtype)) is not None:
            return kernel
        if training and self._remembered is not None:
            self._remembered.forget()
        if training and self.group is not None:
            self.group.forget()
        seed = self._make_next_seed(drawn)
        if seed:  # count before the draw: replicas are threads, and another one may run during the draw
            self.draws.assign(self.draws.value + 1)
        return self.masked(drawn, dtype=dtype, **seed)

    def _find_read_dtype(self) -> str:
        """Returns the dtype that a read of the kernel would have now if it were a plain variable."""
        if "float" not in self.kernel.dtype:
            return str(self.kernel.dtype)
        if (dtype := _keras.autocast_dtype()) is not None:
            return dtype
        return str(self.layer.compute_dtype if self.layer.autocast else self.kernel.dtype)

    def _make_next_seed(self, training: bool) -> dict[str, Any]:
        """Returns the seed of the next draw as a keyword argument, or {} if nothing is drawn."""
        if not (training and self.selector.draws):
            return {}
        kernel_seed = tf.constant(initializers.derive_seed(self.seed, "draws"), tf.int64)
        return {"seed": tf.stack([kernel_seed, self.draws.value])}

    def check_built(self, attribute: str) -> None:
        """Raises AttributeError if the kernel has no scores yet."""
        if self.scores is None:
            raise AttributeError(
                f"Layer '{self.layer.name}' has no `{attribute}` before it is built. First call the layer on an input, "
                "or call its `build(input_shape)`."
            )


@contextlib.contextmanager
def choose_once(kernels: list[MaskedKernel], training: bool) -> Iterator[None]:
    """Chooses the weights of kernels once. All reads inside use this choice: those of all time steps, for example."""
    added = []
    try:
        for kernel in kernels:
            key = id(kernel.layer), kernel.name
            if key not in _in_use.kernels and kernel.scores is not None:
                _in_use.kernels[key] = kernel.choose(training)
                added.append(key)
        yield
    finally:
        for key in added:
            del _in_use.kernels[key]
