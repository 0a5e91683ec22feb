"""One training run from a `RunConfig`. TensorFlow is imported when it is first needed."""

import lazy_loader

# The names of `__init__.pyi`. Those that are not listed here are for other folders of the package.
__getattr__, __dir__, _ = lazy_loader.attach_stub(__name__, __file__)
__all__ = ["PROTOCOLS", "DivergenceError", "RunConfig", "train", "write_report"]
