"""What a ticket says of itself."""

import re

import numpy as np

from keras_popup import mask_model, models, save_ticket


def test_ticket_info_says_what_is_in_a_ticket(tmp_path):
    model = mask_model(models.Conv2(width=0.1, input_shape=(8, 8, 3)), k={"conv1a": 0.3, "*": 0.5}, seed=1)
    path = tmp_path / "conv2.ticket"
    info = save_ticket(model, path, dataset="digits", metrics={"accuracy": np.float64(0.8765)}, notes={"by": ["me"]})
    assert info.made["dataset"] == "digits"
    assert info.made["notes"] == {"by": ["me"]}
    assert set(info.made["versions"]) >= {"keras-popup", "keras", "tensorflow", "numpy", "constriction"}
    text = str(info)
    row = info.layers[0]
    assert re.search(rf"conv1a +MaskedConv2D +{row.weights} +{row.kept} +0\.3 +{row.seed} ", text)
    assert f"File: {path.stat().st_size:,} bytes" in text
    assert "Metrics: accuracy 0.8765" in text
    assert info.weights == sum(row.weights for row in info.layers)
    assert f"{info.mask_bytes / info.limit_bytes:.1%}" in text
