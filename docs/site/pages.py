"""The pages of the site: their order, and copies of them whose links lead to other pages of the site."""

import re
import shutil
from pathlib import Path

ROOT = Path(__file__).parents[2]
REPOSITORY = "https://github.com/keras-popup/keras-popup"

# The sections of the site and their pages, in the order of reading. The first is on top, without a heading.
ORDER = {
    "": ("index", "first-network", "pretrained"),
    "Your own model": ("conversion", "layers"),
    "Choosing k and width": ("choosing", "searching", "training"),
    "Shipping": ("using", "deploy", "tickets", "ticket-format"),
    "Many tasks": ("tasks",),
    "Methods": ("methods", "recipes", "global", "supermasks", "instruments", "from-other-tools"),
    "Several devices": ("distributed",),
    "Results": ("gallery", "results", "performance"),
    "Reference": ("reference/index", "architecture", "contributing", "changelog"),
}

# Pages that stand elsewhere in the repository, and their names in the site.
ELSEWHERE = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}

# Pages with other names in the site, where Sphinx has a page of this name.
RENAMED = {"search.md": "searching.md"}

# Folders that the site holds as they are.
FOLDERS = ("reader",)

_LINK = re.compile(r"\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^()\s:#]+)(#[^()\s]*)?\)")


def list_sources() -> dict[str, Path]:
    """Returns the files of the pages by their names in the site."""
    sources = {RENAMED.get(page.name, page.name): page for page in sorted((ROOT / "docs").glob("*.md"))}
    return sources | {name: ROOT / path for path, name in ELSEWHERE.items()}


def list_examples() -> list[Path]:
    """Returns the scripts in examples/, each of which gets a page."""
    return sorted((ROOT / "examples").glob("*.py"))


def check_order() -> None:
    """Checks that every page has exactly one place in the order.

    Raises:
        ValueError: if a page has no place or several, or if a place has no page.
    """
    places = [name for names in ORDER.values() for name in names if not name.startswith("reference/")]
    expected = sorted(name.removesuffix(".md") for name in list_sources())
    if sorted(places) != expected:
        raise ValueError(
            f"Every page needs one place in ORDER of {Path(__file__).name}. Received: {sorted(places)}; "
            f"expected: {expected}. Add the page, or remove the place."
        )


def rewrite_links(text: str, folder: Path) -> str:
    """Returns a page whose links to files of the repository lead to pages of the site, or else to the repository.

    Args:
        text: a page in Markdown.
        folder: the folder that its links start from.

    What does not exist stays as it is: either it is code, or the build ends with an error.
    """

    def rewrite(match: re.Match[str]) -> str:
        words, target, anchor = match[1], match[2], match[3] or ""
        path = (folder / target).resolve()
        if not path.exists() or not path.is_relative_to(ROOT):
            return match[0]
        name = path.relative_to(ROOT).as_posix()
        inside = name.removeprefix("docs/")
        if inside.split("/")[0] in FOLDERS:  # not made by Sphinx, which would take it for a download
            return f'<a href="{inside}{anchor}">{words}</a>'
        if inside in RENAMED:
            inside = RENAMED[inside]
        elif name in ELSEWHERE:
            inside = ELSEWHERE[name]
        elif name == "examples":
            inside = "gallery.md"
        elif path in list_examples():
            inside = f"examples/{path.stem}.md"
        elif path.parent != ROOT / "docs" and not inside.startswith("img/"):
            return f"[{words}]({REPOSITORY}/{'tree' if path.is_dir() else 'blob'}/main/{name}{anchor})"
        return f"[{words}]({inside}{anchor})"

    return _LINK.sub(rewrite, text)


def format_order() -> str:
    """Returns the table of contents, as a directive for the end of the first page."""
    text = ""
    for caption, names in ORDER.items():
        lines = ["What it is <self>" if name == "index" else name for name in names]
        heading = f":caption: {caption}\n" if caption else ""
        text += f"\n```{{toctree}}\n:hidden:\n{heading}\n" + "\n".join(lines) + "\n```\n"
    return text


def write_pages(folder: Path) -> None:
    """Writes the pages, those of the examples, the pictures, and what the site holds as it is, into a folder."""
    check_order()
    for name, source in list_sources().items():
        text = rewrite_links(source.read_text(encoding="utf-8"), source.parent)
        text += format_order() if name == "index.md" else ""
        (folder / name).write_text(text, encoding="utf-8")
    write_examples(folder / "examples")
    shutil.copytree(ROOT / "docs" / "img", folder / "img")
    for name in FOLDERS:
        shutil.copytree(ROOT / "docs" / name, folder / "extra" / name)
        for page in (folder / "extra" / name).rglob("*.html"):
            text = re.sub(r'(href="\.\./[\w-]+)\.md\b', r"\1.html", page.read_text(encoding="utf-8"))
            page.write_text(text, encoding="utf-8")


def write_examples(folder: Path) -> None:
    """Writes a page for each example: its name, and its source."""
    folder.mkdir()
    for path in list_examples():
        text = f"---\norphan: true\n---\n\n# {path.name}\n\n"
        text += f"In the repository: [examples/{path.name}]({REPOSITORY}/blob/main/examples/{path.name}).\n\n"
        text += f"```python\n{path.read_text(encoding='utf-8')}```\n"
        (folder / f"{path.stem}.md").write_text(text, encoding="utf-8")
