"""Files are written completely or not at all."""

import errno

import pytest

from keras_popup import _files


def test_write_atomically_leaves_the_old_file_when_interrupted(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")

    def fail(unfinished):
        unfinished.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        _files.write_atomically(path, fail)
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]
    assert path.read_text() == "old"


def test_write_atomically_does_not_begin_what_does_not_fit(tmp_path, monkeypatch):
    path = tmp_path / "file.txt"
    monkeypatch.setattr(_files, "_find_space", lambda folder: 1000.0)
    _files.write_atomically(path, lambda unfinished: unfinished.write_text("old"), 1000)
    message = r"not enough space to write '.*file\.txt'. About 1,001 bytes are needed, and 1,000.* can be written there"
    with pytest.raises(OSError, match=message) as caught:
        _files.write_atomically(path, lambda unfinished: pytest.fail("it began"), 1001)
    assert caught.value.errno == errno.ENOSPC
    assert path.read_text() == "old"


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        OSError("Can't synchronously write data (file write failed: errno = 28, error message = '...')"),
        RuntimeError("Can't decrement id ref count (file write failed: errno = 27, error message = '...')"),
    ],
)
def test_write_atomically_says_that_the_disk_is_full(error, tmp_path):
    def fail(unfinished):
        unfinished.write_text("half")
        raise error

    with pytest.raises(OSError, match="not enough space to write") as caught:
        _files.write_atomically(tmp_path / "file.txt", fail)
    assert caught.value.errno == errno.ENOSPC
    assert not list(tmp_path.iterdir())


def test_find_space_is_that_of_the_disk_and_of_the_limit(tmp_path):
    resource = pytest.importorskip("resource")
    assert _files._find_space(tmp_path) > 1e6
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000_000, hard))
    try:
        assert _files._find_space(tmp_path) == 5_000_000
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
