"""Find and ship subnetworks of randomly weighted Keras networks."""

import importlib
import os
import sys
from typing import Any

if os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow":
    raise ImportError(
        "keras_popup needs Keras's TensorFlow backend. Received: the environment variable "
        f"KERAS_BACKEND={os.environ['KERAS_BACKEND']}. Set it to tensorflow, or unset it, before importing keras."
    )

__version__ = "0.1.0"

# Where each public name lives. Resolved on first use, so that `import keras_popup`, `--help` and
# `--version` do not wait for TensorFlow.
_MODULES = (
    "callbacks",
    "conversion",
    "criteria",
    "datasets",
    "draws",
    "exports",
    "initializers",
    "layers",
    "models",
    "search",
    "selectors",
    "tickets",
    "training",
)
_NAMES = {
    "TicketError": "tickets",
    "evaluate_draws": "draws",
    "export": "exports",
    "load_ticket": "tickets",
    "mask_model": "conversion",
    "mask_summary": "conversion",
    "register_maskable": "layers",
    "save_ticket": "tickets",
    "strip_masks": "conversion",
    "ticket_info": "tickets",
    "verify_ticket": "tickets",
}

__all__ = [*_MODULES, *_NAMES, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"keras_popup.{name}")
    if name in _NAMES:
        return getattr(importlib.import_module(f"keras_popup.{_NAMES[name]}"), name)
    raise AttributeError(f"module 'keras_popup' has no attribute {name!r}. Public names: {__all__}.")


def __dir__() -> list[str]:
    return sorted(__all__)


if "keras" in sys.modules:
    # Registers the layers, so that keras.models.load_model finds them. It costs nothing more here.
    importlib.import_module("keras_popup.layers")
