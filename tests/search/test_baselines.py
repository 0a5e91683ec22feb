"""Networks with learned weights, beside those of a search."""

import pytest
from searches import lines

pytestmark = pytest.mark.integration


def test_train_baselines_by_the_protocol_of_dense_networks(failing):
    folder, _ = failing
    (baseline,) = lines(folder, "baselines.jsonl")
    assert baseline["width"] == 0.2
    run = baseline["executions"][0]["config"]
    assert (run["method"], run["learning_rate"], run["epochs"]) == ("dense", 0.01, 3)
    assert baseline["executions"][0]["ticket_bytes"] is None
