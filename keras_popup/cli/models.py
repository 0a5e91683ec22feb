"""Finds and loads the model that a command is given."""

import dataclasses
import os
from typing import Any

from keras_popup import pretrained, records
from keras_popup.cli.flags import UsageError
from keras_popup.cli.quiet import import_quietly, say


def find_model_file(path: str, suffixes: tuple[str, ...] = (".keras", ".ticket")) -> str:
    """Returns the file of a model: the path itself, that in the folder of a run, or the best in that of a search.

    The name of a network in the package stands for its ticket.

    Args:
        path: what the user has given.
        suffixes: the endings of files that the command takes. In a folder, the first that is there counts.

    Raises:
        UsageError: if there is no such file.
        DamagedError: if the file in a folder is not the one that the run or search has written.
    """
    if path.endswith(".tickets"):
        raise UsageError(
            f"'{path}' holds several tasks. Write one of them as a model first: keras-popup ticket unpack {path} "
            "--task NAME --base FILE."
        )
    if not os.path.exists(path) and ".ticket" in suffixes and path in pretrained.list_networks():
        return str(pretrained.find_ticket(path))
    if os.path.isdir(path):
        files = [os.path.join(path, name + suffix) for name in ("model", "best") for suffix in suffixes]
        names = " or ".join(f"model{suffix}" for suffix in suffixes)
        finished = os.path.exists(os.path.join(path, "summary.json"))
        started = os.path.exists(os.path.join(path, "config.json"))
        hint = f"It has no {names}." if finished else "The run in this folder is not finished." if started else ""
    else:
        files, hint = [path], ""
    for file in files:
        if os.path.isfile(file) and file.endswith(suffixes):
            if file != path:
                _check_model_file(path, os.path.basename(file))
            return file
    expected = f"the folder of a finished run or search, or a {' or '.join(suffixes)} file"
    if ".ticket" in suffixes:
        expected += ", or one of `keras-popup pretrained`"
    raise UsageError(f"MODEL must be {expected}. Received: '{path}'. {hint}".rstrip())


def _check_model_file(folder: str, name: str) -> None:
    """Checks a file by the checksum that the run or search in its folder has of it."""
    if name.startswith("best."):
        records.SearchFolder(folder).check_best(name)
    else:
        records.RunFolder(folder).check_model(name)


def check_data_dir(path: str | None) -> None:
    """Raises UsageError if --data_dir is given and is no directory."""
    if path and not os.path.isdir(path):
        raise UsageError(f"--data_dir must be a directory that exists. Received: '{path}'.")


def check_base(path: str | None, model_is_given: bool) -> dict[str, Any]:
    """Returns the arguments of a run that follow from --base: the model is 'base', if no other is given.

    Raises:
        UsageError: if --base is given and is no .keras file or folder with one.
    """
    if path is None:
        return {}
    find_base(path)
    return {} if model_is_given else {"model": "base"}


def find_base(path: str) -> str:
    """Returns the .keras file of --base: the path itself, or that in the folder of a run.

    Raises:
        UsageError: if there is none.
    """
    file = records.find_model(path)
    if not (os.path.isfile(file) and file.endswith(".keras")):
        raise UsageError(f"--base must be a .keras file, or the folder of a finished run. Received: '{path}'.")
    return file


def check_new(path: str | os.PathLike[str], overwrite: bool) -> None:
    """Raises UsageError if a command would replace what exists without being told to."""
    if os.path.exists(path) and not overwrite:
        raise UsageError(f"'{path}' exists. Choose another file, or pass --overwrite.")


@dataclasses.dataclass(frozen=True)
class Origin:
    """What a file tells of its model.

    Attributes:
        classes: the names of the classes; () if they are unknown.
        dataset: the name of the dataset; None if it is unknown.
        image_size: int, the pixels that images were resized to; None for no resizing.
        data_dir: the directory of the data, for the folder of a run.
    """

    classes: tuple[str, ...] = ()
    dataset: str | None = None
    image_size: int | None = None
    data_dir: str | None = None


def find_origin(path: str, file: str) -> Origin:
    """Returns what is known of a model.

    Args:
        path: what the user has given.
        file: what `find_model_file` has returned.
    """
    if file.endswith(".ticket"):
        from keras_popup.tickets import ticket_info

        made = ticket_info(file).made
    else:
        made = records.read_origin(file)
    classes, dataset, arguments = made.get("classes"), made.get("dataset"), made.get("arguments")
    size = arguments.get("image_size") if isinstance(arguments, dict) else None
    run = records.RunFolder(path) if os.path.isdir(path) else None
    return Origin(
        classes=_read_names(classes) if isinstance(classes, list) else (),
        dataset=dataset if isinstance(dataset, str) else None,
        image_size=size if isinstance(size, int) else None,
        data_dir=run.config().get("data_dir") if run and run.is_one() else None,
    )


def _read_names(names: list[Any]) -> tuple[str, ...]:
    """Returns the names of classes. They may come from a stranger: a terminal is shown no control characters."""
    texts = (str(name).encode("utf-8", "replace").decode() for name in names)
    found = tuple("".join(char if char.isprintable() else "?" for char in text) for text in texts)
    return found if len(set(found)) == len(found) else ()


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

        say(f"Unpacking '{file}'.")
        return tickets.load_ticket(file, masked=masked)
    records.read_origin(file)  # which says what is wrong with a damaged file better than Keras does
    say(f"Loading '{file}'.")
    try:
        return keras.models.load_model(file)
    except Exception as error:
        raise ValueError(f"'{file}' cannot be read as a Keras model: {error}") from error


def load_plain_model(file: str) -> Any:
    """Loads a model without its masks, and says so if nobody knows how its inputs were prepared. As `load_model`."""
    from keras_popup import conversion

    model = load_model(file, masked=False)
    if file.endswith(".ticket"):
        return model  # `load_ticket` has said it
    if not conversion.find_preprocessing(model):
        say(
            f"'{file}' has no preprocessing as its first layer, so how its inputs were prepared is unknown. It gets "
            "pixels from 0 to 255."
        )
    return conversion.strip_masks(model) if conversion.masked_layers(model) else model
