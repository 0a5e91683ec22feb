"""Masked layers: Keras layers whose kernels are frozen and masked. What they share, and which classes have one."""

import dataclasses
import functools
import inspect
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from keras_popup import _keras, _workarounds
from keras_popup.layers import strategy_checks
from keras_popup.layers.masked_kernel import KernelArguments, KernelSpec, MaskedKernel, choose_once

# What the mixin's `self` and `super()` are, in every class that is used.
if TYPE_CHECKING:
    _StockLayer = Any
else:
    _StockLayer = object


class Mixin(_StockLayer):
    """What this library mixes in before the class of a Keras layer."""


def stock_of(layer: Any) -> type:
    """Returns the class of a layer without what this library has mixed in."""
    return stock_class(type(layer))


def stock_class(kind: type) -> type:
    """Returns a class without what this library has mixed in."""
    return next(base for base in kind.__mro__ if not issubclass(base, Mixin))


class MaskedLayer(Mixin):
    """What all masked layers share: mixed in before a Keras layer that has one kernel, or several.

    forward: the Keras layer with the kernel `w * m`, `m = selector(s, k)`;
    backward, of `TopK`: `dL/ds = dL/d(w * m) * w * sign(s)`. The kernel `w` never changes.

    Whatever reads the kernel of the layer, its own code or that of another one, reads the masked kernel.

    Attributes:
        masked_kernels: dict of the layer's `MaskedKernel`s by name.
        train_bias: bool, whether the bias is trained, or frozen like the kernel.
    """

    # The kernels of the class, for those that are there.
    kernel_specs: tuple[KernelSpec, ...] = ()

    masked_kernels: dict[str, MaskedKernel]
    train_bias: bool

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "kernel_specs" not in vars(cls):
            return
        stock: Any = stock_class(cls)
        cls.call = _choosing(stock)
        for spec in cls.kernel_specs:
            for attribute in spec.attributes:
                setattr(cls, attribute, _kernel_property(spec, attribute))

    def kernels_of_call(self, *args: Any, **kwargs: Any) -> list[MaskedKernel]:
        """Returns the kernels that a call with these arguments reads."""
        return list(self.masked_kernels.values())

    def add_weight(self, *args: Any, name: str | None = None, **kwargs: Any) -> Any:
        """Creates a weight; a request for a kernel makes the scores and `k` too."""
        if name == "bias" and not self.train_bias:
            kwargs["trainable"] = False
        kernel = self.masked_kernels.get(name) if name else None
        if kernel is None:
            return super().add_weight(*args, name=name, **kwargs)
        shape = tuple(kwargs["shape"])
        kernel.check_shape(shape)
        # Not by `trainable = False` afterwards: setting `trainable` on the model would thaw it again.
        initializer = kwargs["initializer"] if kernel.initializer is None else kernel.initializer
        kwargs |= {"trainable": False, "initializer": kernel.for_fans(initializer, shape)}
        variable = super().add_weight(name=name, **kwargs)
        kernel.freeze(variable, prefix=len(self.masked_kernels) > 1)
        return variable

    def __setattr__(self, name: str, value: Any) -> None:
        own = getattr(type(self), name, None)
        if isinstance(own, _KernelProperty):
            own.__set__(self, value)  # past TensorFlow, which would read the kernel first, and compute it
        else:
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        # Keras, saving, asks for everything that is listed here, and the kernel would be computed each time.
        hidden = {attribute for spec in self.kernel_specs for attribute in spec.attributes}
        return [name for name in super().__dir__() if name not in hidden]

    def check_exporter(self) -> None:
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

    def rematerialized_call(self, fn: Any, *args: Any, **kwargs: Any) -> Any:
        """As Keras's, for calls with keyword arguments as well."""
        rematerialize = super().rematerialized_call
        return _workarounds.rematerialize_with_keywords(lambda call: rematerialize(call, *args), fn, kwargs)

    # The Keras layers save what their kernel's attribute returns, and know nothing of scores.
    def save_own_variables(self, store: Any) -> None:
        keras.layers.Layer.save_own_variables(self, store)

    def load_own_variables(self, store: Any) -> None:
        # Files of earlier versions do not have a bias that is frozen at 0, which was dropped then: it stands last.
        own = [*_keras.own_variables(self, _keras.TRAINABLE), *_keras.own_variables(self, _keras.NON_TRAINABLE)]
        bias = getattr(self, "bias", None)
        if len(store) == len(own) - 1 and own[-1] is bias and not np.any(bias.numpy()):
            for number, variable in enumerate(own[:-1]):
                variable.assign(store[str(number)])
            return
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


