"""Docstrings for Sphinx: Markdown as reStructuredText."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "docs" / "site"))

import docstrings


@pytest.mark.parametrize(
    ("markdown", "rst"),
    [
        ("`fit` and ``x``", "``fit`` and ``x``"),
        ("several `Dense`s", "several ``Dense``\\ s"),
        ("`a * b`, a * b, |a|", "``a * b``, a \\* b, \\|a\\|"),
        ("a_i, b_ and _c", "a_i, b\\_ and _c"),
        ("see [the\n    paper](https://arxiv.org/abs/1)", "see `the paper <https://arxiv.org/abs/1>`__"),
        ("in [0, 2**64)", "in [0, 2\\*\\*64)"),
        ("In words:\n\n    a = b * c\n    d\n\na * b", "In words:\n\n::\n\n    a = b * c\n    d\n\na \\* b"),
        ("Args:\n    k: a\n        b\n\n    m: c * d", "Args:\n    k: a\n        b\n\n    m: c \\* d"),
        ("Args:\n    k: of `n`\n\n>>> 2 * 3\n6\n\na * b", "Args:\n    k: of ``n``\n\n>>> 2 * 3\n6\n\na \\* b"),
    ],
)
def test_convert(markdown, rst):
    assert docstrings.convert(markdown.split("\n")) == rst.split("\n")
