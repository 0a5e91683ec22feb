"""The scales of axes."""

import pytest

from keras_popup.pages import Scale, make_scale, percent_format
from keras_popup.pages.scales import number_format


@pytest.mark.parametrize(
    ("low", "high", "log", "ticks"),
    [
        (0.0, 1.0, False, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0.832, 0.887, False, [0.84, 0.85, 0.86, 0.87, 0.88]),
        (1.0, 8.0, False, [2.0, 4.0, 6.0, 8.0]),
        (-3e-6, 3e-6, False, [-2e-6, 0.0, 2e-6]),
        (0.1, 1.0, True, [0.1, 0.2, 0.3, 0.5, 0.7, 1.0]),
        (1e-4, 1.0, True, [1e-4, 1e-3, 0.01, 0.1, 1.0]),
        (8130.0, 9210.0, True, [8200.0, 8400.0, 8600.0, 8800.0, 9000.0, 9200.0]),
    ],
)
def test_ticks_are_round_numbers_between_the_ends(low, high, log, ticks):
    assert Scale(low, high, log).ticks() == pytest.approx(ticks)


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("values", [[1.0], [0.5, 0.5], [1e-9, 2e-9], [0.1, 1000.0], [88.0, 89.0, 88.5]])
def test_make_scale_has_room_for_all_numbers(values, log):
    scale = make_scale(values, log)
    places = [scale.place(value) for value in values]
    assert all(0 < place < 1 for place in places)
    assert sorted(places) == [scale.place(value) for value in sorted(values)]
    assert scale.ticks()


def test_place_of_the_ends_and_of_the_middle():
    assert [Scale(2.0, 6.0).place(value) for value in (2, 4, 6)] == [0, 0.5, 1]
    assert [Scale(1.0, 100.0, log=True).place(value) for value in (1, 10, 100)] == pytest.approx([0, 0.5, 1])


@pytest.mark.parametrize(
    ("scale", "value", "text"),
    [(Scale(0, 1), 0.2, "20 %"), (Scale(0.88, 0.89), 0.884, "88.4 %"), (Scale(0.8801, 0.8803), 0.8802, "88.020 %")],
)
def test_percent_format_tells_ticks_apart(scale, value, text):
    assert percent_format(scale)(value) == text
    texts = [percent_format(scale)(tick) for tick in scale.ticks()]
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize(("value", "text"), [(0.05, "0.05"), (20, "20"), (2500, "2500"), (25000, "25k"), (3e6, "3M")])
def test_number_format_is_short(value, text):
    assert number_format(value) == text
