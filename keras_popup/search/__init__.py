"""Searches over k, width and more. Keras Tuner and TensorFlow are imported when they are first needed."""

import lazy_loader

# The names of `__init__.pyi`. Those that are not listed here are for other folders of the package.
__getattr__, __dir__, _ = lazy_loader.attach_stub(__name__, __file__)
__all__ = ["PopupHyperModel", "Range", "SearchConfig", "search", "write_report"]
