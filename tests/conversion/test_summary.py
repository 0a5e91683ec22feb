"""What a summary counts."""

from supermasks import trained

import keras_popup


def test_mask_summary_counts_what_supermasks_keep():
    model = keras_popup.mask_model(keras_popup.models.FullyConnected(), selector="bernoulli", seed=1)
    assert not any(layer.scores.numpy().any() for layer in model.layers if hasattr(layer, "scores"))
    model, _ = trained()
    summary = keras_popup.mask_summary(model, print_fn=len)
    assert [row.kept for row in summary.layers] == [int((layer.scores.numpy() >= 0).sum()) for layer in model.layers]
    assert summary.other_weights == 0
