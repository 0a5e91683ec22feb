from .config import OF_MASKS as OF_MASKS
from .config import PLACES as PLACES
from .config import ResolvedRunConfig as ResolvedRunConfig
from .config import RunConfig as RunConfig
from .config import at_least as at_least
from .config import check_options as check_options
from .config import defaults as defaults
from .config import option as option
from .config import read_arguments as read_arguments
from .experiment import build_model as build_model
from .experiment import describe_origin as describe_origin
from .experiment import load_data as load_data
from .protocols import PROTOCOLS as PROTOCOLS
from .recorder import DivergenceError as DivergenceError
from .run import place as place
from .run import train as train

__all__ = ["PROTOCOLS", "DivergenceError", "RunConfig", "train"]
