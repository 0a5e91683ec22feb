"""Records: the folders of runs and searches, the objects in their files, and pictures of them."""

from keras_popup.records.checksums import DamagedError
from keras_popup.records.curves import draw_learning_curves as draw_learning_curves
from keras_popup.records.folder import History as History
from keras_popup.records.model_file import read_origin as read_origin
from keras_popup.records.model_file import write_origin as write_origin
from keras_popup.records.run_folder import RunFolder
from keras_popup.records.run_folder import find_model as find_model
from keras_popup.records.run_folder import measure_bytes as measure_bytes
from keras_popup.records.run_records import MaskRecord as MaskRecord
from keras_popup.records.run_records import MasksRecord as MasksRecord
from keras_popup.records.search_folder import ALIVE as ALIVE
from keras_popup.records.search_folder import SearchFolder
from keras_popup.records.trial_records import BaselineRecord as BaselineRecord
from keras_popup.records.trial_records import BestRecord as BestRecord
from keras_popup.records.trial_records import Execution as Execution
from keras_popup.records.trial_records import Heartbeat as Heartbeat
from keras_popup.records.trial_records import LayerRecord as LayerRecord
from keras_popup.records.trial_records import StartedRecord as StartedRecord
from keras_popup.records.trial_records import TrialRecord as TrialRecord
from keras_popup.records.trial_records import TrialResult as TrialResult
from keras_popup.records.trial_records import best_trial as best_trial

__all__ = ["DamagedError", "RunFolder", "SearchFolder"]
