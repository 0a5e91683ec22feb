"""The check of a release: one version everywhere, or sentences that say where it is another."""

import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / ".ci"))

import check_release

ROOT = Path(__file__).parents[2]
PACKAGE = '__version__ = "0.2.0"\n'
CHANGELOG = "# Changelog\n\n## [0.2.0] - 2026-12-01\n\n## [0.1.0] - 2026-01-01\n"
CITATION = "cff-version: 1.2.0\nversion: 0.2.0\ndate-released: 2026-12-01\n"


def test_find_faults_finds_none():
    assert check_release.find_faults("v0.2.0", PACKAGE, CHANGELOG, CITATION) == []


@pytest.mark.parametrize(
    ("tag", "change", "expected"),
    [
        ("0.2.0", {}, "A tag of a release is v and a version, such as v0.2.0. Received: '0.2.0'."),
        ("v0.2.1", {}, "has __version__ = '0.2.0', the tag says '0.2.1'. Make them equal."),
        ("v0.2.0", {"changelog": "## [Unreleased]\n" + CHANGELOG}, "Received: '## [Unreleased]'. Date it."),
        ("v0.2.0", {"changelog": ""}, "must be '## [0.2.0] - YYYY-MM-DD'. Received: '## None'. Date it."),
        ("v0.2.0", {"citation": CITATION.replace("0.2.0", "0.1.0")}, "has the version '0.1.0', the tag says '0.2.0'."),
        (
            "v0.2.0",
            {"citation": CITATION.replace("-12-", "-11-")},
            "'date-released: 2026-12-01'. Received: '2026-11-01'.",
        ),
    ],
)
def test_find_faults(tag, change, expected):
    texts = {"package": PACKAGE, "changelog": CHANGELOG, "citation": CITATION} | change
    assert any(expected in fault for fault in check_release.find_faults(tag, **texts))


def test_citation_has_the_version_of_the_package():
    version = re.search(r'__version__ = "(.*)"', (ROOT / "keras_popup" / "__init__.py").read_text())[1]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
