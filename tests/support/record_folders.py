"""Folders of runs and searches, with all their files, made without training."""

import dataclasses
import json
import shutil

import keras
import numpy as np
from example_records import EXECUTION, RESULT, TRIAL
from searches import BUDGETED

from keras_popup import mask_model
from keras_popup.records import BaselineRecord, BestRecord, RunFolder, SearchFolder
from keras_popup.search.proposals import Proposals
from keras_popup.training import RunConfig

CONFIG = RunConfig(model="fc", epochs=9).with_protocol().to_json()
VERSIONS = {"keras_popup": "0.1.0"}
SPACE = dict(BUDGETED.space)


def small_model():
    """A compiled masked model whose optimizer is built."""
    stack = [keras.Input((6,)), keras.layers.Dense(4, name="dense1"), keras.layers.Dense(3, name="classes")]
    model = mask_model(keras.Sequential(stack), k=0.5, seed=1)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    model.optimizer.build(model.trainable_variables)
    return model


def values_of(model):
    return [np.array(variable) for variable in (*model.variables, *model.optimizer.variables)]


def after(model, epoch):
    """Gives a model the values of an epoch."""
    rng = np.random.default_rng(epoch)
    for variable in (*model.trainable_variables, *model.optimizer.variables):
        if "float" in str(variable.dtype):
            variable.assign(rng.normal(size=variable.shape))
    return model


def same(values, others):
    return all(map(np.array_equal, values, others))


def history_of(epochs):
    return [{"epoch": epoch, "loss": 1 / (epoch + 2), "accuracy": 0.1 * epoch} for epoch in range(1, epochs + 1)]


def make_run(path, model, epochs, *, finished=False, config=CONFIG):
    """A run folder after some epochs, for which `after` gives the values."""
    folder = RunFolder(path)
    folder.start(config, VERSIONS, overwrite=False)
    for epoch in range(1, epochs + 1):
        folder.save_checkpoint(after(model, epoch), history_of(epoch), float(epoch))
    if finished:
        model.save(folder.model)
        folder.ticket.write_bytes(b"a ticket")
        folder.finish(summary_of(epochs, config))
    return folder


def summary_of(epochs, config=CONFIG):
    layers = [layer.to_json() for layer in EXECUTION.layers]
    return {
        "train": EXECUTION.train,
        "validation": EXECUTION.validation,
        "test": {"accuracy": 0.5},
        "weights": 100,
        "kept": 30,
        "layers": layers,
        "epochs": epochs,
        "seconds": 1.5,
        "images_per_second": 9.5,
        "data": {"name": "digits", "train": 100, "validation": 10, "test": 20},
        "config": config,
        "versions": VERSIONS,
        "ticket_bytes": 8,
    }


def make_search(path, model):
    """A search folder of three trials, a baseline and a winner. The runs of all trials are there."""
    folder = SearchFolder(path)
    folder.start(BUDGETED.arguments(), VERSIONS, overwrite=False)
    proposals = Proposals(BUDGETED, SPACE)
    trials = []
    while (proposal := proposals.propose()) is not None:
        number = proposal.number
        folder.append(proposals.record(proposal, len(trials)))
        make_run(folder.trial(number) / "0", model, 2, finished=True, config={**CONFIG, "seed": number})
        own = {"trial": number, "hyperparameters": proposal.values, "folder": f"trials/{number:04d}"}
        trials.append(dataclasses.replace(TRIAL, **own, score=0.25 + number / 10))
        folder.append(trials[-1])
        proposals.tell(number, trials[-1].score, None)
    folder.append(BaselineRecord(width=0.5, score=0.25, **RESULT.common()))
    run = RunFolder(folder.trial(trials[-1].trial) / "0")
    shutil.copyfile(run.model, folder.path / "best.keras")
    shutil.copyfile(run.ticket, folder.path / "best.ticket")
    own = {field.name: getattr(trials[-1], field.name) for field in dataclasses.fields(trials[-1])}
    folder.write_best(BestRecord(**own, execution=0))
    folder.write_table("trials.csv", [{"trial": each.trial, "score": each.score} for each in trials])
    return folder


def make_older(folder):
    """Takes out of the files of a run or search what earlier versions did not write."""
    for path in folder.rglob("*.json*"):
        lines = path.suffix == ".jsonl"
        entries = (
            [json.loads(line) for line in path.read_text().splitlines()] if lines else [json.loads(path.read_text())]
        )
        for entry in entries:
            for name in ("id", "checksum", "files", *(["weights"] if path.name.startswith("checkpoint") else [])):
                entry.pop(name, None)
        path.write_text("".join(json.dumps(entry, indent=None if lines else 2) + "\n" for entry in entries))
    for path in folder.rglob("checkpoint-before.json"):
        path.unlink()
