"""Fills the templates of pages in. Needs Jinja2, in the extras `plots` and `tuning`."""

import functools
import importlib.util
from pathlib import Path
from typing import Any

from keras_popup import _style

_TEMPLATES = Path(__file__).parent / "templates"


def is_available() -> bool:
    """Tells whether Jinja2 is installed."""
    return importlib.util.find_spec("jinja2") is not None


def render(template: str, **content: Any) -> str:
    """Returns a page: one HTML text that needs no other file.

    Args:
        template: the name of a template. All text that it is given is escaped, but for the drawings of figures.
        **content: what the template shows.

    Raises:
        ImportError: if Jinja2 is not installed.
    """
    text: str = _environment().get_template(template).render(light=_style.SERIES, dark=_style.DARK_SERIES, **content)
    return text


@functools.cache
def _environment() -> Any:
    try:
        import jinja2
    except ImportError:
        raise ImportError("A page needs Jinja2. Install an extra: pip install 'keras-popup[plots]'.") from None
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
