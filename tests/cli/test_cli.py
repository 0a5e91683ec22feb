"""The command line, and what `import keras_popup` costs."""

import json
import os
import re
import subprocess
import sys

import pytest

from keras_popup import RunConfig, __version__, cli


def run(capsys, *arguments):
    status = cli.main(arguments)
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",), ("help",)])
def test_help(capsys, arguments):
    status, out, _ = run(capsys, *arguments)
    assert status == 0
    assert "keras-popup train" in out


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_of_train_names_every_argument(capsys, flag):
    status, out, _ = run(capsys, "train", flag)
    assert status == 0
    for name in (*RunConfig.__dataclass_fields__, "layer_k", "out", "resume", "overwrite"):
        assert f"--{name}\n" in out
    assert "examples:" in out


def test_version(capsys):
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
        (("train", "--out", "x", "conv4"), "Unexpected arguments ['conv4']"),
        (("train", "--out", "x", "--epochs", "0"), "`epochs` must be 1 or more"),
        (("ticket", "pak"), "Unknown command 'ticket pak'. Expected: pack, unpack, info, verify"),
        (("ticket", "pack"), "MODEL is missing. See keras-popup ticket pack --help"),
        (("ticket", "info"), "TICKET is missing"),
        (("ticket", "pack", "nowhere"), "MODEL must be a finished run's folder or a .keras file"),
        (("ticket", "unpack", "x.ticket", "--out", "x.h5"), "--out must end in .keras. Received: 'x.h5'"),
        (("ticket", "verify", "x.ticket", "--max_bytes", "-1"), "max_bytes"),
    ],
)
def test_wrong_arguments(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    status, out, err = run(capsys, *arguments)
    assert status == 2
    assert message in err
    assert not out
    assert not list(tmp_path.iterdir())


def test_train(capsys, tmp_path):
    out = str(tmp_path / "run")
    flags = ["--model", "conv2", "--width", "0.1", "--epochs", "2", "--learning_rate", "0.5", "--nodeterministic"]
    status, printed, _ = run(capsys, "train", *flags, "--out", out)
    assert status == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert f"test accuracy  {summary['test']['accuracy']:.2%}" in printed
    assert f"weights kept   {summary['kept']:,} of {summary['weights']:,} (50.0%)" in printed
    assert str(tmp_path / "run" / "curves.png") in printed
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
def test_fractions_of_layers(monkeypatch, flags, expected):
    def train(config, out, **options):
        assert list((config.k if isinstance(config.k, dict) else {"": config.k}).items()) == expected
        raise KeyboardInterrupt

    monkeypatch.setattr("keras_popup.training.train", train)
    assert cli.main(["train", "--out", "x", *flags]) == 130


@pytest.mark.parametrize("arguments", [(), ("--help",), ("pack", "--help"), ("unpack", "-h"), ("info", "--help")])
def test_help_of_ticket(capsys, arguments):
    status, out, _ = run(capsys, "ticket", *arguments)
    assert status == 0
    assert "keras-popup ticket unpack TICKET" in out
    assert ("--masked\n" in out) == ("unpack" in arguments)


def test_ticket(capsys, tmp_path, monkeypatch):
    import keras
    import numpy as np

    from keras_popup import strip_masks

    monkeypatch.chdir(tmp_path)
    flags = ["--model", "fc", "--width", "0.2", "--epochs", "1", "--nodeterministic"]
    assert run(capsys, "train", *flags, "--out", "run")[0] == 0
    trained = (tmp_path / "run" / "model.keras").read_bytes()
    status, out, _ = run(capsys, "ticket", "pack", "run", "--notes", "mine")
    assert status == 0
    assert "Dataset: digits" in out
    assert "Metrics: " in out
    assert "accuracy" in out
    assert "Notes: mine" in out
    for command in ("info", "verify"):
        status, printed, _ = run(capsys, "ticket", command, "run/model.ticket")
        assert status == 0
        assert printed.splitlines()[0] == "Ticket of model: fc"
    assert "Verified" in printed
    for _ in range(2):
        status, _, err = run(capsys, "ticket", "unpack", "run/model.ticket")
    assert status == 2
    assert (tmp_path / "run" / "model_plain.keras").exists()
    assert "exists. Use --out for another file" in err
    assert (tmp_path / "run" / "model.keras").read_bytes() == trained
    for flag in ((), ("--masked",)):
        status, out, _ = run(
            capsys, "ticket", "unpack", "run/model.ticket", "--out", "plain.keras", "--overwrite", *flag
        )
        assert status == 0
        assert f"{(tmp_path / 'plain.keras').stat().st_size:,} bytes" in out
        expected = keras.models.load_model("run/model.keras")
        plain = keras.models.load_model("plain.keras")
        x = np.ones((2, *expected.input_shape[1:]), np.float32)
        np.testing.assert_array_equal(plain(x), (expected if flag else strip_masks(expected))(x))
    (tmp_path / "run" / "model.ticket").write_bytes(b"nothing")
    status, _, err = run(capsys, "ticket", "verify", "run/model.ticket")
    assert status == 1
    assert err.startswith("keras-popup: Ticket 'run/model.ticket' cannot be used: not a ticket: wrong magic bytes")


def python(code, **environment):
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, env={**environment, "PATH": ""}, timeout=120)


