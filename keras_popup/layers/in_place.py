"""Masking a layer where it is, and stripping it.

A masked layer is made of one that is there by changing its class, as Keras's `quantize` and `enable_lora` change layers
in place: the object stays the same, and all that refers to it. `strip_layer` is the way back.
"""

import inspect
from typing import Any

import keras

from keras_popup import _keras, initializers, selectors
from keras_popup.layers.maskable import kernels_of, masked_class
from keras_popup.layers.masked_kernel import MaskedKernel
from keras_popup.layers.masked_layer import MaskArguments, stock_of


def change_to_masked(layer: Any, arguments: MaskArguments, *, draw: bool) -> None:
    """Changes the class of a built layer to that of masked ones, and its variables with it.

    Args:
        layer: a built layer, of a class that can be masked.
        arguments: what it is masked with. Their kernels are the layer's.
        draw: bool, whether kernels that have an initializer are drawn anew, or stay as they are.

    Raises:
        ValueError: if the layer has not these kernels, or `k` keeps no weight of one.
    """
    specs = kernels_of(layer)
    if not arguments.kernels or not {spec.name for spec in specs} >= set(arguments.kernels):
        raise ValueError(
            f"Layer '{layer.name}' ({type(layer).__name__}) has the kernels {[spec.name for spec in specs]}. Received: "
            f"arguments for {sorted(arguments.kernels)}."
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
        object.__setattr__(layer, "train_bias", arguments.train_bias)
        layer._trainable = True
        for name, kernel in kernels.items():
            variable = variables[name]
            if kernel.initializer is not None:
                if draw:
                    drawn = kernel.for_fans(kernel.initializer, tuple(variable.shape))
                    variable.assign(drawn(tuple(variable.shape), variable.dtype))
                _set_initializer(layer, kernel)
            kernel.freeze(variable, prefix=len(kernels) > 1)
        object.__setattr__(layer, "_popup_train_others", arguments.train_others)
        _hold(layer)
        _keras.refresh_call_signature(layer)


def _hold(layer: Any) -> None:
    """Freezes the bias and the other weights of a masked layer that are not to be trained, for good."""
    scores = {id(kernel.scores) for kernel in layer.masked_kernels.values()}
    bias, held = getattr(layer, "bias", None), []
    for place, variable in enumerate(list(_keras.own_variables(layer, _keras.TRAINABLE))):
        trained = layer.train_bias if variable is bias else layer._popup_train_others
        is_kernel = any(spec.plain_variable(layer) is variable for spec in layer.kernel_specs)
        if id(variable) in scores:
            variable.trainable = True
        elif not (trained or is_kernel):
            variable.trainable = False
            _keras.track(layer, _keras.NON_TRAINABLE, variable)
            held.append((place, variable))
    object.__setattr__(layer, "_popup_held", tuple(held))


def strip_layer(layer: Any) -> None:
    """Makes a masked layer the stock layer again, in place, with the masks baked into its kernels."""
    with _keras.unlocked(layer):
        for kernel in layer.masked_kernels.values():
            baked = kernel.baked()
            kernel.thaw()
            kernel.kernel.assign(baked)
        bias = getattr(layer, "bias", None)
        made_so = ((None, bias),) if isinstance(bias, keras.Variable) and not layer.train_bias else ()
        for place, variable in vars(layer).pop("_popup_held", made_so):
            variable.trainable = layer.trainable
            _keras.track(layer, _keras.TRAINABLE, variable, place)
        kernels = layer.masked_kernels
        for name in ("masked_kernels", "train_bias", "_popup_train_others"):
            vars(layer).pop(name, None)
        layer.__class__ = stock_of(layer)
        for kernel in kernels.values():
            object.__setattr__(layer, kernel.spec.attributes[-1], kernel.kernel)
            kernel.layer = layer
            _set_initializer(layer, kernel, default=True)
        _keras.refresh_call_signature(layer)


def _set_initializer(layer: Any, kernel: MaskedKernel, default: bool = False) -> None:
    """Has the config of a layer name the initializer of its kernel, or the default one of its class."""
    argument = f"{kernel.spec.argument}_initializer"
    if kernel.spec.argument is None or not hasattr(layer, argument):
        return
    initializer = kernel.initializer
    if default:
        if not isinstance(getattr(layer, argument), initializers.FrozenInitializer):
            return
        parameter = inspect.signature(type(layer)).parameters.get(argument)
        initializer = keras.initializers.get(parameter.default if parameter else "glorot_uniform")
    elif kernel is not first_of_argument(layer, kernel):
        return
    setattr(layer, argument, initializer)


def first_of_argument(layer: Any, kernel: MaskedKernel) -> MaskedKernel:
    """Returns the first kernel of a layer that has the same argument: two tables of a tied embedding have one."""
    return next(k for k in layer.masked_kernels.values() if k.spec.argument == kernel.spec.argument)


def check_rematerialization(layer: Any, selector: selectors.Selector) -> None:
    """Raises ValueError for a layer that draws its masks, and would draw others in the backward pass."""
    if selector.draws and layer._remat_mode:
        raise ValueError(
            f"Layer '{layer.name}' draws its masks, and rematerialization would draw others in the backward pass. "
            "Leave it out of the RematScope."
        )
