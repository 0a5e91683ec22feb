"""The exact top-k against a NumPy sort."""

import hypothesis
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from keras_popup.selectors import counts, plain, programs, thresholds

_AWKWARD = [0.0, -0.0, 1.0, -1.0, np.nan, -np.nan, np.inf, -np.inf, 1e-45, -1e-45, 1e-39, 1.1754944e-38, 3.4e38]


def sorted_mask(scores: np.ndarray, kept: int) -> np.ndarray:
    """The definition: NaN below every number, then by magnitude, then the lower flat index."""
    # NaN as -1: magnitudes are not negative. float64 tells float32's subnormals apart.
    magnitude = np.abs(scores.ravel().astype(np.float64))
    magnitude = np.where(np.isnan(magnitude), -1.0, magnitude)
    mask = np.zeros(scores.size, np.float32)
    mask[np.argsort(-magnitude, kind="stable")[:kept]] = 1.0
    return mask.reshape(scores.shape)


def by_numpy(scores, kept):
    with programs.without_compiling():
        return thresholds.choose(scores, kept)


def by_numpy_and_threshold(scores, kept):
    with programs.without_compiling():
        return thresholds.is_above(scores, thresholds.find_threshold(scores, kept))


def by_plain_operations(scores, kept):
    ranks = plain.rank_scores(tf.reshape(scores, [-1]))
    return tf.reshape(plain.find_threshold(ranks, kept).is_above(ranks), scores.shape)


def by_histograms(scores, kept):
    ranks = plain.rank_scores(tf.reshape(scores, [-1]))
    found = plain.Threshold(*plain._find_by_histograms(ranks, kept))
    return tf.reshape(found.is_above(ranks), scores.shape)


def by_a_wrong_hint(scores, kept):
    ranks = plain.rank_scores(tf.reshape(scores, [-1]))
    hint = tf.constant(0x3F800000, tf.int64)
    found = plain.find_threshold(ranks, kept, hint)
    return tf.reshape(found.is_above(ranks), scores.shape)


def by_its_own_hint(scores, kept):
    ranks = plain.rank_scores(tf.reshape(scores, [-1]))
    hint = plain.find_threshold(ranks, kept).hint
    found = plain.find_threshold(ranks, kept, hint)
    return tf.reshape(found.is_above(ranks), scores.shape)


PATHS = [
    pytest.param(by_plain_operations, id="plain"),
    pytest.param(tf.function(by_plain_operations), id="plain_graph"),
    pytest.param(by_histograms, id="histograms"),
    pytest.param(by_a_wrong_hint, id="plain_wrong_hint"),
    pytest.param(by_its_own_hint, id="plain_own_hint"),
    pytest.param(by_numpy, id="numpy"),
    pytest.param(by_numpy_and_threshold, id="numpy_threshold"),
    pytest.param(thresholds.choose, id="eager"),
    pytest.param(tf.function(thresholds.choose), id="graph"),
    pytest.param(tf.function(thresholds.choose, jit_compile=True), id="xla"),
    pytest.param(lambda scores, kept: programs.compile_always(thresholds.choose)(scores, kept), id="program"),
]

SHAPES = [(1,), (2,), (3, 3, 2, 5), (256,), (5, 70)]  # a few only: XLA compiles anew for each
VALUES = st.one_of(
    st.floats(width=32, allow_nan=True, allow_infinity=True, allow_subnormal=True), st.sampled_from(_AWKWARD)
)


@pytest.mark.parametrize("topk", PATHS)
@hypothesis.given(data=st.data())
@hypothesis.settings(max_examples=100, deadline=None, derandomize=True)
def test_choose_equals_a_sort(topk, data):
    shape = data.draw(st.sampled_from(SHAPES))
    scores = data.draw(npst.arrays(np.float32, shape, elements=VALUES, fill=st.sampled_from(_AWKWARD)))
    kept = data.draw(st.integers(1, scores.size))
    mask = topk(tf.constant(scores), tf.constant(kept)).numpy()
    np.testing.assert_array_equal(mask, sorted_mask(scores, kept))