COMMAND = os.path.join(os.path.dirname(sys.executable), "keras-popup")


@pytest.mark.parametrize("program", [[COMMAND], [sys.executable, "-m", "keras_popup"]], ids=["keras-popup", "-m"])
@pytest.mark.parametrize("arguments", [["--version"], ["train", "--help"], ["train", "--k", "2", "--out", "x"]])
def test_commands_answer_without_tensorflow(program, arguments, tmp_path):
    environment = {**os.environ, "PYTHONPROFILEIMPORTTIME": "1"}
    result = subprocess.run([*program, *arguments], capture_output=True, text=True, env=environment, cwd=tmp_path)
    imported = set(re.findall(r"\| +([a-z_]+)$", result.stderr, re.MULTILINE))
    assert result.returncode == (2 if "2" in arguments else 0), result.stderr[-1000:]
    assert "keras_popup" in imported
    assert not {"tensorflow", "keras"} & imported


@pytest.mark.parametrize(
    "imports",
    [
        "import keras, keras_popup",
        "import keras_popup, keras",
        "import keras_popup.selectors, keras",
        "from keras_popup import RunConfig; import keras",
        "import keras_popup.records; import keras",
    ],
)
def test_load_model_finds_the_layers_whatever_is_imported_first(imports):
    code = f"{imports}\nassert 'keras_popup>MaskedDense' in keras.saving.get_custom_objects()\n"
    code += "assert keras.Model(*2 * [keras.Input((2,))]).name == 'functional', 'an automatic name was used up'"
    result = python(code)
    assert result.returncode == 0, result.stderr


def test_another_backend_in_the_environment_is_refused():
    result = python("import keras_popup.layers", KERAS_BACKEND="jax")
    assert result.stderr.strip().endswith("Set it to tensorflow, or unset it, before importing keras.")


def test_interrupted(capsys, tmp_path, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("keras_popup.training.train", interrupt)
    status, _, err = run(capsys, "train", "--out", str(tmp_path / "run"))
    assert status == 130
    assert "--resume goes on after the last epoch" in err


def test_another_backend_is_refused():
    # Another backend need not be installed: Keras is told that it is in use.
    code = (
        "import keras; keras.backend.backend = lambda: 'jax'\n"
        "try:\n    import keras_popup.layers\nexcept ImportError as error:\n    print(error)"
    )
    result = python(code)
    assert "needs Keras's TensorFlow backend. Received: 'jax'" in result.stdout
    assert "KERAS_BACKEND=tensorflow" in result.stdout


def test_unknown_public_name():
    import keras_popup

    with pytest.raises(AttributeError, match="masks"):
        keras_popup.masks  # noqa: B018
    for name in keras_popup.__all__:
        assert getattr(keras_popup, name) is not None
