"""What a search shows beside its records."""

import shutil

import pytest

from keras_popup import cli

pytestmark = pytest.mark.integration


def test_views_make_up_for_what_a_kill_prevented(failing, tmp_path):
    folder, flags = tmp_path / "s", [*failing[1][:-1], str(tmp_path / "s")]
    shutil.copytree(failing[0], folder)
    table = (folder / "trials.csv").read_text()
    (folder / "trials.csv").unlink()
    shutil.rmtree(folder / "tensorboard")
    (folder / "tensorboard" / ".unfinished-0001-0").mkdir(parents=True)
    assert cli.main(["search", *flags, "--resume"]) == 0
    assert (folder / "trials.csv").read_text() == table
    assert {path.name for path in (folder / "tensorboard").iterdir()} == {"0001-0", "0001-1", "0003-0", "0003-1"}
