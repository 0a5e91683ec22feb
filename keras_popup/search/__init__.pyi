from .config import SEARCHED as SEARCHED
from .config import SearchConfig as SearchConfig
from .config import layer_k_name as layer_k_name
from .engine import search as search
from .hypermodel import PopupHyperModel as PopupHyperModel
from .progress import format_trial as format_trial
from .ranges import Range as Range
from .ranges import parse_values as parse_values
from .report import write_report as write_report
from .workers import ChildProcess as ChildProcess

__all__ = ["PopupHyperModel", "Range", "SearchConfig", "search", "write_report"]
