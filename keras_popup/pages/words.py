"""Numbers, times and machines in words."""

import datetime
import math
from collections.abc import Mapping


def standard_error(accuracy: float, images: int) -> float:
    """Returns the standard error of an accuracy that was measured on a number of images."""
    return math.sqrt(max(0.0, accuracy * (1 - accuracy)) / images) if images else 0.0


def format_duration(seconds: float) -> str:
    """Returns a duration as "12 s", "3 min 20 s" or "2 h 5 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s" if seconds >= 10 or whole == seconds else f"{seconds:.1f} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def format_time(text: str) -> str:
    """Returns a time of ISO format as "2026-01-31 14:05 UTC". What is no time is returned as it is."""
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        return text
    if moment.tzinfo is None:
        return f"{moment:%Y-%m-%d %H:%M}"
    return f"{moment.astimezone(datetime.UTC):%Y-%m-%d %H:%M} UTC"


def format_bytes(size: float) -> str:
    """Returns a number of bytes as "812 bytes", "33.4 kB" or "1.20 MB"."""
    if size < 1000:
        return f"{size:.0f} bytes"
    return f"{size / 1e3:.1f} kB" if size < 1e6 else f"{size / 1e6:.2f} MB"


def describe_machine(versions: Mapping[str, str]) -> str:
    """Returns what recorded versions say of the machine."""
    cpus = f"{versions['cpus']} CPUs" if "cpus" in versions else ""
    parts = (versions.get("processor", ""), cpus, versions.get("devices", ""), versions.get("platform", ""))
    return "; ".join(part for part in parts if part)
