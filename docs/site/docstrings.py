"""Docstrings for Sphinx: the Markdown of this package's docstrings as reStructuredText."""

import re

# Code between backticks, else a link, which may go over lines.
_SPAN = re.compile(r"(`+)(.+?)\1|\[([^\[\]]+)\]\((https?://[^()\s]+)\)", re.DOTALL)


def escape(text: str) -> str:
    """Returns plain text without characters that mean something in reStructuredText."""
    return re.sub(r"([\\*|]|(?<=\w)_(?!\w))", r"\\\1", text)


def to_rst(text: str) -> str:
    """Returns a paragraph in Markdown, with code and links, as reStructuredText."""
    result, end = "", 0
    for match in _SPAN.finditer(text):
        result += escape(text[end : match.start()])
        end = match.end()
        if match[2] is not None:
            result += f"``{match[2]}``"
        else:
            result += f"`{' '.join(match[3].split())} <{match[4]}>`__"
        if text[end : end + 1].isalnum():  # a plural, say
            result += "\\ "
    return result + escape(text[end:])


def convert(lines: list[str]) -> list[str]:
    """Returns the lines of a docstring in reStructuredText. Examples stay as they are."""
    result: list[str] = []
    paragraph: list[str] = []
    in_example = False
    for line in [*lines, ""]:
        in_example = line.strip().startswith(">>> ") or (in_example and bool(line.strip()))
        if line.strip() and not in_example:
            paragraph.append(line)
            continue
        if paragraph:
            result += to_rst("\n".join(paragraph)).split("\n")
            paragraph = []
        result.append(line)
    return result[:-1]
