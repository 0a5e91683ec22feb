"""Selectors choose the weights of a kernel that are kept, from their scores."""

from keras_popup.selectors.base import Selector
from keras_popup.selectors.bernoulli import Bernoulli
from keras_popup.selectors.block import Block
from keras_popup.selectors.counts import check_k as check_k
from keras_popup.selectors.counts import check_kept as check_kept
from keras_popup.selectors.counts import count_kept as count_kept
from keras_popup.selectors.counts import entropy_bits as entropy_bits
from keras_popup.selectors.global_top_k import GlobalTopK
from keras_popup.selectors.matrices import find_layout as find_layout
from keras_popup.selectors.multicoat import MultiCoat
from keras_popup.selectors.n_m import NM
from keras_popup.selectors.programs import without_compiling as without_compiling
from keras_popup.selectors.registry import deserialize, get, serialize
from keras_popup.selectors.signed import Signed
from keras_popup.selectors.top_k import TopK

__all__ = [
    "NM",
    "Bernoulli",
    "Block",
    "GlobalTopK",
    "MultiCoat",
    "Selector",
    "Signed",
    "TopK",
    "deserialize",
    "get",
    "serialize",
]
