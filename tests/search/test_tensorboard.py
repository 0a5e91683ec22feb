"""Trials in TensorBoard."""

import pytest
from searches import lines
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

pytestmark = pytest.mark.integration


def test_write_logs_of_every_trial(failing):
    folder, _ = failing
    trial = lines(folder)[0]
    logged = EventAccumulator(str(folder / "tensorboard" / "0001-0"))
    logged.Reload()
    history = trial["executions"][0]["history"]
    for name in ("loss", "val_accuracy"):
        assert [event.value for event in logged.Scalars(name)] == pytest.approx([row[name] for row in history])
    metadata = logged.SummaryMetadata("_hparams_/session_start_info")
    assert metadata.plugin_data.plugin_name == "hparams"
    assert b"learning_rate" in metadata.plugin_data.content
