"""Records: what the folders of runs and searches hold, and pictures of it."""

from keras_popup.records.curves import draw_learning_curves as draw_learning_curves
from keras_popup.records.folder import History as History
from keras_popup.records.run_folder import RunFolder
from keras_popup.records.search_folder import ALIVE as ALIVE
from keras_popup.records.search_folder import SearchFolder
from keras_popup.records.search_folder import best_trial as best_trial

__all__ = ["RunFolder", "SearchFolder"]
