"""The command line as a whole: help, errors, and that it does not wait for TensorFlow."""

import os
import re
import subprocess
import sys

import pytest
from command_line import run

from keras_popup import __version__


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",), ("help",)])
def test_main_shows_help(capsys, arguments):
    status, out, _ = run(capsys, *arguments)
    assert status == 0
    assert "keras-popup train" in out


def test_main_shows_the_version(capsys):
    assert run(capsys, "--version") == (0, f"keras-popup {__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("trian",), "Unknown command 'trian'"),
        (("train",), "--out is required"),
        (("train", "--out", "x", "--kk", "3"), "Unknown command line flag 'kk'"),
        (("train", "--out", "x", "--k", "half"), "k"),
        (("train", "--out", "x", "--k", "1.5"), "must be a number in (0, 1]. Received: k=1.5"),
        (("train", "--out", "x", "--layer_k", "conv"), "`layer_k` must be such as 'conv*=0.3;dense*=0.5'"),
        (("train", "--out", "x", "--layer_k", "=0.5"), "`layer_k` must be such as"),
        (("train", "--out", "x", "--layer_k", "a=x"), "`layer_k` must be such as"),
        (("train", "--out", "x", "--layer_k", "a=0.5;a=0.6"), "`layer_k` must be such as"),
        (("train", "--out", "x", "--layer_k", "a=0"), "Layers 'a': `k`, the fraction of weights kept, must be"),
        (("train", "--out", "x", "--layer_k", "a=1.5"), "Received: k=1.5"),
        (("train", "--out", "x", "--model", "conv5"), "conv5"),
        (
            ("train", "--out", "x", "--method", "finetune"),
            "--method finetune and --from go together",
        ),
        (
            ("train", "--out", "x", "--method", "finetune", "--from", "y"),
            "--from must be the folder of a finished run or search",
        ),
        (("ticket", "pack", "a.keras", "--out", "x.txt"), "MODEL must be"),
        (("train", "--out", "x", "--data_dir", "nowhere"), "--data_dir must be a directory that exists"),
        (
            ("search", "--out", "x", "--width", "1,2", "--data_dir", "nowhere"),
            "--data_dir must be a directory that exists",
        ),
        (("train", "--out", "x", "conv4"), "Unexpected arguments ['conv4']"),
        (("train", "--out", "x", "--epochs", "0"), "`epochs` must be from 1 to 1,000,000"),
        (("ticket", "pak"), "Unknown command 'ticket pak'. Expected: pack, unpack, info, verify"),
        (("ticket", "pack"), "MODEL is missing. See keras-popup ticket pack --help"),
        (("ticket", "info"), "TICKET is missing"),
        (("ticket", "pack", "nowhere"), "MODEL must be the folder of a finished run or search, or a .keras file"),
        (("ticket", "info", "nowhere"), "There is no ticket at 'nowhere'"),
        (("evaluate",), "MODEL is missing"),
        (("evaluate", "nowhere"), "MODEL must be the folder of a finished run or search, or a .keras or .ticket file"),
        (("predict", "nowhere"), "IMAGE is missing"),
        (("predict", "nowhere", "x.png"), "MODEL must be"),
        (("ticket", "verify", "x.ticket", "--max_bytes", "-1"), "max_bytes"),
    ],
)
def test_main_refuses_wrong_arguments(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    status, out, err = run(capsys, *arguments)
    assert status == 2
    assert message in err
    assert not out
    assert not list(tmp_path.iterdir())


COMMAND = os.path.join(os.path.dirname(sys.executable), "keras-popup")


@pytest.mark.parametrize("program", [[COMMAND], [sys.executable, "-m", "keras_popup"]], ids=["keras-popup", "-m"])
@pytest.mark.parametrize("arguments", [["--version"], ["train", "--help"], ["train", "--k", "2", "--out", "x"]])
def test_main_answers_without_tensorflow(program, arguments, tmp_path):
    environment = {**os.environ, "PYTHONPROFILEIMPORTTIME": "1"}
    result = subprocess.run([*program, *arguments], capture_output=True, text=True, env=environment, cwd=tmp_path)
    imported = set(re.findall(r"\| +([a-z_]+)$", result.stderr, re.MULTILINE))
    assert result.returncode == (2 if "2" in arguments else 0), result.stderr[-1000:]
    assert "keras_popup" in imported
    assert not {"tensorflow", "keras"} & imported
