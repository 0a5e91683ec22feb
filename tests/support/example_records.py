"""A record of every kind that a search writes."""

import dataclasses

from keras_popup.records import (
    BaselineRecord,
    BestRecord,
    Execution,
    Heartbeat,
    LayerRecord,
    StartedRecord,
    TrialRecord,
    TrialResult,
)

EXECUTION = Execution(
    seed=1,
    k=0.3,
    width=0.5,
    weights=100,
    kept=30,
    layers=(LayerRecord(name="dense1", weights=60, kept=18, k=0.3, seed=7), LayerRecord(name="b", weights=40, kept=40)),
    predicted_bytes=None,
    ticket_bytes=120,
    train={"loss": 1.0, "accuracy": 0.5},
    validation={"loss": 1.5, "accuracy": 0.25},
    test=None,
    seconds=1.5,
    history=[{"epoch": 1, "loss": 1.0}],
    config={"model": "fc", "k": {"dense*": 0.3, "*": 0.5}},
)
RESULT = TrialResult(executions=(EXECUTION,), peak_memory_mb=300)
TRIAL = TrialRecord(
    trial=3,
    status="completed",
    hyperparameters={"k": 0.3, "width": 0.5},
    until=None,
    score=0.25,
    folder="trials/0003",
    started="2026-01-01T00:00:00+00:00",
    seconds=2.5,
    **RESULT.common(),
)
OWN = {field.name: getattr(TRIAL, field.name) for field in dataclasses.fields(TRIAL)}
RECORDS = [
    TRIAL,
    dataclasses.replace(TRIAL, same_as=1),
    TrialRecord(**{**OWN, "score": None, "status": "failed", "executions": (), "error": "it failed"}),
    BestRecord(**OWN, execution=0, test={"accuracy": 0.2}, refit={"ticket_bytes": 9}),
    BaselineRecord(width=0.5, score=0.25, **RESULT.common()),
    StartedRecord(trial=3, after=2, values={"k": 0.3, "tuner/epochs": 2}),
    StartedRecord(trial=4, after=2, values={"k": 0.3}, length_scale=0.1),
    Heartbeat(epoch=1, epochs=3, execution=0, host="here", pid=7, batch=4),
    EXECUTION,
]
