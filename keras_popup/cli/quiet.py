"""Importing TensorFlow late, and quietly."""

import contextlib
import os
from collections.abc import Iterator


@contextlib.contextmanager
def import_quietly() -> Iterator[None]:
    """Keeps off the terminal what libraries log while they are imported, TensorFlow's above all.

    Enter it when the arguments are known to be good: it imports TensorFlow and finds the devices, which takes seconds.
    """
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # What its libraries log before they have read that level goes to the file descriptor.
    stderr, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        from keras_popup.distribution import find_devices

        find_devices()
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nowhere)
