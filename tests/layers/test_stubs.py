"""The stubs of the masked layers have the arguments that the layers have."""

import ast
import inspect
import re

import keras
import make_stubs
import pytest

from keras_popup import layers


def read_stub(module):
    """Returns {class: [(name, kind, default), ...]} of a stub, and the version of Keras that it is for."""
    text = (make_stubs.FOLDER / f"{module}.pyi").read_text(encoding="utf-8")
    classes = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.ClassDef):
            arguments = node.body[0].args
            positional = arguments.args[1:]  # without self
            missing = [inspect.Parameter.empty] * (len(positional) - len(arguments.defaults))
            defaults = [*missing, *map(ast.literal_eval, arguments.defaults)]
            keywords = map(ast.literal_eval, arguments.kw_defaults)
            classes[node.name] = [
                *((arg.arg, "positional", value) for arg, value in zip(positional, defaults, strict=True)),
                *((arg.arg, "keyword", value) for arg, value in zip(arguments.kwonlyargs, keywords, strict=True)),
                (arguments.kwarg.arg, "others", inspect.Parameter.empty),
            ]
    return classes, re.search(r"as of Keras ([\d.]+)\.\n", text)[1]


def read_class(kind):
    """Returns [(name, kind, default), ...] of a class."""
    kinds = {"POSITIONAL_OR_KEYWORD": "positional", "KEYWORD_ONLY": "keyword", "VAR_KEYWORD": "others"}
    parameters = inspect.signature(kind).parameters.values()
    return [(parameter.name, kinds[parameter.kind.name], parameter.default) for parameter in parameters]


@pytest.mark.parametrize("module", make_stubs.MODULES)
def test_stubs_have_the_arguments_of_the_layers(module):
    found, version = read_stub(module)
    expected = {kind.__name__: read_class(kind) for kind in make_stubs.list_classes(module)}
    if found != expected and version != keras.__version__:
        pytest.skip(f"the stubs are for Keras {version}, and Keras {keras.__version__} has other arguments")
    assert found == expected, "python tests/support/make_stubs.py writes the stubs"


def test_stubs_have_all_layers():
    in_stubs = {name for module in make_stubs.MODULES for name in read_stub(module)[0]}
    assert in_stubs == {kind.__name__ for kind in layers.MASKED_LAYERS.values()}
