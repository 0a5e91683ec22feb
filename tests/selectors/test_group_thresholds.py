"""The best scores of several kernels together, against a NumPy sort."""

import hypothesis
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from keras_popup.selectors import group_thresholds, programs

_AWKWARD = [0.0, -0.0, 1.0, -1.0, np.nan, -np.nan, np.inf, -np.inf, 1e-45, -1e-45, 1e-39, 1.1754944e-38, 3.4e38]
VALUES = st.one_of(
    st.floats(width=32, allow_nan=True, allow_infinity=True, allow_subnormal=True), st.sampled_from(_AWKWARD)
)
SIZES = [(1,), (5, 1, 70), (3, 40)]  # a few only: XLA compiles anew for each
MULTIPLIERS = (1.0, 3.1622777, 1.7320508)


def sort_all(scores, multipliers, floors, kept):
    """The definition: each kernel's best up to its floor, then the best of all others; earlier ones of equal keys."""
    with np.errstate(over="ignore"):
        keys = [np.abs(each * np.float32(factor)) for each, factor in zip(scores, multipliers, strict=True)]
    least = [np.finfo(np.float32).tiny * np.float32(factor) for factor in multipliers]
    keys = [np.where(np.isnan(key), -1, np.maximum(key, low)) for key, low in zip(keys, least, strict=True)]
    masks = [np.zeros(key.size, bool) for key in keys]
    for mask, key, floor in zip(masks, keys, floors, strict=True):
        mask[np.argsort(-key, kind="stable")[:floor]] = True
    chosen = np.concatenate(masks)
    others = np.argsort(np.where(chosen, np.inf, -np.concatenate(keys)), kind="stable")
    chosen[others[: kept - int(chosen.sum())]] = True
    return np.split(chosen, np.cumsum([key.size for key in keys])[:-1])


def choose(scores, multipliers, floors, kept, hints):
    found, hints = group_thresholds.find_thresholds(scores, multipliers, floors, kept, hints)
    each = zip(scores, found, multipliers, strict=True)
    return [group_thresholds.choose_above(one, t, None, factor)[0] for one, t, factor in each], hints


def by_numpy(*arguments):
    with programs.without_compiling():
        return choose(*arguments)


def by_histograms(scores, multipliers, floors, kept, hints):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            group_thresholds,
            "_count_by_brackets",
            lambda ranks, floors, kept, hint: group_thresholds._count_by_histograms(ranks, floors, kept),
        )
        found = group_thresholds._find(multipliers, *scores, floors, kept, hints)
    each = zip(scores, found, multipliers, strict=False)
    return [group_thresholds.choose_above(one, t, None, factor)[0] for one, t, factor in each], found[-1]


def by_own_hints(scores, multipliers, floors, kept, hints):
    return choose(scores, multipliers, floors, kept, choose(scores, multipliers, floors, kept, hints)[1])


compiled = tf.function(choose, jit_compile=True)

PATHS = {
    "plain": choose,
    "plain_own_hints": by_own_hints,
    "histograms": by_histograms,
    "numpy": by_numpy,
    "xla": compiled,
    "xla_own_hints": lambda *arguments: compiled(*arguments[:4], compiled(*arguments)[1]),
}


def check(path, scores, multipliers, floors, kept):
    tensors = [tf.constant(each) for each in scores]
    hints = tf.zeros(len(scores) + 1, tf.int64)
    masks, _ = PATHS[path](tensors, multipliers, tf.constant(floors, tf.int32), tf.constant(kept), hints)
    expected = sort_all(scores, multipliers, floors, kept)
    assert sum(map(np.count_nonzero, masks)) == kept
    for mask, one in zip(masks, expected, strict=True):
        np.testing.assert_array_equal(mask, one)


@pytest.mark.parametrize("path", PATHS)
@hypothesis.given(data=st.data())
@hypothesis.settings(max_examples=40, deadline=None, derandomize=True)
def test_find_thresholds_equal_a_sort(path, data):
    sizes = data.draw(st.sampled_from(SIZES))
    scores = [
        data.draw(npst.arrays(np.float32, size, elements=VALUES, fill=st.sampled_from(_AWKWARD))) for size in sizes
    ]
    floors = [data.draw(st.integers(1, size)) for size in sizes]
    kept = data.draw(st.integers(sum(floors), sum(sizes)))
    check(path, scores, MULTIPLIERS[: len(sizes)], floors, kept)


LARGE = {
    "normal": lambda rng, n: rng.standard_normal(n),
    "sorted": lambda rng, n: np.sort(rng.standard_normal(n)),
    "all_equal": lambda rng, n: np.ones(n),
    "many_ties": lambda rng, n: rng.integers(-3, 4, n),
    "outlier": lambda rng, n: np.where(np.arange(n) == n // 3, 1e30, 1e-30),
    "all_nan": lambda rng, n: np.full(n, np.nan),
    "subnormal": lambda rng, n: rng.standard_normal(n) * 1e-44,
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("make", LARGE.values(), ids=LARGE)
@pytest.mark.parametrize("floor", [0.0, 0.5, 1.0])
def test_find_thresholds_of_large_kernels(path, make, floor):
    """From a sample, where there are more scores than are sorted at once."""
    rng, sizes = np.random.default_rng(3), (30_011, 7, 10_009)
    scores = [(make(rng, size) * factor).astype(np.float32) for size, factor in zip(sizes, (1, 5, 0.2), strict=True)]
    for k in (1e-3, 0.4, 1.0):
        floors = [max(1, int(floor * k * size)) for size in sizes]
        check(path, scores, MULTIPLIERS, floors, max(round(k * sum(sizes)), sum(floors)))
