"""What JSON must be like to become an object of a dataclass: its fields and their types are the schema."""

import dataclasses
import functools
import types
import typing
from typing import Any, TypeVar

T = TypeVar("T")

_WORDS: dict[Any, str] = {dict: "an object", list: "a list", tuple: "a list", str: "text", bool: "true or false"}
_WORDS |= {int: "an integer", float: "a number"}


def parse(kind: type[T], content: Any, where: str = "") -> T:
    """Returns JSON as an object of a dataclass. Keys that the class does not know are ignored.

    Args:
        kind: the dataclass. Its fields are numbers, text, bool, other dataclasses, or lists, tuples and dicts of these.
        content: what `json.loads` returned.
        where: str, what error messages call the content. If left out, it is not named.

    Raises:
        ValueError: if a field is missing or of another type, naming it, or what the class itself raises.
    """
    if not isinstance(content, dict):
        raise ValueError(_expected(where, content, "an object"))
    hints = _find_hints(typing.cast(Any, kind))
    missing = [name for name, (_, needed) in hints.items() if needed and name not in content]
    if missing:
        raise ValueError(f"{where} lacks '{missing[0]}'" if where else f"it lacks '{missing[0]}'")
    prefix = f"{where}." if where else ""
    return kind(**{name: _read(hints[name][0], content[name], prefix + name) for name in hints if name in content})


@functools.lru_cache
def _find_hints(kind: Any) -> dict[str, tuple[Any, bool]]:
    """Returns the type of each field, and whether it must be there."""
    types_of = typing.get_type_hints(kind)
    needed = {
        field.name: field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        for field in dataclasses.fields(kind)
    }
    return {name: (types_of[name], each) for name, each in needed.items()}


def _read(hint: Any, value: Any, where: str) -> Any:
    if hint is Any:
        return value
    kind, inner = typing.get_origin(hint) or hint, typing.get_args(hint)
    if kind in (types.UnionType, typing.Union):  # of one type and None
        (kept,) = (each for each in inner if each is not types.NoneType)
        return None if value is None else _read(kept, value, where)
    if dataclasses.is_dataclass(kind):
        return parse(typing.cast(type[Any], kind), value, where)
    if kind is float and type(value) is int:
        return value
    if type(value) is not (list if kind is tuple else kind):
        raise ValueError(_expected(where, value, _WORDS[kind]))
    if kind in (list, tuple):
        return kind(_read(inner[0], each, f"{where}[{number}]") for number, each in enumerate(value))
    if isinstance(value, dict):
        return {name: _read(inner[1], each, f"{where}.{name}") for name, each in value.items()}
    return value


def _expected(where: str, value: Any, words: str) -> str:
    """Returns what is wrong, without showing long or unprintable text."""
    text = f"{value!r:.40}"
    found = "null" if value is None else _WORDS[type(value)] if isinstance(value, (dict, list)) else ascii(text)[1:-1]
    return f"{f'{where!a:.200}' if where else 'it'} is {found}, where {words} is expected"
