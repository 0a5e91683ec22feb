"""TopK: masks, gradient, errors, and what it compiles to."""

import numpy as np
import pytest
import tensorflow as tf
from tables import operations_of

from keras_popup import selectors
from keras_popup.selectors import programs, thresholds


def test_top_k_has_the_gradient_of_the_formula():
    scores = tf.Variable([[0.5, -0.25], [0.0, -2.0]])
    upstream = tf.constant([[1.0, 2.0], [3.0, 4.0]])
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(selectors.TopK()(scores, 0.25) * upstream)
    assert tape.gradient(loss, scores).numpy().tolist() == [[1.0, -2.0], [0.0, -4.0]]


def test_top_k_refuses_a_k_that_keeps_nothing():
    with pytest.raises(ValueError, match="keeps none of the 10 weights"):
        selectors.TopK()(np.zeros(10, np.float32), 0.04)


@pytest.mark.parametrize("dtype", ["float64", "float16", "int32"])
def test_top_k_refuses_scores_of_another_type(dtype):
    with pytest.raises(TypeError, match="must be float32"):
        selectors.TopK()(np.zeros(10, dtype), 0.5)


def test_top_k_of_scores_chosen_by_hand():
    scores = np.array([[0.3, -0.7, 0.7, 0.1], [0.0, -0.3, 0.9, 0.3]], np.float32)
    mask = selectors.TopK()(scores, k=0.5).numpy()
    assert mask.tolist() == [[1, 1, 1, 0], [0, 0, 1, 0]]  # of the three 0.3, the first


@pytest.mark.parametrize("shape", [(0,), (3, 0)])
def test_top_k_refuses_empty_scores(shape):
    with pytest.raises(ValueError, match="1 to 2\\*\\*31 - 1 elements"):
        selectors.TopK()(np.zeros(shape, np.float32), k=0.5)


def test_top_k_neither_sorts_nor_traces_again():
    traces = 0

    @tf.function
    def select(scores, k):
        nonlocal traces
        traces += 1
        return selectors.TopK()(scores, k)

    scores = tf.random.normal([1000])
    for k in (0.1, 0.5, 0.9):
        assert int(tf.reduce_sum(select(scores, tf.constant(k, tf.float64)))) == round(1000 * k)
    assert traces == 1
    # XLA would compile anew for each value of what it takes for a constant: scores, kept or the hint.
    program = programs._compile(thresholds.find_threshold, (), scores.shape)
    text = program.experimental_get_compiler_ir(scores, tf.constant(5), tf.constant(0, tf.int64))(stage="hlo")
    assert "entry_computation_layout={(f32[1000]{0}, s32[], s64[])->" in text
    compiled = tf.function(lambda scores, k: selectors.TopK()(scores, k), jit_compile=True)
    operations = operations_of(compiled.get_concrete_function(scores, tf.constant(0.5, tf.float64)))
    assert not {op for op in operations if "Sort" in op or "TopK" in op}
