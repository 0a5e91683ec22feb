"""The model that a command is given."""

import pytest
from record_folders import make_run, make_search, small_model

from keras_popup.cli.models import find_model_file
from keras_popup.records import DamagedError


def test_find_model_file_checks_what_is_in_folders(tmp_path):
    model = small_model()
    run, search = make_run(tmp_path / "r", model, 2, finished=True), make_search(tmp_path / "s", model)
    for folder, name in ((run, "model"), (search, "best")):
        for suffix in (".keras", ".ticket"):
            file = folder.path / f"{name}{suffix}"
            assert find_model_file(str(folder.path), (suffix,)) == str(file)
            file.write_bytes(b"another")
            with pytest.raises(DamagedError, match=f"{name}{suffix}' is damaged: its checksum differs"):
                find_model_file(str(folder.path), (suffix,))
            assert find_model_file(str(file)) == str(file)  # which nothing tells of
