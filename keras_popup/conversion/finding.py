"""find_dead: how many channels of a model change nothing."""

import keras

from keras_popup.conversion.channels import follow_channels
from keras_popup.conversion.dead_channels import DeadChannels, describe
from keras_popup.conversion.inspection import check_model, masked_layers
from keras_popup.conversion.stripping import strip_masks


def find_dead(model: keras.Model) -> DeadChannels:
    """Finds the channels of a model that `strip_masks(model, remove_dead=True)` leaves out, and those that must stay.

    A channel can leave if it has the same value everywhere, which is 0 or which the bias of the next layer can take
    over, or if no weight but zeros reads it. Both follow from weights that are zero.

    Args:
        model: a built `keras.Model`, masked or not. It is not changed.

    Returns:
        A `DeadChannels`, with a row for each layer that can get smaller. A layer that is not understood here has none,
        and keeps the channels around it: a subclass, a layer that is used twice, or one that mixes channels without a
        kernel, such as LayerNormalization. So do models with code of their own.

    Raises:
        TypeError: if `model` is not a `keras.Model`.
        ValueError: if the model is not built.

    Example:

    >>> import keras_popup
    >>> masked = keras_popup.mask_model(keras_popup.models.FullyConnected((8, 8, 1)), k=0.01, seed=1)
    >>> dead = keras_popup.conversion.find_dead(masked)
    >>> dead.channels, dead.leaving
    (410, 377)
    """
    check_model(model, "find_dead")
    if not model.built:
        raise ValueError(f"Model '{model.name}' is not built, so it has no channels yet. Call it on data first.")
    plain = strip_masks(model) if masked_layers(model) else model
    return describe(plain, follow_channels(plain))
