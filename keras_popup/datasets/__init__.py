"""Datasets: a name or a folder to splits with their preprocessing."""

from keras_popup.datasets.dataset import AUGMENTATIONS, Dataset, load

__all__ = ["AUGMENTATIONS", "Dataset", "load"]
