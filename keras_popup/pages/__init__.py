"""Pages about runs and searches: figures as SVG, and templates. Loads no TensorFlow."""

from keras_popup.pages.charts import Axis as Axis
from keras_popup.pages.charts import Chart as Chart
from keras_popup.pages.charts import Figure as Figure
from keras_popup.pages.charts import bars as bars
from keras_popup.pages.drawing import draw_map as draw_map
from keras_popup.pages.rendering import is_available as is_available
from keras_popup.pages.rendering import render as render
from keras_popup.pages.scales import Scale as Scale
from keras_popup.pages.scales import make_scale as make_scale
from keras_popup.pages.scales import percent_format as percent_format
from keras_popup.pages.table import Column as Column
from keras_popup.pages.table import Table as Table
from keras_popup.pages.words import describe_machine as describe_machine
from keras_popup.pages.words import format_bytes as format_bytes
from keras_popup.pages.words import format_duration as format_duration
from keras_popup.pages.words import format_time as format_time
from keras_popup.pages.words import standard_error as standard_error
