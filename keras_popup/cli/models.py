"""Finds and loads the model that a command is given."""

import os
from typing import Any

from keras_popup.cli.flags import UsageError
from keras_popup.cli.quiet import import_quietly


def find_model_file(path: str) -> str:
    """Returns the .keras file of a run's folder, or the path itself. Raises UsageError if there is none."""
    file = os.path.join(path, "model.keras") if os.path.isdir(path) else path
    if not os.path.isfile(file) or not file.endswith(".keras"):
        hint = "The run in this folder is not finished." if os.path.exists(os.path.join(path, "config.json")) else ""
        raise UsageError(f"MODEL must be a finished run's folder or a .keras file. Received: '{path}'. {hint}".rstrip())
    return file


def load_model(file: str) -> Any:
    """Loads a .keras file. Raises ValueError if it cannot be read."""
    with import_quietly():
        import keras

        import keras_popup.layers  # noqa: F401  # registers them
    try:
        return keras.models.load_model(file)
    except Exception as error:
        raise ValueError(f"'{file}' cannot be read as a Keras model: {error}") from error
