"""The pages of the site: their order, their links, and the picture that explains edge-popup."""

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "docs" / "site"))

import draw_edge_popup  # noqa: E402
import pages  # noqa: E402

PAGES = [
    *sorted((ROOT / "docs").glob("*.md")),
    *(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "SECURITY")),
]


def headings(page):
    """Returns the anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    titles = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title) for title in re.findall(r"^#+ (.*)$", text, re.MULTILINE)]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_of_pages_lead_to_headings(page):
    links = re.findall(r"\]\(([^()\s:#]*\.md)?#([^()\s]+)\)", page.read_text())
    missing = [
        f"{path}#{anchor}" for path, anchor in links if anchor not in headings(page.parent / path if path else page)
    ]
    assert not missing


def test_check_order_finds_every_page():
    pages.check_order()


def test_check_order_refuses_a_page_without_a_place(monkeypatch):
    monkeypatch.setitem(pages.ORDER, "Several devices", ())
    with pytest.raises(
        ValueError, match=r"needs one place in ORDER of pages\.py\. Received: .*; expected: .*Add the page"
    ):
        pages.check_order()


@pytest.mark.parametrize(
    ("text", "folder", "expected"),
    [
        ("[a](tickets.md#sizes)", "docs", "[a](tickets.md#sizes)"),
        ("[a](docs/tickets.md)", ".", "[a](tickets.md)"),
        ("[a](search.md) and ![b](img/tickets.png)", "docs", "[a](searching.md) and ![b](img/tickets.png)"),
        ("[a](#here), [b](https://keras.io/api)", "docs", "[a](#here), [b](https://keras.io/api)"),
        ("[a](../CONTRIBUTING.md)", "docs", "[a](contributing.md)"),
        ("[`a`\nb](../examples/new_task.py)", "docs", "[`a`\nb](examples/new_task.md)"),
        ("[a](examples)", ".", "[a](gallery.md)"),
        ("[a](../README.md#first-results)", "docs", f"[a]({pages.REPOSITORY}/blob/main/README.md#first-results)"),
        ("[a](../benchmarks)", "docs", f"[a]({pages.REPOSITORY}/tree/main/benchmarks)"),
        ("[a](site/conf.py)", "docs", f"[a]({pages.REPOSITORY}/blob/main/docs/site/conf.py)"),
        ("tasks[name](x) of [[a]](missing.md)", "docs", "tasks[name](x) of [[a]](missing.md)"),
    ],
)
def test_rewrite_links(text, folder, expected):
    assert pages.rewrite_links(text, (ROOT / folder).resolve()) == expected


def test_write_pages_leads_nowhere_outside(tmp_path):
    pages.write_pages(tmp_path)
    for page in tmp_path.rglob("*.md"):
        links = re.findall(r"\]\(([^()\s:#]+\.(?:md|png|svg))", page.read_text())
        assert not [link for link in links if not (page.parent / link).exists()], page
        assert "](../" not in page.read_text()
    assert {path.stem for path in (tmp_path / "examples").iterdir()} == {p.stem for p in pages.list_examples()}


def test_draw_edge_popup_is_the_picture_of_the_page():
    assert draw_edge_popup.draw() == (ROOT / "docs" / "img" / "edge-popup.svg").read_text()
