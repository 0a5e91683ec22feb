"""Writes keras_popup/layers/core.pyi and convolutional.pyi, which show editors the arguments of masked layers.

The signatures of these layers are made at run time, from those of the installed Keras. Type checkers and editors cannot
see them. After a change of Keras or of `Constructed`, run `python tests/support/make_stubs.py`.
"""

import importlib
import inspect
import re
from pathlib import Path

import keras

from keras_popup import layers

FOLDER = Path(layers.__file__).parent
MODULES = ("core", "convolutional")

_HEADER = '''"""The masked layers of {module}.py with all their arguments, as of Keras {version}.

Written by tests/support/make_stubs.py.
"""

from typing import Any

import keras

from keras_popup.layers.constructed import Constructed
'''

# Types of the arguments of Keras's layers. Keras declares none; arguments that are not listed here are Any.
_TYPES = {
    "bias_axes": "str | None",
    "data_format": "str | None",
    "depth_multiplier": "int",
    "dilation_rate": "int | tuple[int, ...]",
    "equation": "str",
    "filters": "int",
    "groups": "int",
    "input_dim": "int",
    "kernel_size": "int | tuple[int, ...]",
    "logit_soft_cap": "float | None",
    "lora_alpha": "float | None",
    "lora_rank": "int | None",
    "mask_zero": "bool",
    "output_dim": "int",
    "output_padding": "int | tuple[int, ...] | None",
    "output_shape": "int | tuple[int | None, ...]",
    "padding": "str",
    "strides": "int | tuple[int, ...]",
    "tie_weights": "bool",
    "units": "int",
    "use_bias": "bool",
}


def list_classes(module):
    """Returns the masked layers that are defined in a module, in the order of their definition."""
    return [
        kind for kind in vars(importlib.import_module(f"keras_popup.layers.{module}")).values() if _is_in(kind, module)
    ]


def _is_in(kind, module):
    return inspect.isclass(kind) and kind.__module__ == f"keras_popup.layers.{module}"


def format_parameter(parameter):
    """Returns a parameter as the source code of a stub."""
    if parameter.kind is parameter.VAR_KEYWORD:
        return f"**{parameter.name}: Any"
    declared = parameter.annotation
    kind = _TYPES.get(parameter.name, "Any") if declared is parameter.empty else inspect.formatannotation(declared)
    kind = re.sub(r"\btyping\.", "", kind)
    default = "" if parameter.default is parameter.empty else f" = {format_default(parameter.default)}"
    return f"{parameter.name}: {kind}{default}"


def format_default(value):
    return f'"{value}"' if isinstance(value, str) else repr(value)


def make_stub(module):
    """Returns the text of the stub of a module."""
    text = _HEADER.format(module=module, version=keras.__version__)
    for kind in list_classes(module):
        stock = layers.stock_class(kind)
        lines = ["self"]
        for parameter in inspect.signature(kind).parameters.values():
            if parameter.kind is parameter.KEYWORD_ONLY and "*" not in lines:
                lines.append("*")
            lines.append(format_parameter(parameter))
        arguments = "".join(f"        {line},\n" for line in lines)
        text += f"\nclass {kind.__name__}(Constructed, keras.layers.{stock.__name__}):\n"
        text += f"    def __init__(\n{arguments}    ) -> None: ...\n"
    return text


if __name__ == "__main__":
    for name in MODULES:
        (FOLDER / f"{name}.pyi").write_text(make_stub(name), encoding="utf-8")
