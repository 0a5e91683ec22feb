"""The command line that repeats a search. Loads no TensorFlow."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from keras_popup.search.config import SEARCHED, SearchConfig, layer_k_pattern
from keras_popup.training import RunConfig, format_value, join_flags, list_flags


def format_command(arguments: Mapping[str, Any], out: str) -> str:
    """Returns the `keras-popup search` command that has these arguments.

    Args:
        arguments: the arguments of a search, as search.json records them: ranges are text.
        out: str, the value of --out.
    """
    kinds = {name: str if name in ("kernel_initializer", "selector") else float for name in SEARCHED}
    # Those of a run that have several values are text. The run is described without them.
    several = {name: value for name, value in arguments.items() if name in kinds and _is_space(value, kinds[name])}
    names = [field.name for field in dataclasses.fields(RunConfig)]
    run = {name: arguments[name] for name in names if name in arguments and name not in several}
    if "learning_rate" in several and run.get("optimizer"):
        run["learning_rate"] = 0.1  # some rate: without one, not every optimizer has a protocol
    flags = [flag for flag in list_flags(run) if flag[0] not in several]
    if arguments.get("budget"):
        flags = [flag for flag in flags if flag[0] != "k"]  # it follows from the width
    of_layers = {pattern: str(value) for name, value in arguments.items() if (pattern := layer_k_pattern(name))}
    if of_layers:
        several["layer_k"] = ";".join(f"{pattern}={value}" for pattern, value in of_layers.items())
    flags += [(name, str(value)) for name, value in several.items()]
    for field in dataclasses.fields(SearchConfig):
        value = arguments.get(field.name)
        if "help" in field.metadata and value is not None and value != field.default:
            flags.append((field.name, format_value(value)))
    return join_flags("search", [*flags, ("out", out)])


def _is_space(value: Any, kind: type) -> bool:
    return isinstance(value, str) and (kind is float or "," in value)
