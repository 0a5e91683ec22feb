"""Find and ship subnetworks of randomly weighted Keras networks."""

import importlib
from typing import Any

__version__ = "0.1.0"

# Where each public name lives. Resolved on first use, so that `import keras_popup`, `--help` and
# `--version` do not wait for TensorFlow.
_MODULES = ("conversion", "datasets", "initializers", "layers", "models", "selectors", "training")
_NAMES = {"mask_model": "conversion"}

__all__ = [*_MODULES, *_NAMES, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"keras_popup.{name}")
    if name in _NAMES:
        return getattr(importlib.import_module(f"keras_popup.{_NAMES[name]}"), name)
    raise AttributeError(f"module 'keras_popup' has no attribute {name!r}. Public names: {__all__}.")


def __dir__() -> list[str]:
    return sorted(__all__)
