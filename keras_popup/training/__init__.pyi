from .config import OF_MASKS as OF_MASKS
from .config import PLACES as PLACES
from .config import RunConfig as RunConfig
from .config import check_options as check_options
from .config import defaults as defaults
from .config import given as given
from .config import layer_fractions as layer_fractions
from .config import option as option
from .experiment import build_model as build_model
from .experiment import load_data as load_data
from .protocols import PROTOCOLS as PROTOCOLS
from .recorder import DivergenceError as DivergenceError
from .run import place as place
from .run import train as train

__all__ = ["PROTOCOLS", "DivergenceError", "RunConfig", "train"]
