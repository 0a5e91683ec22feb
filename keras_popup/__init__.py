"""Find and ship subnetworks of randomly weighted Keras networks."""

import importlib
import sys
from pathlib import Path

import lazy_loader

__version__ = "0.2.0"

# The names of `__init__.pyi`, each imported when it is first used.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

# Registers the layers, so that `keras.models.load_model` finds them whichever is imported first. The command line does
# not wait for it, as Keras takes seconds: `keras-popup` or `python -m keras_popup` (whose name is "-m" until it runs).
if Path(sys.argv[0] if sys.argv else "").stem not in ("keras-popup", "keras-popup-script", "-m"):
    importlib.import_module("keras_popup.layers")
