"""Loads image classification datasets, by name or from a folder, with their preprocessing."""

from keras_popup.datasets.dataset import AUGMENTATIONS, Dataset, load

__all__ = ["AUGMENTATIONS", "Dataset", "load"]
