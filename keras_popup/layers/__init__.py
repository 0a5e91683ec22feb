"""Masked layers: Keras layers whose kernels are frozen, and masked by a selector."""

from typing import Any

from keras_popup.layers import recurrent as recurrent  # registers the cells
from keras_popup.layers.composite import MaskedComposite as MaskedComposite
from keras_popup.layers.composite import forget as forget
from keras_popup.layers.composite import mask_layer as mask_layer
from keras_popup.layers.composite import remember_parts as remember_parts
from keras_popup.layers.composite import settle as settle
from keras_popup.layers.composite import walk_masked as walk_masked
from keras_popup.layers.constructed import kernel_seed as kernel_seed
from keras_popup.layers.convolutional import (
    MaskedConv1D,
    MaskedConv1DTranspose,
    MaskedConv2D,
    MaskedConv2DTranspose,
    MaskedConv3D,
    MaskedConv3DTranspose,
    MaskedDepthwiseConv1D,
    MaskedDepthwiseConv2D,
    MaskedSeparableConv1D,
    MaskedSeparableConv2D,
)
from keras_popup.layers.core import MaskedDense, MaskedEinsumDense, MaskedEmbedding, MaskedReversibleEmbedding
from keras_popup.layers.frozen_weights import NORMS as NORMS
from keras_popup.layers.frozen_weights import drop as drop
from keras_popup.layers.frozen_weights import freeze_layer as freeze_layer
from keras_popup.layers.frozen_weights import freeze_weights as freeze_weights
from keras_popup.layers.frozen_weights import take_back as take_back
from keras_popup.layers.in_place import strip_layer as strip_layer
from keras_popup.layers.in_place import train_kernels as train_kernels
from keras_popup.layers.kernel_groups import KernelGroup as KernelGroup
from keras_popup.layers.kernel_groups import begin_anew as begin_anew
from keras_popup.layers.kernel_groups import pick_one_of_each as pick_one_of_each
from keras_popup.layers.maskable import is_constructed as is_constructed
from keras_popup.layers.maskable import kernels_of as kernels_of
from keras_popup.layers.maskable import maskable_base as maskable_base
from keras_popup.layers.maskable import overridden as overridden
from keras_popup.layers.maskable import register_maskable
from keras_popup.layers.masked_kernel import KernelArguments as KernelArguments
from keras_popup.layers.masked_kernel import MaskedKernel
from keras_popup.layers.masked_layer import MaskArguments as MaskArguments
from keras_popup.layers.masked_layer import MaskedLayer, stock_class
from keras_popup.layers.masked_layer import stock_of as stock_of
from keras_popup.layers.tree import get_parts as get_parts
from keras_popup.layers.tree import hide_compilation as hide_compilation
from keras_popup.layers.tree import is_bookkeeping as is_bookkeeping
from keras_popup.layers.tree import is_graph as is_graph
from keras_popup.layers.tree import own_weights as own_weights
from keras_popup.layers.tree import pair_layers as pair_layers
from keras_popup.layers.tree import put_part as put_part
from keras_popup.layers.tree import walk as walk
from keras_popup.layers.tree import walk_parts as walk_parts

_CONSTRUCTED: tuple[Any, ...] = (
    MaskedDense,
    MaskedEinsumDense,
    MaskedConv1D,
    MaskedConv2D,
    MaskedConv3D,
    MaskedDepthwiseConv1D,
    MaskedDepthwiseConv2D,
    MaskedSeparableConv1D,
    MaskedSeparableConv2D,
    MaskedConv1DTranspose,
    MaskedConv2DTranspose,
    MaskedConv3DTranspose,
    MaskedEmbedding,
    MaskedReversibleEmbedding,
)

MASKED_LAYERS = {stock_class(kind): kind for kind in _CONSTRUCTED}
"""The masked layer class of each Keras layer class, for those that can be constructed by hand."""

__all__ = [
    "MASKED_LAYERS",
    "MaskedConv1D",
    "MaskedConv1DTranspose",
    "MaskedConv2D",
    "MaskedConv2DTranspose",
    "MaskedConv3D",
    "MaskedConv3DTranspose",
    "MaskedDense",
    "MaskedDepthwiseConv1D",
    "MaskedDepthwiseConv2D",
    "MaskedEinsumDense",
    "MaskedEmbedding",
    "MaskedKernel",
    "MaskedLayer",
    "MaskedReversibleEmbedding",
    "MaskedSeparableConv1D",
    "MaskedSeparableConv2D",
    "register_maskable",
]
