"""Loads a network of the package."""

import keras

from keras_popup import tickets
from keras_popup.pretrained.cards import find_ticket


def load(name: str, masked: bool = False) -> keras.Model:
    """Loads a network that comes with the package.

    Args:
        name: str, one of `pretrained.list_networks()`, such as "fashion_mnist/fc".
        masked: bool. False returns a plain Keras model. True returns a masked model, for further training, as
            `keras_popup.load_ticket` does.

    Returns:
        A `keras.Model`, not compiled. It takes a batch of images as its card says, of shape `(batch, height, width,
        channels)` with pixels from 0 to 255, and returns logits of shape `(batch, classes)`.

    Raises:
        ValueError: if there is no such network. The error lists them.

    Example:

    >>> import keras_popup
    >>> model = keras_popup.pretrained.load("digits/fc")
    >>> model.output_shape
    (None, 10)
    """
    return tickets.load_ticket(find_ticket(name), masked)
