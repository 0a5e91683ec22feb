"""strip_masks: turns a masked model into a plain one."""

import contextlib
from typing import Any

import keras

from keras_popup import _keras
from keras_popup.conversion import removal
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


def strip_masks(model: keras.Model, *, copy: bool = True, remove_dead: bool = False) -> keras.Model:
    """Turns a masked model into a plain one: stock Keras layers whose kernels are the masked kernels.

    The outputs are those of the masked model: bit for bit in float32, where the stock layer uses the same operation.
    `keras.models.load_model` can read the plain model without keras_popup. The plain model is as fast as a dense
    network of its shape, but not faster: weights that are not kept are zeros. Where zeros leave whole channels without
    a use, `remove_dead` makes it smaller and faster.

    Args:
        model: a masked `keras.Model` from `mask_model`, built by hand, or loaded. With `remove_dead`, it may be a plain
            one too.
        copy: bool. True returns a copy, which is compared with the model variable by variable. False strips the
            model itself. If that fails, the model gets its old state back.
        remove_dead: bool, whether channels that change nothing leave the network. They are constants that are 0 or that
            the bias of the next layer can take over, and channels that are read by zeros only. `find_dead` lists them.
            The outputs are then equal up to rounding, and are compared on a made-up batch.

    Returns:
        A plain `keras.Model` with the same topology and layer names, not compiled. Its kernels are trainable. With
        `copy=False`, it is `model`. With `remove_dead`, layers have fewer units or filters, and some a new bias.

    Raises:
        TypeError: if `model` is not a `keras.Model`, or if it cannot be copied.
        ValueError: if the model has no masked layer, is not built, or has a layer whose own code makes masked layers;
            if `remove_dead` comes with `copy=False`.
        RuntimeError: if the outputs without dead channels differ by more than rounding.

    Example:

    >>> import keras_popup
    >>> masked = keras_popup.mask_model(keras_popup.models.FullyConnected(), k=0.3, seed=1)
    >>> plain = keras_popup.strip_masks(masked)
    >>> type(plain.get_layer("dense1")).__name__, int((plain.get_layer("dense1").kernel.numpy() != 0).sum())
    ('Dense', 70560)
    """
    check_model(model, "strip_masks")
    masked = masked_layers(model)
    if remove_dead and not copy:
        raise ValueError(
            "`remove_dead=True` makes a new, smaller model. Received also: copy=False, which changes the model itself. "
            "Leave out one of the two."
        )
    if not masked and not remove_dead:
        raise ValueError(f"Model '{model.name}' has no masked layer, so there is nothing to strip. Use it as it is.")
    if not model.built:
        raise ValueError(f"Model '{model.name}' is not built, so it has no masks yet. Call it on data first.")
    for layer in masked:
        kind = type(layer)
        if not (is_constructed(kind) or isinstance(layer, MaskedComposite)):
            raise ValueError(
                f"The masks of layer '{layer.name}' ({kind.__name__}) cannot be stripped: its class is a subclass of a "
                "masked layer, and no stock layer has the same code. Make a subclass of the stock layer instead, and "
                "mask it with mask_model."
            )
    for layer in (model, *(part for _, part in walk_parts(model))):
        if not (is_graph(layer) or isinstance(layer, (MaskedComposite, MaskedLayer))) and _makes_masks(layer):
            raise ValueError(
                f"The masks of layer '{layer.name}' ({type(layer).__name__}) cannot be stripped: its own code makes "
                "masked layers. Make stock layers in that code, and mask them with mask_model."
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
            if id(layer) in in_code:  # the code makes dropped weights again when a file is read
                take_back(layer)
    _keras.drop_compiled_functions(plain)
    return removal.remove_dead(plain, copy=False) if remove_dead else plain


def _makes_masks(layer: Any) -> bool:
    """Tells whether the code of a layer makes masked layers that are not arguments of its constructor."""
    masked = [part for part in get_parts(layer).values() if isinstance(part, MaskedLayer)]
    if not masked:
        return False
    config = str(layer.get_config())
    return not all(f"keras_popup>{type(part).__name__}" in config for part in masked)
