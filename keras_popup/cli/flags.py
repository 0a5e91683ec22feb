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
            One in brackets may be left out.

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
    if len(rest) < sum(not name.startswith("[") for name in positional):
        raise UsageError(f"{positional[len(rest)].rstrip('.')} is missing. See keras-popup {command} --help.")
    if not "".join(positional[-1:]).rstrip("]").endswith("...") and (unexpected := rest[len(positional) :]):
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
        options, text, name = {"flag_values": values}, field.metadata["help"], flag_name(field)
        kind = plain_type(hints[field.name])
        if field.name in texts:
            flags.DEFINE_string(name, None, text, **options)
        elif field.metadata["choices"]:
            flags.DEFINE_enum(name, field.default, field.metadata["choices"], text, **options)
        elif kind is bool:
            flags.DEFINE_boolean(name, field.default, text, **options)
        elif kind is int:
            flags.DEFINE_integer(name, field.default, text, **options)
        elif kind is float:
            flags.DEFINE_float(name, field.default, text, **options)
        else:
            flags.DEFINE_string(name, field.default, text, **options)
        if field.name == "k":
            flags.DEFINE_string("layer_k", None, LAYER_K_HELP, **options)


def flag_name(field: Any) -> str:
    """Returns the name of the flag for a field of a configuration."""
    name: str = field.metadata.get("flag") or field.name
    return name


def _options(config: type) -> list[Any]:
    return [field for field in dataclasses.fields(config) if "help" in field.metadata]


def plain_type(hint: Any) -> Any:
    """Returns int for `int | None`, and float for `float | dict[str, float]`."""
    if isinstance(hint, types.UnionType):
        return next(part for part in typing.get_args(hint) if part is not type(None))
    return hint


# The groups of flags in --help. Flags that stand in none are in the last group.
_GROUPS = {
    "what": "model method k layer_k k_schedule k_schedule_end redraw_every redraw_rate redraw_from base "
    "new_head from width activation selector rescale scores_initializer kernel_initializer scaled train_norms",
    "data": "dataset data_dir image_size pixels validation augment",
    "search": "tuner max_trials executions budget baseline retries refit",
    "training": "recipe epochs batch_size optimizer learning_rate momentum l2 schedule warmup_epochs label_smoothing "
    "seed precision jit_compile deterministic",
    "devices": "strategy devices workers ray_address gpus_per_worker stall_minutes",
    "output": "out resume overwrite pictures mask_statistics tensorboard",
}


def _flag_help(values: flags.FlagValues, names: Sequence[str]) -> str:
    """Returns one entry per flag, in groups if there are many. What is required comes first."""
    if len(names) < 15:
        return _describe_flags(values, names)
    groups = {title: [name for name in flags_of.split() if name in names] for title, flags_of in _GROUPS.items()}
    known = {name for group in groups.values() for name in group}
    groups["others"] = [name for name in names if name not in known]
    required = [name for name in names if "Required." in (values[name].help or "")]
    parts = {
        "required": required,
        **{title: [n for n in group if n not in required] for title, group in groups.items()},
    }
    return "\n\n".join(f" {title}\n{_describe_flags(values, group)}" for title, group in parts.items() if group)


def _describe_flags(values: flags.FlagValues, names: Sequence[str]) -> str:
    """Returns one entry per flag."""
    fields = {flag_name(field): field for field in _options(RunConfig)}
    hints = typing.get_type_hints(RunConfig)
    if not set(fields) <= set(values):  # other commands have flags of these names
        fields = {}
    searched = "tuner" in values
    lines = []
    for name in names:
        flag, field = values[name], fields.get(name)
        text = field.metadata["help"] if field else flag.help
        choices = field.metadata["choices"] if field else None  # the texts of other flags name them
        default = field.default if field and not flag.boolean else flag.default
        if choices:
            text += f" One of {', '.join(choices)}."
        if searched and name in SEARCHED:
            text += " Or several values" + (
                ", or a range." if field and plain_type(hints[field.name]) is float else "."
            )
        if default is not None and not flag.boolean:
            text += f" Default: {default}."
        elif field and (value := getattr(PROTOCOLS["conv4"]["edge-popup"], name, None)) not in (None, False):
            text += f" Default: the model's protocol; for conv4 {value}."
        elif flag.boolean and flag.default:
            text += f" Default: on; --no{name} switches it off."
        lines.append(f"  --{name}")
        lines.append(
            textwrap.fill(text, 100, initial_indent=" " * 6, subsequent_indent=" " * 6, break_on_hyphens=False)
        )
    return "\n".join(lines)
