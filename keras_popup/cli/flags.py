"""Flags of the command line: they are made from the configurations, read, and explained."""

import dataclasses
import logging
import textwrap
import types
import typing
from collections.abc import Sequence
from typing import Any

from absl import flags

from keras_popup.cli.layer_k import LAYER_K_HELP
from keras_popup.search import SEARCHED
from keras_popup.training import PROTOCOLS, RunConfig


class UsageError(Exception):
    """The command line has an error."""


def parse(
    values: flags.FlagValues, command: str, arguments: Sequence[str], usage: str, *positional: str
) -> list[str] | None:
    """Reads the flags.

    Args:
        values: the flags, without values.
        command: the name of the command.
        arguments: the arguments of the command.
        usage: the text for --help.
        positional: the names of the arguments that are not flags. If the last ends in "...", there may be several.

    Returns:
        The arguments that are not flags. None if --help was printed.

    Raises:
        UsageError: if the arguments do not fit.
    """
    own = list(values)
    flags.DEFINE_boolean("help", False, "Print this.", short_name="h", flag_values=values)
    try:
        rest = values([command, *arguments])[1:]
    except flags.Error as error:
        raise UsageError(f"{str(error).rstrip(' ?.')}. See keras-popup {command} --help.") from None
    if values.help:
        print(usage + ("\nflags:\n" + _flag_help(values, own) if own else ""))
        return None
    if len(rest) < len(positional):
        raise UsageError(f"{positional[len(rest)].rstrip('.')} is missing. See keras-popup {command} --help.")
    if not "".join(positional[-1:]).endswith("...") and (unexpected := rest[len(positional) :]):
        raise UsageError(f"Unexpected arguments {unexpected}. Flags begin with --. See keras-popup {command} --help.")
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("keras_popup").setLevel(logging.INFO)
    return list(rest)


def define_config_flags(values: flags.FlagValues, config: type, texts: Sequence[str] = ()) -> None:
    """Defines a flag for each argument of a configuration.

    Args:
        values: the flags are added to these.
        config: `RunConfig`, or a dataclass like it.
        texts: the arguments that are read as text. Their default is None.
    """
    hints = typing.get_type_hints(config)
    for field in _options(config):
        options, text = {"flag_values": values}, field.metadata["help"]
        kind = plain_type(hints[field.name])
        if field.name in texts:
            flags.DEFINE_string(field.name, None, text, **options)
        elif field.metadata["choices"]:
            flags.DEFINE_enum(field.name, field.default, field.metadata["choices"], text, **options)
        elif kind is bool:
            flags.DEFINE_boolean(field.name, field.default, text, **options)
        elif kind is int:
            flags.DEFINE_integer(field.name, field.default, text, **options)
        elif kind is float:
            flags.DEFINE_float(field.name, field.default, text, **options)
        else:
            flags.DEFINE_string(field.name, field.default, text, **options)
        if field.name == "k":
            flags.DEFINE_string("layer_k", None, LAYER_K_HELP, **options)


def _options(config: type) -> list[Any]:
    return [field for field in dataclasses.fields(config) if "help" in field.metadata]


def plain_type(hint: Any) -> Any:
    """Returns int for `int | None`, and float for `float | dict[str, float]`."""
    if isinstance(hint, types.UnionType):
        return next(part for part in typing.get_args(hint) if part is not type(None))
    return hint


def _flag_help(values: flags.FlagValues, names: Sequence[str]) -> str:
    """Returns one entry per flag."""
    fields = {field.name: field for field in _options(RunConfig)}
    hints = typing.get_type_hints(RunConfig)
    if not set(fields) <= set(names):  # other commands have flags of these names
        fields = {}
    searched = "tuner" in names
    lines = []
    for name in names:
        flag, field = values[name], fields.get(name)
        text = field.metadata["help"] if field else flag.help
        choices = field.metadata["choices"] if field else None  # the texts of other flags name them
        default = field.default if field and not flag.boolean else flag.default
        if choices:
            text += f" One of {', '.join(choices)}."
        if searched and name in SEARCHED:
            text += " Or several values" + (", or a range." if plain_type(hints[name]) is float else ".")
        if default is not None and not flag.boolean:
            text += f" Default: {default}."
        elif field and any(hasattr(p, name) for p in PROTOCOLS["conv4"].values()):
            text += f" Default: the model's protocol; for conv4 {getattr(PROTOCOLS['conv4']['edge-popup'], name)}."
        elif flag.boolean and flag.default:
            text += f" Default: on; --no{name} switches it off."
        lines.append(f"  --{name}")
        lines.append(
            textwrap.fill(text, 100, initial_indent=" " * 6, subsequent_indent=" " * 6, break_on_hyphens=False)
        )
    return "\n".join(lines)
