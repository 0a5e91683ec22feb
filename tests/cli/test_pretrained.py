"""The command `pretrained`, and names of networks where a command takes a model."""

from pathlib import Path

from command_line import run

BOOT = Path(__file__).parent.parent.parent / "examples" / "images" / "boot.png"


def test_pretrained_lists_the_networks(capsys):
    status, out, _ = run(capsys, "pretrained")
    assert status == 0
    assert "digits/fc" in out
    assert "33,687 bytes" in out


def test_pretrained_prints_a_card(capsys):
    status, out, _ = run(capsys, "pretrained", "fashion_mnist/fc")
    assert status == 0
    for text in ("89.07%", "MIT", "keras-popup train --model fc", "keras-popup ticket pack"):
        assert text in out


def test_pretrained_refuses_other_names(capsys):
    status, _, err = run(capsys, "pretrained", "mnist")
    assert status == 2
    assert "NAME must be one of cifar10/conv4, " in err


def test_predict_takes_the_name_of_a_network(capsys):
    status, out, _ = run(capsys, "predict", "fashion_mnist/fc", str(BOOT))
    assert status == 0
    assert "boot.png: Ankle boot " in out


def test_predict_names_what_it_takes(capsys):
    status, _, err = run(capsys, "predict", "mnist/fc", str(BOOT))
    assert status == 2
    assert "or one of `keras-popup pretrained`" in err


def test_export_writes_nothing_into_the_package(capsys):
    status, _, err = run(capsys, "export", "digits/fc", "--format", "litert")
    assert status == 2
    assert "--out is required for 'digits/fc', a network inside the package" in err
