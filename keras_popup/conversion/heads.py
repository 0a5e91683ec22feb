"""replace_head: gives a trained model an output for the classes of another task."""

from collections.abc import Iterator
from typing import Any

import keras

from keras_popup import _keras
from keras_popup.conversion.copying import copy_model
from keras_popup.conversion.inspection import check_model


def replace_head(model: keras.Model, classes: int, *, seed: int | None = None) -> keras.Model:
    """Returns a copy of a model with a new last Dense layer, of one output per class.

    An activation after that layer, such as a softmax, is left out: the new model returns logits, in float32. The new
    layer has the name of the old one, a kernel drawn by "glorot_uniform", and biases of 0 if the old one has biases.

    Args:
        model: a built Sequential or Functional `keras.Model` that ends in a Dense, up to activations.
        classes: int, the number of outputs, positive.
        seed: int, the seed of the new kernel. None draws one.

    Returns:
        A Functional `keras.Model`, not compiled, with the name of `model`. All other layers are copies of its layers.

    Raises:
        TypeError: if `model` is not a `keras.Model`, or if it cannot be copied.
        ValueError: if `classes` is not positive, or if the model has another end. (Then build the model yourself, from
            its layers and a new Dense.)

    Example:

    >>> import keras_popup
    >>> base = keras_popup.models.FullyConnected((8, 8, 1), classes=10)
    >>> model = keras_popup.replace_head(base, classes=3, seed=1)
    >>> masked = keras_popup.mask_model(model, k=0.5, weights="keep", exclude="classes")
    >>> masked.output_shape
    (None, 3)
    """
    check_model(model, "replace_head")
    if type(classes) is not int or classes < 1:
        raise ValueError(f"`classes` must be a positive integer. Received: {classes!r}.")
    _find_head(model)  # raises the error before the copy is made
    copy, _ = copy_model(model)
    head, features = _find_head(copy)
    inputs = _keras.pack_inputs(copy, copy.inputs)
    if any(layer is head for layer in keras.Model(inputs, features).layers):
        raise ValueError(
            f"The last layer of model '{model.name}', '{head.name}', is used inside of the model too, so it cannot be "
            "replaced there. Build the model for the new task yourself."
        )
    new = keras.layers.Dense(
        classes,
        use_bias=head.use_bias,
        kernel_initializer=keras.initializers.GlorotUniform(seed),
        dtype="float32",
        name=head.name,
    )
    return keras.Model(inputs, new(features), name=model.name)


def gives_probabilities(model: Any) -> bool:
    """Tells whether a softmax or sigmoid gives the output of a model."""
    for operation, _ in _walk_back(model):
        name = getattr(getattr(operation, "activation", None), "__name__", "") or type(operation).__name__.lower()
        if name in ("softmax", "sigmoid"):
            return True
        if getattr(operation, "weights", ()):
            break
    return False


def _walk_back(model: Any) -> Iterator[tuple[Any, Any]]:
    """Yields the operations that give the output of a model, the last first, each with what it takes.

    It ends where there is not one input, and yields nothing for models with code of their own or several outputs.
    """
    graph = isinstance(model, (keras.Sequential, _keras.Functional)) and model.built
    tensors = model.outputs if graph else []
    while len(tensors) == 1:
        operation, tensors = _keras.find_operation(tensors[0]), _keras.find_inputs(tensors[0])
        yield operation, tensors[0] if len(tensors) == 1 else None


# What may come after the last Dense: functions of each output by itself, or of all of them.
_ACTIVATIONS = (keras.layers.Activation, keras.layers.Softmax, keras.layers.ReLU, keras.layers.LeakyReLU)


def _find_head(model: Any) -> tuple[Any, Any]:
    """Returns the Dense layer that gives the output of a model, up to activations, and what it takes.

    Raises:
        ValueError: if there is none.
    """
    found = "several outputs, or code of its own,"
    for operation, taken in _walk_back(model):
        if type(operation) is keras.layers.Dense and taken is not None:
            return operation, taken
        found = f"{type(operation).__name__} '{operation.name}'"
        if not isinstance(operation, _ACTIVATIONS) and type(operation).__module__ != "keras.src.ops.nn":
            break
    raise ValueError(
        f"Model '{model.name}' must end in a Dense layer of its own, up to activations, to be given a new one. It has "
        f"{found} there. Build the model for the new task yourself: keras.Model(base.inputs, "
        "keras.layers.Dense(classes)(features))."
    )
