"""Checks that a tag, the package, the changelog and the citation name one version: .ci/check_release.py v0.2.0

The release workflow runs it before it builds anything.
"""

import argparse
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def find_faults(tag: str, package: str, changelog: str, citation: str) -> list[str]:
    """Returns what stands in the way of a release, as sentences.

    Args:
        tag: the name of the tag, such as "v0.2.0".
        package: the text of keras_popup/__init__.py.
        changelog: the text of CHANGELOG.md.
        citation: the text of CITATION.cff.
    """
    if not re.fullmatch(r"v\d+\.\d+\.\d+((a|b|rc)\d+)?", tag):
        return [f"A tag of a release is v and a version, such as v0.2.0. Received: {tag!r}."]
    version = tag[1:]
    faults = []
    own = _find(r'^__version__ = "([^"]*)"$', package)
    if own != version:
        faults.append(f"keras_popup/__init__.py has __version__ = {own!r}, the tag says {version!r}. Make them equal.")
    heading = _find(r"^## (.*)$", changelog)
    dated = re.fullmatch(rf"\[{re.escape(version)}\] - (\d{{4}}-\d\d-\d\d)", heading or "")
    if not dated:
        faults.append(
            f"The first section of CHANGELOG.md must be '## [{version}] - YYYY-MM-DD'. "
            f"Received: '## {heading}'. Date it."
        )
    cited = _find(r"^version: (.*)$", citation)
    if cited != version:
        faults.append(f"CITATION.cff has the version {cited!r}, the tag says {version!r}. Make them equal.")
    released = _find(r"^date-released: (.*)$", citation)
    if dated and released != dated[1]:
        faults.append(
            f"CITATION.cff must have the date of CHANGELOG.md, 'date-released: {dated[1]}'. Received: {released!r}."
        )
    return faults


def _find(pattern: str, text: str) -> str | None:
    match = re.search(pattern, text, re.MULTILINE)
    return match and match[1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tag")
    names = ("keras_popup/__init__.py", "CHANGELOG.md", "CITATION.cff")
    texts = [(ROOT / name).read_text(encoding="utf-8") for name in names]
    faults = find_faults(parser.parse_args().tag, *texts)
    print("\n".join(faults), end="\n" if faults else "", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