@pytest.mark.parametrize("size", [11, 4099])  # of which no other test has a program
def test_choose_where_passes_do_not_end_early(size, monkeypatch):
    """As on a GPU, which would have to be waited for to end them."""
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda *_: ["GPU:0"])
    rng = np.random.default_rng(size)
    topk = tf.function(thresholds.choose)
    for values in ([np.inf], [np.inf, 1.0], [np.nan], [3.4e38, np.inf, 0.0], _AWKWARD, np.linspace(-1, 1, 1000)):
        scores = rng.choice(np.array(values, np.float32), size)
        for kept in (1, 2, size // 2, size):
            mask = topk(tf.constant(scores), tf.constant(kept)).numpy()
            np.testing.assert_array_equal(mask, sorted_mask(scores, kept))


LARGE = [
    pytest.param(lambda rng, n: rng.standard_normal(n), id="normal"),
    pytest.param(lambda rng, n: np.sort(rng.standard_normal(n)), id="sorted"),
    pytest.param(lambda rng, n: np.ones(n), id="all_equal"),
    pytest.param(lambda rng, n: rng.integers(0, 2, n), id="two_values"),
    pytest.param(lambda rng, n: rng.integers(-3, 4, n), id="many_ties"),
    pytest.param(lambda rng, n: np.where(np.arange(n) == n // 3, 1e30, 1e-30), id="outlier"),
    pytest.param(lambda rng, n: np.full(n, np.nan), id="all_nan"),
    pytest.param(lambda rng, n: rng.standard_normal(n) * 1e-44, id="subnormal"),
]


@pytest.mark.parametrize("topk", PATHS)
@pytest.mark.parametrize("make", LARGE)
@pytest.mark.parametrize("k", [1e-4, 0.5, 1.0])
@pytest.mark.parametrize("size", [20_011, 40_009])  # from a sample, if above 32,768
def test_choose_from_large_inputs(topk, make, k, size):
    scores = make(np.random.default_rng(3), size).astype(np.float32)
    kept = counts.count_kept(k, scores.size)
    mask = topk(tf.constant(scores), tf.constant(kept)).numpy()
    assert mask.sum() == kept
    np.testing.assert_array_equal(mask, sorted_mask(scores, kept))


@pytest.mark.parametrize("topk", [by_numpy, by_numpy_and_threshold])
@pytest.mark.parametrize("make", LARGE)
def test_choose_in_parts(topk, make, monkeypatch):
    """Ties may begin in one part and end in another."""
    monkeypatch.setattr(thresholds, "_PART", 64)
    scores = make(np.random.default_rng(3), 1_000).astype(np.float32)
    for kept in (1, 63, 64, 65, 500, 1_000):
        mask = topk(tf.constant(scores), tf.constant(kept)).numpy()
        np.testing.assert_array_equal(mask, sorted_mask(scores, kept))


def passes_of(scores, kept, hint=None):
    """How many passes the search takes."""
    flat, left_out = tf.constant(scores), tf.constant(scores.size - kept)
    guess = thresholds._guess(flat, left_out, None if hint is None else tf.constant(hint, tf.int64))
    return int(thresholds._search(flat, left_out, guess)[0])


def fooling_the_sample(rng, n):
    """Largest where the sample looks, and nowhere else."""
    scores = rng.standard_normal(n)
    stride = n // thresholds._SAMPLE_RUNS
    scores[: thresholds._SAMPLE_RUNS * stride].reshape(-1, stride)[:, : thresholds._SAMPLE_RUN] += 1e6
    return scores


@pytest.mark.parametrize("hint", [None, 0, 1 << 62])
@pytest.mark.parametrize("make", [make for make in LARGE if make.id != "normal"] + [pytest.param(fooling_the_sample)])
@pytest.mark.parametrize("k", [0.01, 0.5])
def test_find_threshold_takes_many_passes_for_no_input(make, k, hint):
    # The usual input takes 5 passes, and the mask the time of 3: so none takes four times the usual.
    scores = make(np.random.default_rng(3), 20_011).astype(np.float32)
    assert passes_of(scores, counts.count_kept(k, scores.size), hint) <= 22


@pytest.mark.parametrize("k", [0.01, 0.1, 0.5, 0.9, 0.99])
def test_find_threshold_usually_takes_few_passes(k):
    rng = np.random.default_rng(4)
    passes = []
    for _ in range(5):
        scores = rng.uniform(-1, 1, 50_000).astype(np.float32)
        kept = counts.count_kept(k, scores.size)
        passes.append(passes_of(scores, kept))
        right = int(thresholds.find_threshold(tf.constant(scores), tf.constant(kept)))
        assert passes_of(scores, kept, right) == 1
        # Fewer still from a threshold that is nearly right, as after a step of training.
        scores[rng.integers(0, scores.size, 500)] *= 1.01
        assert passes_of(scores, kept, right) <= 5
    assert np.mean(passes) <= 7


@hypothesis.given(
    hint=st.integers(-(2**63), 2**63 - 1),
    scores=npst.arrays(np.float32, (70,), elements=VALUES, fill=st.sampled_from(_AWKWARD)),
    kept=st.integers(1, 70),
)
@hypothesis.settings(max_examples=200, deadline=None, derandomize=True)
def test_find_threshold_gives_one_mask_for_all_hints(hint, scores, kept):
    threshold = programs.compile_always(thresholds.find_threshold)(
        scores, tf.constant(kept), tf.constant(hint, tf.int64)
    )
    np.testing.assert_array_equal(
        thresholds.is_above(tf.constant(scores), threshold).numpy(), sorted_mask(scores, kept)
    )


@pytest.mark.parametrize("make", LARGE)
def test_choose_in_passes_of_a_fixed_number(make, monkeypatch):
    # What runs where a GPU is visible: the end of the loop does not depend on the scores.
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: [kind])
    topk = tf.function(thresholds.choose, jit_compile=True)
    scores = make(np.random.default_rng(3), 20_011).astype(np.float32)
    for kept in (1, 200, 10_005, 20_011):
        mask = topk(tf.constant(scores), tf.constant(kept)).numpy()
        np.testing.assert_array_equal(mask, sorted_mask(scores, kept))
