"""The base of masked layers, which are Keras layers whose kernels are frozen and masked, and their arguments."""

import dataclasses
import functools
import inspect
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from keras_popup import _keras, _workarounds
from keras_popup.layers import exact_k, strategy_checks
from keras_popup.layers.masked_kernel import KernelArguments, KernelSpec, MaskedKernel, choose_once

# The mixin comes before a Keras layer in every class that is used. Keras has no types, so type checkers see Any.
if TYPE_CHECKING:
    _StockLayer = Any
else:
    _StockLayer = object


class Mixin(_StockLayer):
    """Base of the classes that this library mixes in before the class of a Keras layer."""


def stock_of(layer: Any) -> type:
    """Returns the class of a layer without the classes that this library has mixed in."""
    return stock_class(type(layer))


def stock_class(kind: type) -> type:
    """Returns a class without the classes that this library has mixed in."""
    return next(base for base in kind.__mro__ if not issubclass(base, Mixin))


class MaskedLayer(Mixin):
    """Base of all masked layers, mixed in before a Keras layer that has one or more kernels.

    forward: the Keras layer with the kernel `w * m`, `m = selector(s, k)`;
    backward, for `TopK`: `dL/ds = dL/d(w * m) * w * sign(s)`. The kernel `w` never changes.

    All code that reads the kernel of the layer gets the masked kernel: the layer's own code and that of other layers.

    Attributes:
        masked_kernels: dict of the layer's `MaskedKernel`s by name.
        train_bias: bool. True if the bias is trained, False if it is frozen like the kernel.
        train_scores: bool. True if the scores are trained, and so the mask; False if the mask is fixed.
        train_kernel: bool. True if the kernel is trained under its mask, False if it is frozen.
    """

    # The kernels that layers of this class can have.
    kernel_specs: tuple[KernelSpec, ...] = ()

    masked_kernels: dict[str, MaskedKernel]
    train_bias: bool
    train_scores: bool = True
    train_kernel: bool = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "kernel_specs" not in vars(cls):
            return
        stock: Any = stock_class(cls)
        cls.call = _wrap_call(stock)
        for spec in cls.kernel_specs:
            for attribute in spec.attributes:
                setattr(cls, attribute, _make_kernel_property(spec, attribute))

    def kernels_of_call(self, *args: Any, **kwargs: Any) -> list[MaskedKernel]:
        """Returns the kernels that a call with these arguments reads."""
        return list(self.masked_kernels.values())

    def add_weight(self, *args: Any, name: str | None = None, **kwargs: Any) -> Any:
        """Creates a weight. For a kernel, it also creates the scores and `k`."""
        kernel = self.masked_kernels.get(name) if name else None
        if kernel is None:
            variable = super().add_weight(*args, name=name, **kwargs)
            if name == "bias" and not self.train_bias:
                # Created as trainable, as the kernel is.
                variable.trainable = False
                _keras.track(self, _keras.NON_TRAINABLE, variable)
            return variable
        shape = tuple(kwargs["shape"])
        kernel.check_shape(shape)
        initializer = kwargs["initializer"] if kernel.initializer is None else kernel.initializer
        kwargs["initializer"] = kernel.bind_fans(initializer, shape)
        # Created as trainable: gradients of a tf.Variable that is not are never computed, should it be trained one day.
        variable = super().add_weight(name=name, **kwargs)
        kernel.freeze(variable, prefix=len(self.masked_kernels) > 1)
        return variable

    def __setattr__(self, name: str, value: Any) -> None:
        attribute = getattr(type(self), name, None)
        if isinstance(attribute, _KernelProperty):
            attribute.__set__(self, value)  # not through TensorFlow's __setattr__, which would compute the kernel first
        else:
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        # When Keras saves a layer, it reads all attributes that are listed here. That would compute the kernel.
        hidden = {attribute for spec in self.kernel_specs for attribute in spec.attributes}
        return [name for name in super().__dir__() if name not in hidden]

    def check_exporter(self) -> None:
        """Raises ValueError if Keras is exporting the layer to a format that has no operation to choose weights.

        The converter would write a file without an error, but no runtime can read it. Only the call stack tells a
        layer which export traces it. Eager calls and finished graphs do not reach this check.
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

    def rematerialized_call(self, fn: Any, *args: Any, **kwargs: Any) -> Any:
        """As the method of Keras, but works for calls with keyword arguments too."""
        rematerialize = super().rematerialized_call
        return _workarounds.rematerialize_with_keywords(lambda call: rematerialize(call, *args), fn, kwargs)

    @property
    def variables(self) -> Any:
        return self._reorder(super().variables)

    @property
    def weights(self) -> Any:
        return self._reorder(super().weights)

    def _reorder(self, variables: list[Any]) -> list[Any]:
        """Returns variables in the order that they have where the scores alone are trained.

        So weights of a finetuned layer and of one that is not have the same order, in lists and in files. Scores and
        kernel have the same shape: another order would exchange them in silence.
        """
        if self.train_scores and not self.train_kernel:
            return variables
        first, second = ([*_keras.own_variables(self, name)] for name in (_keras.TRAINABLE, _keras.NON_TRAINABLE))
        own = {id(variable) for variable in (*first, *second)}
        for kernel in self.masked_kernels.values():
            if kernel.kernel is not None:
                kernel.put_in_order(first, second)
        return [*first, *second, *(variable for variable in variables if id(variable) not in own)]

    def _trackable_children(self, save_type: str = "checkpoint", **kwargs: Any) -> dict[str, Any]:
        """As the method of TensorFlow, but `tf.train.Checkpoint` gets the variables of masks too."""
        children: dict[str, Any] = super()._trackable_children(save_type, **kwargs)
        if save_type != "checkpoint":
            return children
        of_masks = {
            f"{name}_{part}": variable
            for name, kernel in self.masked_kernels.items()
            for part, variable in kernel.variables().items()
        }
        return {**children, **of_masks}

    # The stock layers would save the masked kernel, which their attribute returns, and no scores.
    def save_own_variables(self, store: Any) -> None:
        for number, variable in enumerate(self._list_own_variables()):
            store[str(number)] = variable

    def _list_own_variables(self) -> list[Any]:
        own = [*_keras.own_variables(self, _keras.TRAINABLE), *_keras.own_variables(self, _keras.NON_TRAINABLE)]
        return self._reorder(own)

    def load_own_variables(self, store: Any) -> None:
        variables, bias = self._list_own_variables(), getattr(self, "bias", None)
        # Earlier versions dropped a bias that is frozen at 0, so their files do not have it. It is the last variable.
        if len(store) == len(variables) - 1 and variables[-1] is bias and not np.any(bias.numpy()):
            del variables[-1]
        if len(store) != len(variables):
            keras.layers.Layer.load_own_variables(self, store)  # raises the error
        fractions = {id(kernel.k_variable) for kernel in self.masked_kernels.values()}
        for number, variable in enumerate(variables):
            value = store[str(number)]
            variable.assign(exact_k.from_file(value) if id(variable) in fractions else value)

    def quantize(self, *args: Any, **kwargs: Any) -> None:
        """Raises ValueError: quantization would replace the masked kernel."""
        # Not NotImplementedError, which `Model.quantize` turns into a warning.
        raise ValueError(self._make_bypass_message("quantize()"))

    def enable_lora(self, *args: Any, **kwargs: Any) -> None:
        """Raises ValueError: LoRA would add unmasked weights to the kernel."""
        raise ValueError(self._make_bypass_message("enable_lora()"))

    def _make_bypass_message(self, feature: str) -> str:
        return (
            f"{feature} would bypass the mask of layer '{self.name}' ({type(self).__name__}). Strip the masks first: "
            "keras_popup.strip_masks(model)."
        )


def _wrap_call(stock: Any) -> Any:
    """Returns the `call` of a stock class, wrapped so that it chooses the weights once, before all else."""

    @functools.wraps(stock.call)  # keeps the signature, which Keras inspects
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        self.check_exporter()
        strategy_checks.check_training_step()
        with choose_once(self.kernels_of_call(*args, **kwargs), is_training(kwargs)):
            return stock.call(self, *args, **kwargs)

    return call


def is_training(kwargs: dict[str, Any]) -> bool:
    """Tells whether a call is in training mode: by its `training` argument, or else by the enclosing calls."""
    training = kwargs.get("training")
    if training is None and (context := _keras.call_context()) is not None:
        training = context.get_value("training")
    return bool(training)


class _KernelProperty(property):
    """An attribute of a masked layer by which code reads its kernel."""


def _make_kernel_property(spec: KernelSpec, attribute: str) -> property:
    def read(self: Any) -> Any:
        kernel = self.masked_kernels.get(spec.name)
        if kernel is None:  # this kernel of the layer is not masked
            if attribute not in vars(self):
                raise AttributeError(f"Layer '{self.name}' has no `{attribute}`.")
            return vars(self)[attribute]
        # A private attribute gives the variable outside of calls, to code that inspects the layer. Inside of calls it
        # gives the masked kernel, to the code of layers.
        is_private = attribute != spec.name
        return kernel.kernel if is_private and _keras.call_context() is None else kernel.read()

    def write(self: Any, value: Any) -> None:
        kernel = self.masked_kernels.get(spec.name)
        if kernel is None:
            vars(self)[attribute] = value
            return
        if value is None or value is kernel.kernel:
            return  # `build` sets the variable that `add_weight` has returned
        raise AttributeError(
            f"The kernel of masked layer '{self.name}' is frozen. Received: a new value for `{attribute}`. Assign to "
            f"layer.masked_kernels['{spec.name}'].kernel, or strip the masks first."
        )

    return _KernelProperty(
        read, write, doc="The kernel that the layer uses: frozen kernel times mask, in the compute dtype."
    )


@dataclasses.dataclass(frozen=True)
class MaskArguments:
    """All arguments that are needed to mask a stock layer.

    Attributes:
        kernels: dict of `KernelArguments` by kernel name.
        scores_regularizer: Keras regularizer of all scores, or None.
        train_bias: bool, whether the bias is trained.
        train_others: bool, whether the other weights of the layer, without the kernels and the bias, are trained.
        train_scores: bool, whether the scores are trained.
        train_kernel: bool, whether the kernels are trained.
    """

    kernels: dict[str, KernelArguments]
    scores_regularizer: Any = None
    train_bias: bool = True
    train_others: bool = True
    train_scores: bool = True
    train_kernel: bool = False

    @classmethod
    def of(cls, layer: Any) -> "MaskArguments":
        """Returns the arguments of a masked layer."""
        kernels = layer.masked_kernels
        regularizer = next(iter(kernels.values())).scores_regularizer
        arguments = {name: kernel.arguments() for name, kernel in kernels.items()}
        others = getattr(layer, "_popup_train_others", True)
        return cls(arguments, regularizer, layer.train_bias, others, layer.train_scores, layer.train_kernel)

    def to_json(self) -> dict[str, Any]:
        return {
            "kernels": {name: kernel.to_json() for name, kernel in self.kernels.items()},
            "scores_regularizer": _keras.without_sharing(keras.regularizers.serialize(self.scores_regularizer)),
            "train_bias": self.train_bias,
            "train_others": self.train_others,
            **self.describe_training(),
        }

    def describe_training(self) -> dict[str, bool]:
        """Returns what is trained, if that is not the scores alone. Earlier versions cannot read it."""
        if self.train_scores and not self.train_kernel:
            return {}
        return {"train_scores": self.train_scores, "train_kernel": self.train_kernel}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "MaskArguments":
        return cls(
            {name: KernelArguments.from_json(kernel) for name, kernel in value["kernels"].items()},
            keras.regularizers.get(value["scores_regularizer"]),
            bool(value["train_bias"]),
            bool(value["train_others"]),
            bool(value.get("train_scores", True)),
            bool(value.get("train_kernel", False)),
        )
