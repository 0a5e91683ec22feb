"""The commands `export` and `summary`."""

import json
import os

import pytest

from keras_popup.exports import api


@pytest.mark.integration
def test_export_and_summary_of_a_run(tmp_path, capsys, monkeypatch):
    from keras_popup import cli
    from keras_popup.cli.export import EXPORT_NAMES

    run = str(tmp_path / "run")
    assert (
        cli.main(["train", "--model", "fc", "--width", "0.1", "--dataset", "digits", "--epochs", "1", "--out", run])
        == 0
    )
    capsys.readouterr()
    assert cli.main(["export", run, "--format", "all"]) == 0
    out = capsys.readouterr().out
    assert "compared on 32 images of the run's test set" in out
    for name, file in EXPORT_NAMES.items():
        assert name in out
        assert os.path.exists(os.path.join(run, file))
    assert cli.main(["export", f"{run}/model.keras", "--format", "onnx", "--out", str(tmp_path / "my.onnx")]) == 0
    assert (tmp_path / "my.onnx").exists()
    assert cli.main(["export", f"{run}/model.keras", "--remove_dead", "--out", str(tmp_path / "my.tflite")]) == 0
    assert (tmp_path / "my.tflite").is_file()
    (tmp_path / "run" / "model.onnx").unlink()
    monkeypatch.setitem(api._NEEDS, "litert", ("no_such_runtime",))
    assert cli.main(["export", run, "--format", "litert,onnx"]) == 2
    assert "model.tflite' exists. Choose another file, or pass --overwrite." in capsys.readouterr().err
    assert not (tmp_path / "run" / "model.onnx").exists()  # all are checked before any is written
    assert cli.main(["export", run, "--format", "litert,onnx", "--overwrite"]) == 1
    assert "needs no_such_runtime" in capsys.readouterr().err
    assert (tmp_path / "run" / "model.onnx").exists()
    assert cli.main(["summary", run]) == 0
    kept = json.loads((tmp_path / "run" / "summary.json").read_text())["kept"]
    assert f"{kept:,} of" in capsys.readouterr().out
    for arguments, message in [
        (["export"], "MODEL is missing"),
        (["export", str(tmp_path)], "must be the folder of a finished run or search, or a .keras or .ticket file"),
        (["export", run, "--format", "tflite"], "--format must be one or more of"),
        (["export", run, "--format", "all", "--out", "x"], "--out is for one format"),
        (["summary", run, run], "Unexpected arguments"),
    ]:
        assert cli.main(arguments) == 2
        assert message in capsys.readouterr().err
    (tmp_path / "bad.keras").write_text("nothing")
    assert cli.main(["summary", str(tmp_path / "bad.keras")]) == 1
    assert "cannot be read as a Keras model" in capsys.readouterr().err
