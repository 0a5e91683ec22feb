"""Values and ranges to search, as text."""

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from keras_popup.search import Range, ranges

NUMBERS = st.floats(-1e6, 1e6).filter(lambda value: value == 0 or abs(value) > 1e-6)


@given(NUMBERS, NUMBERS, st.booleans())
def test_parse_values_reads_a_range_as_written(low, high, log):
    assume(low < high and (not log or low > 0))
    space = Range(low, high, "log" if log else "linear")
    assert ranges.parse_values(ranges.format_space(space)) == space


@given(st.lists(NUMBERS, min_size=1, max_size=6, unique=True))
def test_parse_values_reads_values_as_written(values):
    space = ranges.normalise_values(values)
    assert ranges.parse_values(ranges.format_space(space)) == space
    assert set(ranges.endpoints(space)) == set(values)


@given(st.integers(2, 50), st.integers(1, 20))
@example(15, 64)
def test_parse_values_of_steps_ends_at_the_end(steps, thousandths):
    end = f"{0.02 + steps * thousandths / 1000:.6f}"
    space = ranges.parse_values(f"0.02:{end}:{thousandths / 1000}")
    assert len(space) == steps + 1
    assert space[-1] == pytest.approx(float(end), abs=1e-9)


@pytest.mark.parametrize(
    "text",
    ["", "a", "0.5,", "0.5,0.5", "0.9:0.1", "0.5:0.5", "0:x", "0.1:0.9:0", "0.1:0.9:2", "0.1:0.9:-1", "0:1:log"],
)
def test_parse_values_refuses_bad_ranges(text):
    with pytest.raises(ValueError, match="Received"):
        ranges.parse_values(text)


@pytest.mark.parametrize("text", ["0.1:0.9:log:3", "nan", "inf", "1:inf", "0:1:1e-9", ":", "0.1:"])
def test_parse_values_refuses_bad_numbers(text):
    test_parse_values_refuses_bad_ranges(text)
