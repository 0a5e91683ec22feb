"""Settings of Sphinx, which makes the site. `make docs` runs build.py."""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import docstrings
import pages

import keras_popup

project = "keras_popup"
author = "The keras_popup developers"
project_copyright = "The keras_popup developers"
version = release = keras_popup.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 4  # as GitHub makes them
highlight_language = "text"  # of blocks that do not say theirs: commands, and what they print
smartquotes = False  # quotes as they are typed

# What a user types: names and defaults. The docstrings say the types.
autodoc_typehints = "none"
autodoc_preserve_defaults = True
maximum_signature_line_length = 90
add_module_names = False
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_custom_sections = [
    ("Input shape", "notes_style"),
    ("Output shape", "notes_style"),
    ("Call arguments", "params_style"),
    ("Reference", "notes_style"),
]

html_theme = "furo"
html_title = f"keras_popup {version}"
html_static_path = [str(Path(__file__).parent / "static")]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {
    "footer_icons": [{"name": "GitHub", "url": pages.REPOSITORY, "html": "GitHub", "class": ""}],
}


def _convert_docstring(app: Any, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    lines[:] = docstrings.convert(lines)


def setup(app: Any) -> None:
    app.connect("autodoc-process-docstring", _convert_docstring, priority=400)  # before napoleon, which has 500
