"""The command line that repeats a run. Loads no TensorFlow."""

import dataclasses
import shlex
from collections.abc import Mapping
from typing import Any

from keras_popup.training.config import PLACES, RunConfig
from keras_popup.training.protocols import Protocol

_PROGRAM = "keras-popup"


def format_command(arguments: Mapping[str, Any], out: str) -> str:
    """Returns the `keras-popup train` command that has these arguments.

    Args:
        arguments: the arguments of a run, as `RunConfig.to_json` returns them. Those that the protocol or a default
            gives are left out, and so are the devices.
        out: str, the value of --out.
    """
    return join_flags("train", [*list_flags(arguments), ("out", out)])


def list_flags(arguments: Mapping[str, Any]) -> list[tuple[str, str | bool]]:
    """Returns (flag, value) for each argument of a run that a command has to give."""
    config = RunConfig.from_json({**arguments, **dict.fromkeys(_OF_PROTOCOL)})
    protocol = _find_protocol(config)
    flags: list[tuple[str, str | bool]] = []
    for field in dataclasses.fields(RunConfig):
        value, given = arguments.get(field.name, field.default), field.name in ("model", "dataset")
        if field.name in PLACES or value is None or (field.name == "model" and value == "base"):
            continue
        if not given and value in (field.default, protocol.get(field.name, field.default)):
            continue
        if field.name == "k" and isinstance(value, dict):
            flags.append(("layer_k", ";".join(f"{pattern}={each!r}" for pattern, each in value.items())))
            continue
        flags.append((field.metadata.get("flag") or field.name, format_value(value)))
    return flags


_OF_PROTOCOL = tuple(field.name for field in dataclasses.fields(Protocol))


def _find_protocol(config: RunConfig) -> dict[str, Any]:
    """Returns the values that are given to arguments that are left out."""
    try:
        resolved = config.with_protocol().to_json()
    except ValueError:  # an optimizer without a protocol: all of them are given
        return {}
    return {name: resolved[name] for name in _OF_PROTOCOL}


def format_value(value: Any) -> str | bool:
    """Returns a value as a flag takes it."""
    if isinstance(value, bool):
        return value
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)


def join_flags(command: str, flags: list[tuple[str, str | bool]]) -> str:
    """Returns a command with its flags, on lines that a shell reads as one."""
    lines = [f"{_PROGRAM} {command}"]
    for name, value in flags:
        text = f"--{'' if value else 'no'}{name}" if isinstance(value, bool) else f"--{name} {shlex.quote(value)}"
        if len(lines[-1]) + len(text) > 96:
            lines.append("   ")
        lines[-1] += f" {text}"
    return " \\\n".join(lines)
