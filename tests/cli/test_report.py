"""The command `report`."""

from record_folders import make_run, make_search, small_model

from keras_popup import cli


def test_report_needs_a_folder_of_records(capsys, tmp_path):
    assert cli.main(["report", str(tmp_path)]) == 2
    assert "FOLDER must be the folder of a run or a search" in capsys.readouterr().err


def test_report_of_a_run_and_of_a_search(capsys, tmp_path):
    model = small_model()
    folders = [make_run(tmp_path / "run", model, 2), make_search(tmp_path / "search", model)]
    for folder in folders:
        assert cli.main(["report", str(folder.path)]) == 0
        assert capsys.readouterr().out == f"{folder.report}\n"
        assert folder.report.read_text().startswith("<!DOCTYPE html>")
        assert cli.main(["report", str(folder.path)]) == 2
        assert "exists. Choose another file, or pass --overwrite" in capsys.readouterr().err
