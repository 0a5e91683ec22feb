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
    """Returns the lines of a docstring in reStructuredText.

    Examples stay as they are. So do formulas, which are indented after an empty line and outside of a section.
    """
    result: list[str] = []
    paragraph: list[str] = []
    in_section = in_example = False
    for line in [*lines, ""]:
        if line and not line.startswith(" ") and not paragraph:
            in_section = False
        if line.strip() and not (in_example or line.strip().startswith(">>> ")):
            paragraph.append(line)
            continue
        if paragraph:
            is_formula = paragraph[0].startswith("    ") and not in_section
            in_section = in_section or any(line.startswith(" ") for line in paragraph[1:])
            result += ["::", "", *paragraph] if is_formula else to_rst("\n".join(paragraph)).split("\n")
            paragraph = []
        in_example = bool(line.strip())
        result.append(line)
    return result[:-1]
