"""Where the time of a run goes."""

import pytest

from keras_popup.training import format_times
from keras_popup.training.times import Times


def test_times_are_added_and_split():
    times = Times()
    with times.measured("data"):
        pass
    with times.measured("training"):
        pass
    times.seconds = {"data": 1.0, "training": 10.0, "test": 0.5}
    times.split("training", "first step", 4.0)
    assert list(times.seconds.items()) == [("data", 1.0), ("first step", 4.0), ("training", 6.0), ("test", 0.5)]
    assert format_times(times.seconds) == "12 s: data 1 s, first step 4 s, training 6 s, test 0.5 s"


def test_times_measure_a_block_that_fails():
    times = Times()
    with pytest.raises(ValueError, match="stop"), times.measured("data"):
        raise ValueError("stop")
    assert times.seconds["data"] >= 0.0
