"""Charts as SVG."""

import re
import xml.etree.ElementTree as ElementTree

import pytest

from keras_popup.pages import Axis, Chart, Scale, bars


def make_chart():
    return Chart(Axis("k", Scale(0.0, 1.0)), Axis("accuracy", Scale(0.0, 1.0)))


def test_chart_is_xml_with_a_name_and_titles_that_are_escaped():
    chart = Chart(Axis("<k> & more", Scale(0.0, 1.0)), Axis("y", Scale(0.0, 1.0)))
    chart.border(0.5, "<script>", "dashed")
    root = ElementTree.fromstring(chart.svg('a "name"'))
    assert root.attrib["aria-label"] == 'a "name"'
    texts = [element.text for element in root.iter("text")]
    assert "<k> & more" in texts
    assert "<script>" in texts


def test_dots_are_where_the_scales_say_and_know_their_trials():
    chart = make_chart()
    chart.dots([(0.0, 0.0), (1.0, 1.0)], "s0", [3, 4])
    low, high = ElementTree.fromstring(chart.svg("")).iter("circle")
    assert float(low.attrib["cx"]) < float(high.attrib["cx"])
    assert float(low.attrib["cy"]) > float(high.attrib["cy"])  # upwards is less
    assert [low.attrib["data-t"], high.attrib["data-t"]] == ["3", "4"]


def test_steps_go_to_the_right_first():
    chart = make_chart()
    chart.steps([(0.0, 0.2), (0.5, 0.8)], "s0")
    path = next(each for each in ElementTree.fromstring(chart.svg("")).iter("path")).attrib["d"]
    (x0, y0), (x1, y1), (x2, y2) = re.findall(r"([\d.]+),([\d.]+)", path)
    assert (y0, x1) == (y1, x2)
    assert x0 != x1
    assert y1 != y2


def test_columns_leave_out_what_is_empty():
    chart = make_chart()
    chart.columns([(0.0, 0.5, 0.0, 1.0), (0.5, 1.0, 0.3, 0.3)], "s0")
    assert len(list(ElementTree.fromstring(chart.svg("")).iter("rect"))) == 1


@pytest.mark.parametrize("length", [-1.0, 0.0, 0.5, 1.0, 7.0])
def test_bars_stay_within_their_track(length):
    root = ElementTree.fromstring(bars([("a" * 99, length, "text")], "shares"))
    track, bar = root.iter("rect")
    assert 0 <= float(bar.attrib["width"]) <= float(track.attrib["width"])
    assert next(root.iter("text")).text == "..." + "a" * 21
