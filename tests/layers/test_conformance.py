"""Keras's own tests of its layers, with masked layers in place of its layers: see support/keras_tests.py.

`make test-slow` runs a few, `make test-all` all but those that DIFFERENT names.
"""

import fnmatch

import pytest
from keras_tests import load_tests

pytestmark = pytest.mark.filterwarnings("default")

MODULES = (
    "attention.grouped_query_attention_test",
    "attention.multi_head_attention_test",
    "convolutional.conv_test",
    "convolutional.conv_transpose_test",
    "convolutional.depthwise_conv_test",
    "convolutional.separable_conv_test",
    "core.dense_test",
    "core.einsum_dense_test",
    "core.embedding_test",
    "core.reversible_embedding_test",
    "rnn.bidirectional_test",
    "rnn.conv_lstm1d_test",
    "rnn.conv_lstm2d_test",
    "rnn.conv_lstm3d_test",
    "rnn.gru_test",
    "rnn.lstm_test",
    "rnn.rnn_test",
    "rnn.simple_rnn_test",
    "rnn.stacked_rnn_cells_test",
    "rnn.time_distributed_test",
)

_GOES_ROUND = "quantization and LoRA would go round the mask: masked layers refuse them, and say to strip the masks"

# What differs by design, by patterns of Class.test.
DIFFERENT = {
    "*quantize*": _GOES_ROUND,
    "*quantizer*": _GOES_ROUND,
    "*lora*": _GOES_ROUND,
    "*gptq*": _GOES_ROUND,
    "*awq*": _GOES_ROUND,
    "*int4*": _GOES_ROUND,
    "*int8*": _GOES_ROUND,
    "DenseTest.test_dense_sparse": "the gradient of scores is dense, also for inputs that are not",
    "EmbeddingTest.test_weights_constructor_arg": "a masked layer draws its weights: `weights` is an error",
    "*legacy_load_own_variables*": "files of quantized layers of earlier versions of Keras hold no masks",
    "MultiHeadAttentionTest.test_correctness*": "set_weights with the weights of a stock layer: a masked one has more",
    "MultiHeadAttentionTest.test_mha_constraints": "reads the constraint of a kernel that is computed",
}

# `make test-slow` has these.
USUAL = (
    "DenseTest.test_dense_basics",
    "ConvBasicTest.test_conv2d_basic0",
    "EmbeddingTest.test_embedding_basics",
    "LSTMTest.test_basics",
    "MultiHeadAttentionTest.test_basics",
)


def _mark(case, name):
    full = f"{case.__name__}.{name}"
    reason = next((reason for pattern, reason in DIFFERENT.items() if fnmatch.fnmatchcase(full, pattern)), None)
    marks = [pytest.mark.slow if full in USUAL else pytest.mark.rare]
    marks += [] if reason is None else [pytest.mark.skip(reason=reason)]
    for mark in marks:
        setattr(case, name, mark(getattr(case, name)))


for module in MODULES:
    for case in load_tests(module):
        for name in filter(lambda name: name.startswith("test"), dir(case)):
            _mark(case, name)
        globals()[f"{module.rpartition('.')[2]}_{case.__name__}"] = case  # two modules have a SimpleRNNTest
