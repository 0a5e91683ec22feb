"""The oldest versions that setup.cfg admits are those that CI tests."""

import configparser
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def versions(lines, operator):
    """Returns the version that follows the operator, by name; fails for a line of another form."""
    lines = [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]
    found = [re.fullmatch(rf"([\w.-]+){operator}([\d.]+)", line) for line in lines]
    assert all(found), lines
    return dict(match.groups() for match in found)


def test_oldest_versions_are_tested():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    admitted = versions(setup["options"]["install_requires"].splitlines(), ">=")
    tested = versions((ROOT / ".github" / "oldest.txt").read_text(encoding="utf-8").splitlines(), "==")
    assert "keras" in admitted
    assert {name: tested.get(name) for name in admitted} == admitted
