"""Importing what needs TensorFlow, quietly and late."""

import importlib
import os
import types


def load(module: str) -> types.ModuleType:
    """Imports what needs TensorFlow, now that the arguments are known to be good."""
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # What its libraries log before they have read that level goes to the file descriptor.
    stderr, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        importlib.import_module("keras_popup.distribution").find_devices()
        return importlib.import_module(f"keras_popup.{module}")
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nowhere)
