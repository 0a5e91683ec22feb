"""Searches over k, width and more. What needs Keras Tuner or TensorFlow is imported when it is first used."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
