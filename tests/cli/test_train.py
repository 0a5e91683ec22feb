"""The command `train`."""

import functools
import json
import os
import re
import signal
from pathlib import Path

import pytest
from command_line import run

from keras_popup import RunConfig, cli


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_train_names_every_argument_in_its_help(capsys, flag):
    status, out, _ = run(capsys, "train", flag)
    assert status == 0
    names = ["from" if name == "from_run" else name for name in RunConfig.__dataclass_fields__]
    for name in (*names, "layer_k", "out", "resume", "overwrite"):
        assert f"--{name}\n" in out
    groups = re.findall(r"^ (\w+)$", out, re.MULTILINE)
    assert groups == ["required", "what", "data", "training", "devices", "output"]
    assert out.index("--out\n") < out.index("--model\n")
    assert "examples:" in out


def test_train_prints_the_summary(capsys, tmp_path):
    out = str(tmp_path / "run")
    flags = ["--model", "conv2", "--width", "0.1", "--epochs", "2", "--learning_rate", "0.5", "--nodeterministic"]
    status, printed, _ = run(capsys, "train", *flags, "--out", out)
    assert status == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert f"test accuracy  {summary['test']['accuracy']:.2%}" in printed
    assert f"weights kept   {summary['kept']:,} of {summary['weights']:,} (50.0%)" in printed
    assert str(tmp_path / "run" / "curves.png") in printed
    assert re.search(
        r"^time  .*: TensorFlow .* s, data .* s, network .* s, first step .* s, training .* s", printed, re.M
    )
    assert f"keras-popup report {out} " in printed
    assert summary["config"]["deterministic"] is False
    status, _, err = run(capsys, "train", *flags, "--out", out)
    assert status == 1
    assert "Use --resume to go on with it" in err


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ((), [("", 0.5)]),
        (("--k", "0.3"), [("", 0.3)]),
        (("--layer_k", "conv*=0.3; dense1 = 0.2"), [("conv*", 0.3), ("dense1", 0.2), ("*", 0.5)]),
        (("--k", "0.4", "--layer_k", "conv*=0.3"), [("conv*", 0.3), ("*", 0.4)]),
        (("--k", "0.4", "--layer_k", "conv*=0.3;*=0.2"), [("conv*", 0.3), ("*", 0.2)]),
    ],
)
def test_train_takes_fractions_of_layers(monkeypatch, flags, expected):
    def train(config, out, **options):
        assert list((config.k if isinstance(config.k, dict) else {"": config.k}).items()) == expected
        raise KeyboardInterrupt

    monkeypatch.setattr("keras_popup.training.train", train)
    assert cli.main(["train", "--out", "x", *flags]) == 130


@pytest.mark.parametrize(
    ("number", "word", "expected"), [(signal.SIGINT, "interrupted", 130), (signal.SIGTERM, "terminated", 143)]
)
def test_train_stopped_says_how_to_go_on(number, word, expected, capsys, tmp_path, monkeypatch, request):
    def interrupt(*args, **kwargs):
        os.kill(os.getpid(), number)

    monkeypatch.setattr("keras_popup.training.train", interrupt)
    request.addfinalizer(functools.partial(signal.signal, signal.SIGINT, signal.getsignal(signal.SIGINT)))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background processes ignore it
    before = signal.getsignal(signal.SIGTERM)
    status, _, err = run(capsys, "train", "--out", str(tmp_path / "run"))
    assert status == expected
    assert f"{word}. The same command with --resume goes on after the last epoch" in err
    assert signal.getsignal(signal.SIGTERM) is before
    # While another command computes, too.
    monkeypatch.setattr("keras_popup.cli.summary.load_model", interrupt)
    (tmp_path / "model.keras").write_text("")
    status, _, err = run(capsys, "summary", str(tmp_path / "model.keras"))
    assert (status, err.splitlines()[-1]) == (expected, f"keras-popup: {word}.")


@pytest.mark.integration
def test_train_learns_a_task_on_a_base(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = ["--model", "fc", "--width", "0.2", "--epochs", "1"]
    assert run(capsys, "train", *flags, "--method", "dense", "--out", "base")[0] == 0
    status, out, err = run(capsys, "train", "--base", "base", "--new_head", "--epochs", "1", "--out", "task")
    assert status == 0, err
    assert "weights kept" in out
    config = json.loads(Path("task/config.json").read_text())["config"]
    assert (config["model"], config["base"], config["new_head"], config["optimizer"]) == ("base", "base", True, "adam")
    status, out, err = run(capsys, "ticket", "pack", "task")
    assert status == 0, err
    assert "--base base/model.keras leaves out what the base has" in out
    status, out, err = run(capsys, "ticket", "pack", "task", "--base", "base/model.keras", "--overwrite")
    assert status == 0, err
    assert "Needs the base: fc" in out
    for flags, message in [
        (("--base", "nowhere"), "--base must be a .keras file, or the folder of a finished run. Received: 'nowhere'"),
        (("--base", "base", "--model", "fc"), "Leave `model` out, or give 'base'"),
        (("--new_head",), "`new_head` must be false without a base"),
    ]:
        status, _, err = run(capsys, "train", *flags, "--out", "no")
        assert status == 2
        assert message in err
        assert not os.path.exists("no")


@pytest.mark.integration
def test_train_finetunes_with_the_arguments_of_the_run(capsys, trained_run, tmp_path):
    flags = ["--method", "finetune", "--from", str(trained_run), "--epochs", "1", "--out", str(tmp_path / "tuned")]
    status, out, err = run(capsys, "train", *flags)
    assert status == 0, err
    assert "weights kept" in out
    config = json.loads((tmp_path / "tuned" / "config.json").read_text())["config"]
    assert (config["model"], config["width"], config["dataset"], config["l2"]) == ("fc", 0.2, "digits", 0.0)
