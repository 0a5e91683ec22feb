"""The rules of docs/architecture.md: who may import whom, and which names are public."""

import ast
import importlib
import inspect
import json
from pathlib import Path

import pytest

import keras_popup

PACKAGE = Path(keras_popup.__file__).parent

# Each may import those before it. What stands in one entry may not import each other.
ORDER = (
    ("_files", "_fractions", "_keras", "_processor", "_style", "_tables", "_versions"),
    ("_workarounds",),
    ("initializers", "selectors"),
    ("layers",),
    ("conversion",),
    ("callbacks", "criteria", "draws", "pictures", "tickets", "exports"),
    ("pretrained",),
    # From here on it is the lab, which the library never imports.
    ("models", "datasets", "distribution", "records"),
    ("pages",),
    ("training",),
    ("search",),
    ("cli",),
)
RANK = {name: rank for rank, names in enumerate(ORDER) for name in names}


def imports(file):
    """Yields (module, names) of all that a file of the package imports from it, also within functions."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "keras_popup":
            yield node.module, [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            yield from ((alias.name, []) for alias in node.names if alias.name.startswith("keras_popup."))


FILES = sorted(file for file in PACKAGE.rglob("*.py") if file.name not in ("__main__.py",) and file.parent != PACKAGE)
FILES += [PACKAGE / f"{name}.py" for names in ORDER for name in names if (PACKAGE / f"{name}.py").exists()]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_go_downwards_and_through_the_init(file):
    room = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for module, names in imports(file):
        parts = module.split(".")[1:]
        for other in [parts[0]] if parts else [name for name in names if name in RANK]:
            if other == room:
                continue
            assert RANK[other] < RANK[room], f"{room} imports {other}"
            assert len(parts) < 2, f"{module} is a file of another folder: import it from keras_popup.{other}"


def test_every_module_has_a_place():
    there = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert there - {"__init__", "__main__"} == set(RANK)


SURFACE = Path(__file__).parent / "public_names.json"


def describe(value):
    """Returns the arguments of a class or function with their defaults, else its type."""
    if not (inspect.isclass(value) or inspect.isfunction(value)):
        return type(value).__name__
    try:
        parameters = inspect.signature(value).parameters.values()
    except ValueError:
        return "class"
    return str(inspect.Signature([parameter.replace(annotation=parameter.empty) for parameter in parameters]))


def public_names():
    """Returns the signature of every public name: those of the package, and of the modules among them."""
    names = {}
    for name in keras_popup.__all__:
        value = getattr(keras_popup, name)
        if inspect.ismodule(value):
            listed = getattr(value, "__all__", None)
            inner = listed or [n for n, v in vars(value).items() if getattr(v, "__module__", "") == value.__name__]
            names |= {f"{name}.{n}": describe(getattr(value, n)) for n in inner if not n.startswith("_")}
        else:
            names[name] = describe(value)
    return dict(sorted(names.items()))


def test_public_names_are_kept():
    """A change of the public surface is made on purpose: write the file anew, and look at the difference."""
    kept = json.loads(SURFACE.read_text())
    assert public_names() == kept, f"python {Path(__file__).name} writes {SURFACE.name} anew; see CONTRIBUTING.md"


if __name__ == "__main__":
    importlib.invalidate_caches()
    SURFACE.write_text(json.dumps(public_names(), indent=1) + "\n")
