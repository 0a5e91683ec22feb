"""The command `search`."""

import sys

import pytest

from keras_popup import cli, search
from keras_popup.search import Range


@pytest.mark.integration
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--k", "0:0.5"), "must be a number in (0, 1]. Received: k=0.0"),
        (("--k", "0.9:0.1"), "`k`: A range goes from the smaller to the larger number. Received: 0.9:0.1"),
        (("--k", "some"), "`k`: Expected numbers"),
        (("--k", "0.5"), "There is nothing to search"),
        (("--width", "0:1"), "`width` must be a positive number"),
        (("--k", "0.1:0.9", "--budget", "10 apples"), "`budget` must be bytes, such as 100kB"),
        (("--k", "0.3", "--budget", "10kB"), "With a budget, k follows from the width"),
        (("--k", "0.1:0.9", "--layer_k", "conv*=0.1:0.9;dense"), "`layer_k` must be such as"),
        (("--k", "0.1:0.9", "--tuner", "luck"), "tuner"),
    ],
)
def test_search_refuses_bad_flags(capsys, tmp_path, flags, message):
    assert cli.main(["search", "--model", "fc", *flags, "--out", str(tmp_path / "s")]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.integration
@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("--selector", "top_k,bernoulli"), {"selector": ("top_k", "bernoulli"), "width": (0.1, 0.2)}),
        (("--selector", "bernoulli"), {"width": (0.1, 0.2)}),
        (("--kernel_initializer", "signed_constant"), {"width": (0.1, 0.2)}),
        (("--l2", "1e-5:1e-3:log"), {"l2": Range(1e-5, 1e-3, "log"), "width": (0.1, 0.2)}),
    ],
)
def test_search_reads_flags_of_what_is_searched(monkeypatch, flags, expected):
    taken = []
    monkeypatch.setattr(search, "search", lambda config, *_, **__: taken.append(config) or sys.exit(0))
    with pytest.raises(SystemExit):
        cli.main(["search", "--model", "fc", "--width", "0.1,0.2", *flags, "--out", "s"])
    assert taken[0].space == expected
    assert taken[0].run.selector == ("bernoulli" if flags[1] == "bernoulli" else None)
