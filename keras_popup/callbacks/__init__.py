"""Callbacks for training: schedules of k, statistics of masks, and what changes between steps."""

from keras_popup.callbacks.redraws import IterativeRandomization, Recycle
from keras_popup.callbacks.schedules import SCHEDULES, Cubic, Geometric, KSchedule, Linear, Schedule
from keras_popup.callbacks.statistics import MaskStatistics
from keras_popup.callbacks.swaps import RestrictSwaps

__all__ = [
    "SCHEDULES",
    "Cubic",
    "Geometric",
    "IterativeRandomization",
    "KSchedule",
    "Linear",
    "MaskStatistics",
    "Recycle",
    "RestrictSwaps",
    "Schedule",
]
