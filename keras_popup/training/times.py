"""Where the time of a run goes."""

import contextlib
import time
from collections.abc import Iterator, Mapping


class Times:
    """Seconds by what they were spent on, in the order in which that began."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def measured(self, name: str) -> Iterator[None]:
        """Adds the time that the block takes."""
        self.seconds.setdefault(name, 0.0)
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - started

    def split(self, name: str, first: str, seconds: float) -> None:
        """Takes the first seconds of what was measured under a name, and puts them under one of their own."""
        seconds = min(seconds, self.seconds[name])
        self.seconds[name] -= seconds
        known = list(self.seconds.items())
        place = [each for each, _ in known].index(name)
        self.seconds = dict([*known[:place], (first, seconds), *known[place:]])


def format_times(seconds: Mapping[str, float]) -> str:
    """Returns where the time went in one line, such as "12 s: data 1 s, first step 4 s, training 7 s"."""
    parts = ", ".join(f"{name} {each:.0f} s" if each >= 1 else f"{name} {each:.1f} s" for name, each in seconds.items())
    return f"{sum(seconds.values()):.0f} s: {parts}"
