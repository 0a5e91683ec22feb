"""Imports TensorFlow without its log."""

import contextlib
import os
import sys
from collections.abc import Iterator


def say(text: str) -> None:
    """Tells the user what takes a while. What a command answers goes to standard output, this does not."""
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def import_quietly() -> Iterator[None]:
    """Hides what libraries log while they are imported, above all TensorFlow.

    It imports TensorFlow and finds the devices, which takes seconds. So enter it after the arguments are checked.
    """
    if "tensorflow" not in sys.modules:
        say("Loading TensorFlow.")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # Before the libraries have read that level, they log to the file descriptor.
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
