"""The best trial, trained again."""

import shutil

import pytest
from searches import BUDGETED

from keras_popup import records, search

pytestmark = pytest.mark.integration


def test_refit_that_fails_keeps_the_winner_and_is_tried_again(budgeted, tmp_path):
    folder = shutil.copytree(budgeted[0], tmp_path / "c")
    in_the_way = folder / "refit" / f"{budgeted[1].trial:04d}" / "0" / "mine.txt"
    in_the_way.parent.mkdir(parents=True)
    in_the_way.write_text("mine")
    with pytest.raises(RuntimeError, match="Training the winner again has failed: .*--resume --refit tries again"):
        search.search(BUDGETED, folder, resume=True, refit=True)
    assert records.SearchFolder(folder).best() == budgeted[1]
    in_the_way.unlink()
    best = search.search(BUDGETED, folder, resume=True, refit=True)
    assert (best.trial, best.score) == (budgeted[1].trial, budgeted[1].score)
    assert best.test == best.refit["test"]
