"""The most memory that this process has had so far."""

import sys

import pytest


def measure_peak_memory():
    """Returns the bytes. Skips the test where the system does not say."""
    resource = pytest.importorskip("resource")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
