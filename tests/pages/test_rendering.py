"""Templates."""

import sys

import pytest

from keras_popup import _style, pages
from keras_popup.pages import rendering


def test_render_needs_jinja2(monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    rendering._environment.cache_clear()
    with pytest.raises(ImportError, match=r"pip install 'keras-popup\[plots\]'"):
        pages.render("base.html", title="a page", version="1")
    rendering._environment.cache_clear()


def test_render_escapes_and_has_both_palettes():
    page = pages.render("base.html", title="<script>alert(1)</script>", version="1")
    assert "<script>alert" not in page
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in page
    for color in (*_style.SERIES, *_style.DARK_SERIES):
        assert color in page


@pytest.mark.parametrize("colors", ["SERIES", "DARK_SERIES"])
def test_colors_can_be_read_on_their_page(colors):
    """A contrast of 3 against the page, as the Web Content Accessibility Guidelines ask of graphics."""
    paper = "#ffffff" if colors == "SERIES" else "#14181d"
    for color in getattr(_style, colors):
        ordered = sorted((luminance(color), luminance(paper)))
        assert (ordered[1] + 0.05) / (ordered[0] + 0.05) >= 3, color


def luminance(color):
    parts = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
