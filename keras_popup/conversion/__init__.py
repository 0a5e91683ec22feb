"""Conversion of models: adds masks, summarizes them, and strips them."""

from keras_popup.conversion.comparison import compute_difference as compute_difference
from keras_popup.conversion.comparison import draw_inputs as draw_inputs
from keras_popup.conversion.comparison import uses_16_bits as uses_16_bits
from keras_popup.conversion.copying import copy_model as copy_model
from keras_popup.conversion.copying import find_different_arrays as find_different_arrays
from keras_popup.conversion.dead_channels import DeadChannels, DeadLayer
from keras_popup.conversion.finding import find_dead
from keras_popup.conversion.finetuning import finetune
from keras_popup.conversion.flops import Flops, KernelFlops, flops
from keras_popup.conversion.heads import gives_probabilities as gives_probabilities
from keras_popup.conversion.heads import replace_head
from keras_popup.conversion.inspection import find_in_code as find_in_code
from keras_popup.conversion.inspection import find_kernels as find_kernels
from keras_popup.conversion.inspection import masked_kernels as masked_kernels
from keras_popup.conversion.inspection import masked_layers
from keras_popup.conversion.mask_maps import average_channels as average_channels
from keras_popup.conversion.masking import mask_model
from keras_popup.conversion.masks import KernelOverlap, MaskComparison, compare_masks, set_k
from keras_popup.conversion.norms import fold_norms as fold_norms
from keras_popup.conversion.patterns import find_unmatched_kernels as find_unmatched_kernels
from keras_popup.conversion.preprocessing import find_preprocessing as find_preprocessing
from keras_popup.conversion.preprocessing import put_first as put_first
from keras_popup.conversion.removal import remove_dead as remove_dead
from keras_popup.conversion.stripping import strip_masks
from keras_popup.conversion.summary import mask_summary

__all__ = [
    "DeadChannels",
    "DeadLayer",
    "Flops",
    "KernelFlops",
    "KernelOverlap",
    "MaskComparison",
    "compare_masks",
    "find_dead",
    "finetune",
    "flops",
    "mask_model",
    "mask_summary",
    "masked_layers",
    "replace_head",
    "set_k",
    "strip_masks",
]
