"""What a summary counts."""

import sys

from supermasks import trained

import keras_popup


def test_mask_summary_counts_what_supermasks_keep():
    model = keras_popup.mask_model(keras_popup.models.FullyConnected(), selector="bernoulli", seed=1)
    assert not any(layer.scores.numpy().any() for layer in model.layers if hasattr(layer, "scores"))
    model, _ = trained()
    summary = keras_popup.mask_summary(model, print_fn=len)
    assert [row.kept for row in summary.layers] == [int((layer.scores.numpy() >= 0).sum()) for layer in model.layers]
    assert summary.other_weights == 0


def test_mask_summary_has_a_row_for_each_kernel_or_block(capsys):
    model = keras_popup.mask_model(keras_popup.models.ResNet50((32, 32, 3), width=0.1), seed=1)
    summary = keras_popup.mask_summary(model)
    printed = capsys.readouterr().out
    assert printed == f"{summary}\n" == f"{summary.format()}\n"
    masked = [row for row in summary.layers if not row.not_masked]
    rows = [line for line in printed.splitlines() if line.startswith("  ") and "kernels" in line]
    assert 5 < len(rows) < 40 < len(masked)
    assert "BatchNormalization" not in printed
    assert "Not masked: 53 layers" in printed
    keras_popup.mask_summary(model, show_all=True)
    everything = capsys.readouterr().out
    assert all(row.path in everything for row in summary.layers)
    assert everything.count("BatchNormalization") == 53
    assert repr(summary) == f"<MaskSummary of 'resnet50': {summary.kept:,} of {summary.weights:,} weights kept>"


def test_mask_summary_is_shown_once_in_a_notebook(capsys, monkeypatch):
    class Shell:
        execution_count = 3

    class IPython:
        get_ipython = staticmethod(Shell)

    monkeypatch.setitem(sys.modules, "IPython", IPython)
    model = keras_popup.mask_model(keras_popup.models.FullyConnected((8, 8, 1)), seed=1)
    summary = keras_popup.mask_summary(model)
    assert "Masked model: fc" in capsys.readouterr().out
    assert summary._repr_html_() == ""
    monkeypatch.setattr(Shell, "execution_count", 4)
    assert summary._repr_html_().startswith("<pre>Masked model: fc\n")
    assert keras_popup.mask_summary(model, print_fn=len)._repr_html_().startswith("<pre>")
