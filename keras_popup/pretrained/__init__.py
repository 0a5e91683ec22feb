"""Networks to start from, inside the package: tickets of some kilobytes, each with a card that says what it is."""

import lazy_loader

# The names of `__init__.pyi`. Listing the networks and reading their cards loads no TensorFlow.
__getattr__, __dir__, _ = lazy_loader.attach_stub(__name__, __file__)
__all__ = ["Card", "find_ticket", "list_networks", "load", "read_card"]
