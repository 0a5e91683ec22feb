"""The command `ticket`."""

import os

import numpy as np
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


def test_ticket_packs_folded_norms(capsys, tmp_path, monkeypatch):
    import keras_popup

    monkeypatch.chdir(tmp_path)
    plain = keras_popup.models.ResNet8((8, 8, 3), classes=3, width=0.25)
    model = keras_popup.mask_model(plain, train_norms=True, seed=1)
    for layer in model.layers:
        if hasattr(layer, "moving_mean"):
            layer.set_weights([np.random.default_rng(1).uniform(0.5, 1, value.shape) for value in layer.get_weights()])
    model.save("a.keras")
    sizes = []
    for flags in ((), ("--fold_norms", "--overwrite")):
        assert run(capsys, "ticket", "pack", "a.keras", *flags)[0] == 0
        sizes.append((tmp_path / "a.ticket").stat().st_size)
    assert sizes[1] < sizes[0]
    x = np.ones((2, 8, 8, 3), np.float32)
    np.testing.assert_allclose(keras_popup.load_ticket("a.ticket")(x), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.integration
def test_ticket_packs_several_tasks_over_one_base(capsys, tmp_path, monkeypatch):
    import keras
    import numpy as np

    from keras_popup import TaskMasks, strip_masks

    monkeypatch.chdir(tmp_path)
    flags = ["--model", "fc", "--width", "0.2", "--epochs", "1"]
    assert run(capsys, "train", *flags, "--method", "dense", "--out", "base")[0] == 0
    for name, k in (("one", "0.5"), ("two", "0.2")):
        flags = ["--base", "base", "--new_head", "--k", k, "--epochs", "1", "--out", name]
        assert run(capsys, "train", *flags)[0] == 0
    base = ["--base", "base/model.keras"]
    assert run(capsys, "ticket", "pack", "two", *base)[0] == 0
    # Of a folder with a ticket, of a file, and with a name of its own.
    packed = run(capsys, "ticket", "pack", "first=one/model.keras", "two", *base, "--out", "all.tickets")
    assert packed[0] == 0, packed
    assert "Pack of 2 tasks" in packed[1]
    assert "Base: fc, not in the file" in packed[1]
    rows = [line.split() for line in packed[1].splitlines()[3:5]]
    assert [row[0] for row in rows] == ["first", "two"]
    assert rows[1][5].endswith("%")  # the accuracy of the run
    status, out, err = run(capsys, "ticket", "info", "all.tickets")
    assert (status, out) == (0, packed[1].partition(" Written: all.tickets\n")[0]), err
    status, out, err = run(capsys, "ticket", "verify", "all.tickets", *base)
    assert status == 0, err
    assert "Verified" in out
    status, out, err = run(capsys, "ticket", "unpack", "all.tickets", "--task", "two", *base)
    assert status == 0, err
    expected = strip_masks(keras.models.load_model("two/model.keras"))
    x = np.ones((3, 8, 8, 1), "float32")
    np.testing.assert_array_equal(keras.models.load_model("all_two.keras")(x), expected(x))
    np.testing.assert_array_equal(TaskMasks.load("all.tickets", "base/model.keras")["two"](x), expected(x))
    status, out, err = run(capsys, "ticket", "pack", "two", *base, "--include_base", "--out", "whole.tickets")
    assert status == 0, err
    assert "Base: fc, in the file" in out
    assert run(capsys, "ticket", "verify", "whole.tickets")[0] == 0
    for arguments, message, code in [
        (("verify", "all.tickets"), "'all.tickets' does not hold its base, 'fc'. Pass that model: --base FILE", 2),
        (("unpack", "all.tickets", "--task", "two", "--overwrite"), "does not hold its base, 'fc'", 2),
        (("unpack", "all.tickets", *base), "--task is missing. Tasks: first, two.", 2),
        (("unpack", "two/model.ticket", "--task", "two"), "--task is for a file with several tasks", 2),
        (("unpack", "all.tickets", "--task", "six", *base), "no task 'six' in 'all.tickets'. Tasks: first, two.", 2),
        (("unpack", "all.tickets", "--task", "two", "--masked", *base), "--masked is for .ticket files", 2),
        (("pack", "one", "two"), "go into one file with --base FILE --out FILE.tickets", 2),
        (("pack", "one", "--include_base"), "go into one file with --base FILE --out FILE.tickets", 2),
        (("pack", "one", "--out", "a.tickets"), "--base is required for .tickets", 2),
        (("pack", "a=one", "a=two", *base, "--out", "a.tickets"), "Two tasks have the name 'a'", 2),
        (("pack", "one", *base, "--notes", "n", "--out", "a.tickets"), "--notes is for one ticket", 2),
        (("pack", "one", *base, "--out", "all.tickets"), "'all.tickets' exists", 2),
        (("pack", "six", *base, "--out", "a.tickets"), "MODEL must be the folder of a finished run", 2),
    ]:
        status, _, err = run(capsys, "ticket", *arguments)
        assert status == code, err
        assert message in err
    assert not os.path.exists("a.tickets")
    status, _, err = run(capsys, "evaluate", "all.tickets")
    assert status == 2
    assert "Write one of them as a model first: keras-popup ticket unpack all.tickets --task NAME" in err
