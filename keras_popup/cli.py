"""The command line. Thin: flags are made from `RunConfig`, work is done by other modules."""

import dataclasses
import importlib
import logging
import os
import sys
import textwrap
import types
import typing
from collections.abc import Sequence
from typing import Any

from absl import flags

from keras_popup import __version__
from keras_popup.config import PROTOCOLS, RunConfig

_USAGE = """\
keras-popup: find subnetworks of randomly weighted networks

usage:
  keras-popup train [flags]     train a network and leave a run folder
  keras-popup COMMAND --help    all flags of a command
  keras-popup --version

a first try, in under a minute:
  keras-popup train --model conv2 --dataset digits --epochs 20 --out runs/first
"""

_TRAIN_HELP = """\
keras-popup train: train a network and leave a run folder

Finds the best k of a random network's weights by edge-popup (arXiv 1911.13299), or learns the weights of the
same network with --method dense. What is not given follows the paper's protocol for the model.

examples:
  keras-popup train --model conv2 --dataset digits --epochs 20 --out runs/digits
  keras-popup train --model conv4 --dataset cifar10 --k 0.5 --epochs 100 --seed 1 --out runs/a
  keras-popup train --model resnet18 --dataset pets --data_dir photos --image_size 64 --out runs/b
  keras-popup train ... --out runs/a --resume     goes on with a run that was interrupted

the run folder:
  config.json, history.csv, curves.png, model.keras, summary.json
"""


class UsageError(Exception):
    """The command line cannot be understood."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line. Returns the exit status: 0, 1 for a run that failed, 2 for wrong arguments."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = arguments[0] if arguments else "--help"
    if command in ("--help", "-h", "help"):
        print(_USAGE, end="")
        return 0
    if command == "--version":
        print(f"keras-popup {__version__}")
        return 0
    try:
        if command != "train":
            raise UsageError(f"Unknown command {command!r}. Expected: train. See keras-popup --help.")
        return _train(arguments)
    except UsageError as error:
        print(f"keras-popup: {error}", file=sys.stderr)
        return 2


def _train(arguments: Sequence[str]) -> int:
    values = flags.FlagValues()
    _define_config_flags(values)
    flags.DEFINE_string("out", None, "The run folder. Required.", flag_values=values)
    flags.DEFINE_boolean("resume", False, "Go on with the run in --out.", flag_values=values)
    flags.DEFINE_boolean("overwrite", False, "Remove the run in --out first.", flag_values=values)
    flags.DEFINE_boolean("help", False, "Print this.", short_name="h", flag_values=values)
    try:
        rest = values(list(arguments))
    except flags.Error as error:
        raise UsageError(f"{str(error).rstrip(' ?.')}. See keras-popup train --help.") from None
    if values.help:
        print(_TRAIN_HELP + "\nflags:\n" + _flag_help(values))
        return 0
    if len(rest) > 1:
        raise UsageError(f"Unexpected arguments {rest[1:]}. Flags begin with --. See keras-popup train --help.")
    if not values.out:
        raise UsageError("--out is required: the folder of the run, such as --out runs/first.")
    try:
        config = RunConfig(**{field.name: values[field.name].value for field in dataclasses.fields(RunConfig)})
        config.with_protocol()
    except ValueError as error:
        raise UsageError(str(error)) from None

    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("keras_popup").setLevel(logging.INFO)
    try:
        training = _load_training()
        summary = training.train(config, values.out, resume=values.resume, overwrite=values.overwrite)
    except (ValueError, OSError, ImportError, ArithmeticError) as error:
        print(f"keras-popup: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "\nkeras-popup: interrupted. The same command with --resume goes on after the last epoch.", file=sys.stderr
        )
        return 130
    _print_summary(summary, values.out)
    return 0


def _load_training() -> types.ModuleType:
    """Imports what needs TensorFlow, now that the arguments are known to be good."""
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # What its libraries log before they have read that level goes to the file descriptor.
    stderr, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        training = importlib.import_module("keras_popup.training")
        training.find_devices()
        return training
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nowhere)


def _print_summary(summary: dict[str, Any], out: str) -> None:
    share = summary["kept"] / summary["weights"]
    print(f"\ntest accuracy  {summary['test']['accuracy']:.2%} ({summary['data']['test']:,} images)")
    print(f"weights kept   {summary['kept']:,} of {summary['weights']:,} ({share:.1%})")
    print(f"time           {summary['seconds']:.0f} s, {summary['images_per_second']:,.0f} images/s")
    print(f"run folder     {out}")
    curves = os.path.join(out, "curves.png")
    if os.path.exists(curves):
        print(f"curves         {curves}")


def _define_config_flags(values: flags.FlagValues) -> None:
    hints = typing.get_type_hints(RunConfig)
    for field in dataclasses.fields(RunConfig):
        options, text = {"flag_values": values}, field.metadata["help"]
        kind = _plain_type(hints[field.name])
        if field.metadata["choices"]:
            flags.DEFINE_enum(field.name, field.default, field.metadata["choices"], text, **options)
        elif kind is bool:
            flags.DEFINE_boolean(field.name, field.default, text, **options)
        elif kind is int:
            flags.DEFINE_integer(field.name, field.default, text, **options)
        elif kind is float:
            flags.DEFINE_float(field.name, field.default, text, **options)
        else:
            flags.DEFINE_string(field.name, field.default, text, **options)


def _plain_type(hint: Any) -> Any:
    """Returns int for `int | None`."""
    if isinstance(hint, types.UnionType):
        return next(part for part in typing.get_args(hint) if part is not type(None))
    return hint


def _flag_help(values: flags.FlagValues) -> str:
    """Returns one entry per flag, those of the configuration in its order, then those of the run folder."""
    own = {field.name: field for field in dataclasses.fields(RunConfig)}
    lines = []
    for name in [*own, "out", "resume", "overwrite"]:
        flag = values[name]
        text = own[name].metadata["help"] if name in own else flag.help
        if name in own and own[name].metadata["choices"]:
            text += f" One of {', '.join(own[name].metadata['choices'])}."
        if flag.default is not None and not flag.boolean:
            text += f" Default: {flag.default}."
        elif name in own and any(hasattr(p, name) for p in PROTOCOLS["conv4"].values()):
            text += f" By the model's protocol; for conv4 {getattr(PROTOCOLS['conv4']['edge-popup'], name)}."
        elif flag.boolean and flag.default:
            text += f" Default: on, --no{name} switches it off."
        lines.append(f"  --{name}")
        lines.append(textwrap.fill(text, 100, initial_indent=" " * 6, subsequent_indent=" " * 6))
    return "\n".join(lines)
