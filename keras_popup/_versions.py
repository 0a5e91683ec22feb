"""The versions of installed packages, and the processor. Every file that is kept records them."""

import importlib.metadata
import platform
from collections.abc import Sequence
from pathlib import Path


def package_versions(names: Sequence[str]) -> dict[str, str]:
    """Returns the versions of installed packages by name."""
    return {name: importlib.metadata.version(name) for name in names}


def find_processor() -> str:
    """Returns the name of the processor, or the type of the machine where the system does not tell the name."""
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
