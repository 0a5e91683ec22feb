"""Numbers, times and machines in words."""

import pytest

from keras_popup import pages


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.42, "0.4 s"),
        (3, "3 s"),
        (59.4, "59 s"),
        (60, "1 min"),
        (200, "3 min 20 s"),
        (7500, "2 h 5 min"),
        (7200, "2 h"),
    ],
)
def test_format_duration(seconds, text):
    assert pages.format_duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-31T14:05:09+00:00", "2026-01-31 14:05 UTC"),
        ("2026-01-31T14:05:09+02:00", "2026-01-31 12:05 UTC"),
        ("2026-01-31T14:05:09", "2026-01-31 14:05"),
        ("yesterday", "yesterday"),
    ],
)
def test_format_time(text, expected):
    assert pages.format_time(text) == expected


@pytest.mark.parametrize(("size", "text"), [(812, "812 bytes"), (33_400, "33.4 kB"), (1.2e6, "1.20 MB")])
def test_format_bytes(size, text):
    assert pages.format_bytes(size) == text


@pytest.mark.parametrize(
    ("accuracy", "images", "error"), [(0.5, 100, 0.05), (0.9, 144, 0.025), (1.0, 10, 0.0), (0.5, 0, 0.0)]
)
def test_standard_error(accuracy, images, error):
    assert pages.standard_error(accuracy, images) == pytest.approx(error)


def test_describe_machine_says_what_is_known():
    versions = {"keras": "3", "processor": "A chip", "cpus": "2", "devices": "CPU", "platform": "Linux"}
    assert pages.describe_machine(versions) == "A chip; 2 CPUs; CPU; Linux"
    assert pages.describe_machine({"keras": "3"}) == ""
