"""Files are written completely or not at all."""

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
