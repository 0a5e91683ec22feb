"""Logs of a search for TensorBoard, with its HParams plug-in. Loads no TensorFlow."""

import shutil
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import api
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from keras_popup.records import TrialRecord


def write_logs(folder: Path, record: TrialRecord) -> None:
    """Writes the hyperparameters and history of a trial that has ended: a folder for each execution."""
    for number, execution in enumerate(record.executions):
        name = f"{record.trial:04d}-{number}"
        if (folder / name).exists():
            continue
        values = {**record.hyperparameters, "k": execution.k, "width": execution.width}
        unfinished = folder / f".unfinished-{name}"
        shutil.rmtree(unfinished, ignore_errors=True)
        writer = EventFileWriter(str(unfinished))
        writer.add_event(Event(summary=api.hparams_pb(values, trial_id=name)))
        for row in execution.history:
            scalars = [Summary.Value(tag=tag, simple_value=value) for tag, value in row.items() if tag != "epoch"]
            writer.add_event(Event(step=int(row["epoch"]), summary=Summary(value=scalars)))
        if execution.ticket_bytes:
            size = Summary.Value(tag="ticket_bytes", simple_value=execution.ticket_bytes)
            writer.add_event(Event(step=len(execution.history), summary=Summary(value=[size])))
        writer.close()
        unfinished.rename(folder / name)