def _choosing(stock: Any) -> Any:
    """Returns the `call` of a class which chooses the weights first, once."""

    @functools.wraps(stock.call)  # Keras reads the names of its arguments
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        self.check_exporter()
        strategy_checks.check_training_step()
        with choose_once(self.kernels_of_call(*args, **kwargs), is_training(kwargs)):
            return stock.call(self, *args, **kwargs)

    return call


def is_training(kwargs: dict[str, Any]) -> bool:
    """Tells whether a call is one in training: as it is told, or else as the layers around it are."""
    training = kwargs.get("training")
    if training is None and (context := _keras.call_context()) is not None:
        training = context.get_value("training")
    return bool(training)


class _KernelProperty(property):
    """An attribute of a layer by which code comes to its kernel."""


def _kernel_property(spec: KernelSpec, attribute: str) -> property:
    def read(self: Any) -> Any:
        kernel = self.masked_kernels.get(spec.name)
        if kernel is None:  # one that is left as it is
            if attribute not in vars(self):
                raise AttributeError(f"Layer '{self.name}' has no `{attribute}`.")
            return vars(self)[attribute]
        # The attribute that is not public is the variable for those who look at the layer, and the masked kernel for
        # all code that runs in a model.
        is_private = attribute != spec.name
        return kernel.kernel if is_private and _keras.call_context() is None else kernel.read()

    def write(self: Any, value: Any) -> None:
        kernel = self.masked_kernels.get(spec.name)
        if kernel is None:
            vars(self)[attribute] = value
            return
        if value is None or value is kernel.kernel:
            return  # what `add_weight` has returned
        raise AttributeError(
            f"The kernel of masked layer '{self.name}' is frozen. Received: a new value for `{attribute}`. Assign to "
            f"layer.masked_kernels['{spec.name}'].kernel, or strip the masks first."
        )

    return _KernelProperty(read, write, doc="The kernel that is used: frozen kernel times mask, in the compute dtype.")


@dataclasses.dataclass(frozen=True)
class MaskArguments:
    """What a layer is masked with: enough to mask a stock layer of the same class alike.

    Attributes:
        kernels: dict of `KernelArguments` by the kernels' names.
        scores_regularizer: Keras regularizer of all scores, or None.
        train_bias: bool, whether the bias is trained.
        train_others: bool, whether other weights of the layer are trained.
    """

    kernels: dict[str, KernelArguments]
    scores_regularizer: Any = None
    train_bias: bool = True
    train_others: bool = True

    @classmethod
    def of(cls, layer: Any) -> "MaskArguments":
        """Returns those of a masked layer."""
        kernels = layer.masked_kernels
        regularizer = next(iter(kernels.values())).scores_regularizer
        arguments = {name: kernel.arguments() for name, kernel in kernels.items()}
        return cls(arguments, regularizer, layer.train_bias, getattr(layer, "_popup_train_others", True))

    def to_json(self) -> dict[str, Any]:
        return {
            "kernels": {name: kernel.to_json() for name, kernel in self.kernels.items()},
            "scores_regularizer": _keras.without_sharing(keras.regularizers.serialize(self.scores_regularizer)),
            "train_bias": self.train_bias,
            "train_others": self.train_others,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "MaskArguments":
        return cls(
            {name: KernelArguments.from_json(kernel) for name, kernel in value["kernels"].items()},
            keras.regularizers.get(value["scores_regularizer"]),
            bool(value["train_bias"]),
            bool(value["train_others"]),
        )
