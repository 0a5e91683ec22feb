"""The pages of the reference: every public name, with its signature at run time and its docstring."""

import importlib
import inspect
from pathlib import Path
from typing import Any

import keras_popup

# The members of layers made by hand are those of one base. They are shown once, at the first of them.
_SHOWN_ONCE = "keras_popup.layers.constructed"

# What Keras calls, not a user.
_OF_KERAS = ("build", "call", "compute_output_shape", "from_config", "get_config", "get_build_config")


def list_names() -> dict[str, list[str]]:
    """Returns the public names by module: first those of the package itself, then those that only its modules have."""
    package = [name for name in keras_popup.__all__ if not inspect.ismodule(getattr(keras_popup, name))]
    modules = sorted(name for name in keras_popup.__all__ if inspect.ismodule(getattr(keras_popup, name)))
    shown = {id(getattr(keras_popup, name)) for name in package}
    names = {"keras_popup": package}
    for module in modules:
        values = vars(importlib.import_module(f"keras_popup.{module}"))
        every = getattr(keras_popup, module).__all__
        names[f"keras_popup.{module}"] = [name for name in every if id(values.get(name, name)) not in shown]
    return names


def list_members(kind: type) -> list[str]:
    """Returns the public methods and properties of a class, in the order of their definition, that have a docstring."""
    members: dict[str, Any] = {}
    for base in reversed(kind.__mro__):
        if base.__module__.startswith("keras_popup"):
            members |= {name: value for name, value in vars(base).items() if not name.startswith("_")}
    return [name for name, value in members.items() if name not in _OF_KERAS and _is_documented(value)]


def _is_documented(value: Any) -> bool:
    is_member = callable(value) or isinstance(value, (property, classmethod, staticmethod))
    return is_member and not inspect.isclass(value) and bool(inspect.getdoc(value))


def describe_constant(value: Any) -> str:
    """Returns a sentence about a constant: its value, or the keys of a dict."""
    if isinstance(value, dict):
        keys = ", ".join(f"``{key.__name__ if inspect.isclass(key) else repr(key)}``" for key in value)
        return f"A dict with the keys {keys}."
    return f"``{value!r}``"


def format_entry(module: str, name: str, members: list[str]) -> str:
    """Returns the directive that shows a name."""
    value = getattr(importlib.import_module(module), name)
    if inspect.isclass(value):
        lines = [f".. autoclass:: {name}"]
        lines += [f"   :members: {', '.join(members)}"] if members else []
        lines += ["   :member-order: bysource"] if members else []
    elif inspect.isfunction(value):
        lines = [f".. autofunction:: {name}"]
    else:
        lines = [f".. py:data:: {name}", "", f"   {describe_constant(value)}"]
    return "\n".join(lines) + "\n\n"


def format_page(module: str, names: list[str]) -> str:
    """Returns the page of a module."""
    text = f"{module}\n{'=' * len(module)}\n\n.. automodule:: {module}\n\n.. currentmodule:: {module}\n\n"
    shown_once = False
    for name in names:
        value = getattr(importlib.import_module(module), name)
        members = list_members(value) if inspect.isclass(value) else []
        if any(base.__module__ == _SHOWN_ONCE for base in getattr(value, "__mro__", ())):
            if shown_once:
                members = []
            else:
                text += "The attributes and methods of the first class here are those of all masked layers below.\n\n"
            shown_once = True
        text += format_entry(module, name, members)
    return text


def write_reference(folder: Path) -> None:
    """Writes a page for every public module into a folder, and a page that lists them."""
    folder.mkdir()
    names = list_names()
    for module, names_of_module in names.items():
        (folder / f"{module}.rst").write_text(format_page(module, names_of_module), encoding="utf-8")
    title = "Reference"
    text = f"{title}\n{'=' * len(title)}\n\nEvery public name, with its arguments as they are typed.\n\n"
    text += ".. toctree::\n   :maxdepth: 2\n\n" + "".join(f"   {module}\n" for module in names)
    (folder / "index.rst").write_text(text, encoding="utf-8")
