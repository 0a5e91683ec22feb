"""Masks a layer in place, and strips it.

A built layer becomes a masked layer by a change of its class. Keras's `quantize` and `enable_lora` also change
layers in place. The object stays the same, so all references to it stay valid. `strip_layer` is the way back.
"""

import inspect
from typing import Any

import keras

from keras_popup import _keras, initializers, selectors
from keras_popup.layers.maskable import kernels_of, masked_class
from keras_popup.layers.masked_kernel import MaskedKernel
from keras_popup.layers.masked_layer import MaskArguments, stock_of


def change_to_masked(layer: Any, arguments: MaskArguments, *, draw: bool) -> None:
    """Changes the class of a built layer to its masked class, and adds the variables of the mask.

    Args:
        layer: a built layer, of a class that can be masked.
        arguments: the arguments of the masked layer, for one or more of its kernels.
        draw: bool. True draws kernels that have an initializer; False keeps the values of all kernels.

    Raises:
        ValueError: if the layer does not have these kernels, or if `k` keeps no weight of one of them.
    """
    specs = kernels_of(layer)
    if not arguments.kernels or not {spec.name for spec in specs} >= set(arguments.kernels):
        raise ValueError(
            f"Layer '{layer.name}' ({type(layer).__name__}) has the kernels {[spec.name for spec in specs]}. Expected "
            f"arguments for one or more of these. Received: arguments for {sorted(arguments.kernels)}."
        )
    specs = tuple(spec for spec in specs if spec.name in arguments.kernels)
    kernels = {
        spec.name: MaskedKernel(layer, spec, arguments.kernels[spec.name], arguments.scores_regularizer)
        for spec in specs
    }
    variables = {spec.name: spec.plain_variable(layer) for spec in specs}
    for name, variable in variables.items():
        kernels[name].check_shape(tuple(variable.shape))
        check_rematerialization(layer, kernels[name].selector)
    with _keras.unlocked(layer):
        for spec in specs:
            vars(layer).pop(spec.attributes[-1])
        layer.__class__ = masked_class(stock_of(layer))
        object.__setattr__(layer, "masked_kernels", kernels)
        for name in ("train_bias", "train_scores", "train_kernel"):
            object.__setattr__(layer, name, getattr(arguments, name))
        layer._trainable = True
        for name, kernel in kernels.items():
            variable = variables[name]
            if kernel.initializer is not None:
                if draw:
                    drawn = kernel.bind_fans(kernel.initializer, tuple(variable.shape))
                    variable.assign(drawn(tuple(variable.shape), variable.dtype))
                _set_initializer(layer, kernel)
            kernel.freeze(variable, prefix=len(kernels) > 1)
        object.__setattr__(layer, "_popup_train_others", arguments.train_others)
        _freeze_others(layer)
        _keras.refresh_call_signature(layer)


def _freeze_others(layer: Any) -> None:
    """Freezes the bias and the other weights of a masked layer for good, if its arguments say so."""
    own = {id(each) for kernel in layer.masked_kernels.values() for each in (kernel.scores, kernel.kernel)}
    bias, frozen = getattr(layer, "bias", None), []
    for position, variable in enumerate(list(_keras.own_variables(layer, _keras.TRAINABLE))):
        trained = layer.train_bias if variable is bias else layer._popup_train_others
        is_kernel = any(spec.plain_variable(layer) is variable for spec in layer.kernel_specs)
        if id(variable) in own:
            variable.trainable = True
        elif not (trained or is_kernel):
            variable.trainable = False
            _keras.track(layer, _keras.NON_TRAINABLE, variable)
            frozen.append((position, variable))
    object.__setattr__(layer, "_popup_held", tuple(frozen))


def train_kernels(layer: Any, *, scores: bool) -> None:
    """Makes the kernels of a masked layer trainable under their masks.

    Args:
        layer: a built masked layer.
        scores: bool, whether the scores are trained too. If not, the masks are fixed.
    """
    object.__setattr__(layer, "train_scores", scores)
    object.__setattr__(layer, "train_kernel", True)
    with _keras.unlocked(layer):
        for kernel in layer.masked_kernels.values():
            kernel.train()


def strip_layer(layer: Any) -> None:
    """Turns a masked layer into its stock layer, in place. The kernels become the masked kernels."""
    with _keras.unlocked(layer):
        for kernel in layer.masked_kernels.values():
            baked = kernel.baked()
            kernel.thaw()
            kernel.kernel.assign(baked)
        bias = getattr(layer, "bias", None)
        # A layer that was constructed as a masked one has no `_popup_held`: its frozen bias never was trainable.
        default = ((None, bias),) if isinstance(bias, keras.Variable) and not layer.train_bias else ()
        for position, variable in vars(layer).pop("_popup_held", default):
            variable.trainable = layer.trainable
            _keras.track(layer, _keras.TRAINABLE, variable, position)
        kernels = layer.masked_kernels
        for name in ("masked_kernels", "train_bias", "train_scores", "train_kernel", "_popup_train_others"):
            vars(layer).pop(name, None)
        layer.__class__ = stock_of(layer)
        for kernel in kernels.values():
            object.__setattr__(layer, kernel.spec.attributes[-1], kernel.kernel)
            kernel.layer = layer
            _set_initializer(layer, kernel, default=True)
        _keras.refresh_call_signature(layer)


def _set_initializer(layer: Any, kernel: MaskedKernel, default: bool = False) -> None:
    """Sets the layer's attribute for the initializer of a kernel, so that its config has the right one.

    With `default`, a `FrozenInitializer` there is replaced by the default initializer of the layer's class.
    """
    argument = f"{kernel.spec.argument}_initializer"
    if kernel.spec.argument is None or not hasattr(layer, argument):
        return
    initializer = kernel.initializer
    if default:
        if not isinstance(getattr(layer, argument), initializers.FrozenInitializer):
            return
        parameter = inspect.signature(type(layer)).parameters.get(argument)
        initializer = keras.initializers.get(parameter.default if parameter else "glorot_uniform")
    elif kernel is not find_first_kernel(layer, kernel):
        return
    setattr(layer, argument, initializer)


def find_first_kernel(layer: Any, kernel: MaskedKernel) -> MaskedKernel:
    """Returns the layer's first kernel with the same initializer argument: both tables of an embedding share one."""
    kernels: dict[str, MaskedKernel] = layer.masked_kernels
    return next(other for other in kernels.values() if other.spec.argument == kernel.spec.argument)


def check_rematerialization(layer: Any, selector: selectors.Selector) -> None:
    """Raises ValueError for a layer in a RematScope whose selector draws masks: the backward pass would draw others."""
    if selector.draws and _keras.is_rematerialized(layer):
        raise ValueError(
            f"Layer '{layer.name}' draws its masks, but rematerialization would draw other masks in the backward "
            "pass. Leave it out of the RematScope."
        )
