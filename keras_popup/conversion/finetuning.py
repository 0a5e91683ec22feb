"""finetune: trains the weights inside of a found mask."""

import keras

from keras_popup import _keras
from keras_popup.conversion.copying import copy_model
from keras_popup.conversion.inspection import find_kernels, masked_layers
from keras_popup.layers import train_kernels


def finetune(model: keras.Model, *, train_masks: bool = False, copy: bool = True) -> keras.Model:
    """Makes the kernels of a masked model trainable under their masks.

    Training then changes the weights that the masks keep. The others are zeros in the network, in files, in tickets
    and in exports, however long it is trained. (A model from `strip_masks` has no masks: training fills its zeros.)

    forward: the layer with the kernel `w * m`; backward: `dL/dw = dL/d(w * m) * m`.

    A ticket of the result holds the values of the weights that are kept, as no seed gives them.

    Args:
        model: a masked `keras.Model`, built: from `mask_model`, loaded, or from `criteria.mask_trained`, whose
            treatment "rewound" is the lottery ticket.
        train_masks: bool. False fixes the masks. True trains the scores too, so that the masks may change.
        copy: bool. True returns a copy, False changes the model itself.

    Returns:
        A masked `keras.Model`, not compiled. All else that `model` trains, such as biases, is trained.

    Raises:
        TypeError: if `model` is not a `keras.Model`, or if it cannot be copied.
        ValueError: if the model has no masked layer, or is not built.

    Reference:
        Frankle and Carbin, [The Lottery Ticket Hypothesis](https://arxiv.org/abs/1803.03635).

    Example:

    >>> import keras_popup
    >>> masked = keras_popup.mask_model(keras_popup.models.FullyConnected((8, 8, 1)), k=0.3, seed=1)
    >>> finetuned = keras_popup.finetune(masked)
    >>> [weight.path for weight in finetuned.trainable_weights]
    ['dense1/kernel', 'dense2/kernel', 'classes/kernel']
    """
    find_kernels(model, "finetune")  # raises the errors
    tuned = copy_model(model)[0] if copy else model
    for layer in masked_layers(tuned):
        train_kernels(layer, scores=train_masks)
    _keras.drop_compiled_functions(tuned)
    return tuned
