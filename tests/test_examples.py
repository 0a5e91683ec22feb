"""Every example, in a short form, and every example in a docstring or a page."""

import doctest
import importlib
import json
import re
import runpy
import sys
from pathlib import Path

import pytest
from builders import PopupTestPhotos

ROOT = Path(__file__).parents[1]
EXAMPLES = {
    "digits_from_scratch.py": (["--epochs", "4"], 0.8),
    "convert_and_train.py": (["--dataset", "popup_test_photos", "--epochs", "3"], 0.0),
    "new_task.py": (["--dataset", "digits", "--epochs", "4"], 0.7),
    "share_a_ticket.py": (["--epochs", "4"], 0.7),
    "tune.py": (["--trials", "2", "--epochs", "3"], 0.5),
    "custom_training_loop.py": (["--steps", "100"], 0.7),
    "text_classifier.py": (["--epochs", "2"], 0.6),
}


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what KerasHub imports
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # it leaves vocabularies open
@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.name)
def test_example(path, monkeypatch, tmp_path, capsys):
    arguments, at_least = EXAMPLES[path.name]
    if "popup_test_photos" in arguments:
        PopupTestPhotos(data_dir=tmp_path).download_and_prepare()
        arguments = [*arguments, "--data_dir", str(tmp_path)]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [path.name, *arguments])
    accuracy = runpy.run_path(str(path))["main"]()
    assert accuracy >= at_least
    assert f"test accuracy {accuracy:.2%}" in capsys.readouterr().out
    assert len(path.read_text().splitlines()) < 110


@pytest.mark.integration
@pytest.mark.parametrize(
    ("path", "arguments"),
    [
        ("selection.py", "--sizes 5000 --ks 0.5 --inputs fools_the_sample --runs 2"),
        ("deploy.py", "--models fc --runs 2"),
        ("dead_channels.py", "--models fc --epochs 1 --runs 2"),
        ("train_step.py", "--models fc --precisions mixed_bfloat16 --batch_size 8 --runs 2"),
        ("train_step.py", "--method supermask --models fc --precisions float32 --batch_size 8 --runs 2"),
        ("instruments.py", "--models fc --steps 3 --runs 4"),
        ("devices.py", "--devices CPU:0 --models fc --batch_size 8 --scores 5000 --runs 2"),
    ],
)
def test_benchmark(path, arguments, monkeypatch, tmp_path, capsys):
    results = tmp_path / "results.json"
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    monkeypatch.setattr(sys, "argv", [path, *arguments.split(), "--json", str(results)])
    runpy.run_path(str(ROOT / "benchmarks" / path))["main"]()
    rows = json.loads(results.read_text())["rows"]
    assert len(rows) == len(capsys.readouterr().out.splitlines()) - 1
    assert all(row["ratio"] > 0 for row in rows)


PACKAGE = ROOT / "keras_popup"
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in sorted(PACKAGE.rglob("*.py"))
    if ">>> " in path.read_text()
]


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name):
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert result.failed == 0


def test_docstring_examples_are_all_found():
    finder = doctest.DocTestFinder()
    examples = sum(len(test.examples) for name in MODULES for test in finder.find(importlib.import_module(name)))
    assert examples == sum(path.read_text().count("    >>> ") for path in PACKAGE.rglob("*.py")) > 80


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_of_pages_run(page, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    exec("\n".join(blocks), {"__name__": page.stem})
    assert blocks or page.name != "README.md"


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_links_of_pages_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    missing = [link for link in links if not (page.parent / link).exists()]
    assert not missing
