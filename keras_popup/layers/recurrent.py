"""Recurrent layers: their cells are masked in place."""

import keras

from keras_popup import _keras
from keras_popup.layers.maskable import define_maskable
from keras_popup.layers.masked_kernel import KernelSpec

_KERNELS = (KernelSpec("kernel", "", "kernel"), KernelSpec("recurrent_kernel", "", "recurrent"))

for _cell in (keras.layers.SimpleRNNCell, keras.layers.LSTMCell, keras.layers.GRUCell, _keras.ConvLSTMCell):
    define_maskable(_cell, _KERNELS)
