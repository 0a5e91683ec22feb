"""The oldest and newest versions that setup.cfg admits are those that CI tests."""

import configparser
import json
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


def test_pythons_are_tested():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    named = re.findall(r"Python :: (3\.\d+)", setup["metadata"]["classifiers"])
    assert setup["options"]["python_requires"] == f">={named[0]}"
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    assert f"python: {json.dumps(named)}" in workflow
    oldest, newest = re.findall(r'versions: (?:oldest|newest)\n +python: "(.*)"', workflow)
    assert (oldest, newest) == (named[0], named[-1])
