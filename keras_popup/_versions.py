"""The versions of installed packages. Every file that is kept records them."""

import importlib.metadata
from collections.abc import Sequence


def package_versions(names: Sequence[str]) -> dict[str, str]:
    """Returns the versions of installed packages by name."""
    return {name: importlib.metadata.version(name) for name in names}
