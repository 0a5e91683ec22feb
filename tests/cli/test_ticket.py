"""The command `ticket`."""

import pytest
from command_line import run


@pytest.mark.parametrize("arguments", [(), ("--help",), ("pack", "--help"), ("unpack", "-h"), ("info", "--help")])
def test_ticket_shows_help(capsys, arguments):
    status, out, _ = run(capsys, "ticket", *arguments)
    assert status == 0
    assert "keras-popup ticket unpack TICKET" in out
    assert ("--masked\n" in out) == ("unpack" in arguments)


def test_ticket_packs_and_unpacks(capsys, tmp_path, monkeypatch):
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
    assert run(capsys, "ticket", "verify", "run") == (0, printed, "")
    for _ in range(2):
        status, _, err = run(capsys, "ticket", "unpack", "run/model.ticket")
    assert status == 2
    assert (tmp_path / "run" / "model_plain.keras").exists()
    assert "exists. Choose another file, or pass --overwrite." in err
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
    (tmp_path / "run" / "model.ticket").rename("only.ticket")
    of_model, of_ticket = (run(capsys, "summary", model)[1].splitlines() for model in ("run", "only.ticket"))
    assert [line.split() for line in of_ticket] == [line.split() for line in of_model]
    status, out, _ = run(capsys, "export", "only.ticket", "--format", "tf_saved_model", "--out", "saved")
    assert status == 0
    assert "tf_saved_model" in out
    status, _, err = run(capsys, "ticket", "info", "run")
    assert status == 2
    assert "Write it with keras-popup ticket pack run" in err
    status, _, err = run(capsys, "ticket", "pack", "only.ticket")
    assert status == 2
    assert "the folder of a finished run or search, or a .keras file. Received: 'only.ticket'" in err
    (tmp_path / "run" / "model.ticket").write_bytes(b"nothing")
    status, _, err = run(capsys, "ticket", "verify", "run/model.ticket")
    assert status == 1
    assert err.startswith("keras-popup: Ticket 'run/model.ticket' cannot be used: not a ticket: wrong magic bytes")
