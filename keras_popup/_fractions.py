"""The check of k. Loads no TensorFlow: configurations and the command line use it too."""

from typing import Any


def check_k(k: Any) -> float:
    """Returns `k` as a float after checking that it is a fraction kept.

    Raises:
        ValueError: if it is not a number in (0, 1].
    """
    try:
        number = k.numpy() if hasattr(k, "numpy") else k
        # The float32 nearest to 0.7 is less than 0.7: it would keep 3 of 5 weights instead of 4.
        value = float(str(number) if getattr(number, "dtype", None) == "float32" else number)
    except (TypeError, ValueError):
        value = float("nan")
    if isinstance(k, bool) or not 0.0 < value <= 1.0:
        raise ValueError(f"`k`, the fraction of weights kept, must be a number in (0, 1]. Received: k={k!r}.")
    return value
