"""Checksums in JSON, and what is said of files that cannot be read."""

import errno
import json
import pickle
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies

from keras_popup.records import DamagedError, checksums

VALUES = strategies.recursive(
    strategies.none() | strategies.booleans() | strategies.integers() | strategies.floats() | strategies.text(),
    lambda inner: strategies.lists(inner) | strategies.dictionaries(strategies.text(), inner),
    max_leaves=10,
)
OBJECTS = strategies.dictionaries(strategies.text().filter(lambda name: name != checksums.KEY), VALUES)

SETTINGS = hypothesis.settings(
    max_examples=20, deadline=None, derandomize=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)


def written(content, **options):
    return json.loads(json.dumps(content, **options))


@SETTINGS
@hypothesis.given(OBJECTS)
def test_is_sealed_after_writing_and_reading(content):
    sealed = checksums.seal(content, "a.json")
    assert list(sealed)[-1] == checksums.KEY
    assert checksums.is_sealed(written(sealed, indent=2), "a.json")
    assert not checksums.is_sealed(written(sealed), "b.json")
    assert not checksums.is_sealed(content, "a.json")


@SETTINGS
@hypothesis.given(OBJECTS, OBJECTS)
def test_is_sealed_finds_every_change(content, other):
    sealed, others = checksums.seal(content, "a"), checksums.seal(other, "a")
    same = json.dumps(content) == json.dumps(other)  # 1 and 1.0 are equal, and NaN is not equal to itself
    assert checksums.is_sealed({**others, checksums.KEY: sealed[checksums.KEY]}, "a") == same


def test_is_sealed_knows_the_order():
    k = {"conv*": 0.3, "*": 0.5}
    sealed = checksums.seal({"k": k}, "a")
    assert not checksums.is_sealed({**sealed, "k": dict(reversed(k.items()))}, "a")


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        (b"", "is damaged: it is empty"),
        (b" \n", "is damaged: it is empty"),
        (b'{"a": 1', "is damaged: it is not JSON (Expecting ',' delimiter: line 1 column 8 (char 7))"),
        (b"\xff\xfe", "is damaged: it is not JSON ("),
        (b"[" * 100_000, "is damaged: it is not JSON ("),
        (b"9" * 5000, "is damaged: it is not JSON ("),
        (b"[]", "is damaged: it is not a JSON object"),
        (b"null", "is damaged: it is not a JSON object"),
    ],
)
def test_read_object_says_what_is_wrong(content, wrong, tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(DamagedError) as caught:
        checksums.read_object(path, "Do this.")
    assert str(caught.value).startswith(f"'{path}' {wrong}")
    assert str(caught.value).endswith(". Do this.")


@pytest.mark.parametrize(
    ("error", "wrong"),
    [
        (FileNotFoundError(errno.ENOENT, "No such file"), "is missing"),
        (IsADirectoryError(errno.EISDIR, "Is a directory"), "is a folder, where a file is expected"),
        (PermissionError(errno.EACCES, "Permission denied"), "cannot be read: you have no permission"),
        (OSError(errno.EIO, "Input/output error"), "cannot be read: Input/output error"),
    ],
)
def test_files_that_cannot_be_opened_are_damaged(error, wrong, tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr(Path, "read_bytes", fail)
    monkeypatch.setattr("builtins.open", fail)
    for read in (checksums.read_object, checksums.hash_file):
        with pytest.raises(DamagedError) as caught:
            read(tmp_path / "a.json")
        assert caught.value.wrong == wrong


def test_damaged_error_goes_to_other_processes():
    error = DamagedError(Path("a.json"), "is missing", "Do this.")
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error) == "'a.json' is missing. Do this."
    assert again.path == error.path
