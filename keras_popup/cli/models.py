"""Finds and loads the model that a command is given."""

import os
from typing import Any

from keras_popup.cli.flags import UsageError
from keras_popup.cli.quiet import import_quietly


def find_model_file(path: str, suffixes: tuple[str, ...] = (".keras", ".ticket")) -> str:
    """Returns the file of a model: the path itself, or that in a run's folder.

    Args:
        path: what the user has given.
        suffixes: the endings of files that the command takes. In a run's folder, the first that is there counts.

    Raises:
        UsageError: if there is no such file.
    """
    if os.path.isdir(path):
        files = [os.path.join(path, f"model{suffix}") for suffix in suffixes]
        hint = "The run in this folder is not finished." if os.path.exists(os.path.join(path, "config.json")) else ""
    else:
        files, hint = [path], ""
    for file in files:
        if os.path.isfile(file) and file.endswith(suffixes):
            return file
    expected = f"a finished run's folder or a {' or '.join(suffixes)} file"
    raise UsageError(f"MODEL must be {expected}. Received: '{path}'. {hint}".rstrip())


def load_model(file: str, masked: bool = True) -> Any:
    """Loads a .keras file or a ticket.

    Args:
        file: what `find_model_file` has returned.
        masked: whether the model of a ticket is to have masks. A .keras file has those that it was saved with.

    Raises:
        ValueError: if it cannot be read.
    """
    with import_quietly():
        import keras

        import keras_popup.layers  # noqa: F401  # registers them
    if file.endswith(".ticket"):
        from keras_popup import tickets

        return tickets.load_ticket(file, masked=masked)
    try:
        return keras.models.load_model(file)
    except Exception as error:
        raise ValueError(f"'{file}' cannot be read as a Keras model: {error}") from error
