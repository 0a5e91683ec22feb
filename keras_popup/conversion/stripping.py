"""strip_masks: the masks are baked into the kernels."""

import contextlib
from typing import Any

import keras

from keras_popup import _keras
from keras_popup.conversion.copying import copy_model
from keras_popup.conversion.inspection import check_model, find_in_code, masked_layers
from keras_popup.conversion.undo import undo_on_failure
from keras_popup.layers import (
    MaskedComposite,
    MaskedLayer,
    forget,
    get_parts,
    is_constructed,
    is_graph,
    strip_layer,
    take_back,
    walk_parts,
)


def strip_masks(model: keras.Model, *, copy: bool = True) -> keras.Model:
    """Makes a masked model a plain one: stock Keras layers, the masks baked into their kernels.

    Its outputs are those of the masked model, bit for bit in float32 where the stock layer's operation is the
    same. `keras.models.load_model` reads it where there is no keras_popup. It is as quick as a dense network of
    its shape, and no quicker: weights that are not kept are zeros.

    Args:
        model: a masked `keras.Model`, as `mask_model` returns it, built by hand, or loaded.
        copy: bool. True returns a copy, compared with the model variable by variable. False strips the model itself.

    Returns:
        A plain `keras.Model` of the same topology and layer names, not compiled. Its kernels are trainable.

    Raises:
        TypeError: if `model` is no model, or if no copy of it can be made.
        ValueError: if it holds no masked layer, is not built, or has a layer whose own code makes masked ones.

    Example:

    >>> import keras_popup
    >>> masked = keras_popup.mask_model(keras_popup.models.FullyConnected(), k=0.3, seed=1)
    >>> plain = keras_popup.strip_masks(masked)
    >>> type(plain.get_layer("dense1")).__name__, int((plain.get_layer("dense1").kernel.numpy() != 0).sum())
    ('Dense', 70560)
    """
    check_model(model, "strip_masks")
    masked = masked_layers(model)
    if not masked:
        raise ValueError(f"Model '{model.name}' has no masked layer: there is nothing to strip.")
    if not model.built:
        raise ValueError(f"Model '{model.name}' is not built, so it has no masks yet. Call it on data first.")
    for layer in masked:
        kind = type(layer)
        if not (is_constructed(kind) or isinstance(layer, MaskedComposite)):
            raise ValueError(
                f"The masks of layer '{layer.name}' ({kind.__name__}) cannot be stripped: it has code of its own on "
                "top of a masked layer's. No stock layer does what it does."
            )
    for layer in (model, *(part for _, part in walk_parts(model))):
        if not (is_graph(layer) or isinstance(layer, (MaskedComposite, MaskedLayer))) and _makes_masks(layer):
            raise ValueError(
                f"The masks of layer '{layer.name}' ({type(layer).__name__}) cannot be stripped: its own code makes "
                "masked layers. Make stock layers there, and mask them with mask_model."
            )
    plain = copy_model(model)[0] if copy else model
    everything = [plain, *(part for _, part in walk_parts(plain))]
    with contextlib.nullcontext() if copy else undo_on_failure(everything):
        for layer in masked_layers(plain):
            if layer.built:
                strip_layer(layer)
        in_code = find_in_code(plain)
        for layer in everything:
            forget(layer)
            if id(layer) in in_code:  # whose biases are made when a file is read
                take_back(layer)
    _keras.drop_compiled_functions(plain)
    return plain


def _makes_masks(layer: Any) -> bool:
    """Tells whether the code of a layer makes masked ones, rather than being given them."""
    held = [part for part in get_parts(layer).values() if isinstance(part, MaskedLayer)]
    if not held:
        return False
    told = str(layer.get_config())
    return not all(f"keras_popup>{type(part).__name__}" in told for part in held)
