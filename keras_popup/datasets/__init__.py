"""Loads image classification datasets, by name or from a folder, with their preprocessing."""

from keras_popup.datasets.dataset import AUGMENTATIONS, Dataset, load
from keras_popup.datasets.parts import Part as Part
from keras_popup.datasets.sources import read_image as read_image

__all__ = ["AUGMENTATIONS", "Dataset", "load"]
