"""A run that takes seconds, and its history."""

import csv

from keras_popup.training import RunConfig

SMALL = RunConfig(model="conv2", width=0.1, epochs=3, batch_size=64, learning_rate=0.5)


def history(folder):
    return list(csv.DictReader((folder / "history.csv").read_text().splitlines()))
