"""What selectors should choose, in plain NumPy, one weight or block at a time."""

import numpy as np

from keras_popup import selectors


def choose(selector, scores, k, fixed=None):
    """Returns the mask of scores `(inputs, outputs)` as an int8 array."""
    oracle = _ORACLES[type(selector)]
    return oracle(selector, scores, k, fixed) if fixed is not None else oracle(selector, scores, k)


def rank(scores):
    """Returns the order of scores, the best first: by magnitude, NaN last, ties by flat index."""
    sizes = np.abs(scores.ravel().astype(np.float64))
    return sorted(range(sizes.size), key=lambda i: (np.isnan(sizes[i]), -sizes[i] if sizes[i] == sizes[i] else 0, i))


def _top(scores, count):
    mask = np.zeros(scores.size, np.int8)
    mask[rank(scores)[:count]] = 1
    return mask.reshape(scores.shape)


def _count(k, n):
    return min(n, int(np.floor(k * n)) + (k * n - np.floor(k * n) >= 0.5))


def _choose_top_k(selector, scores, k, fixed=None):
    if fixed is None:
        return _top(scores, _count(k, scores.size))
    free = fixed.ravel() == 0
    wanted = _count(k, scores.size) - int((fixed > 0).sum())
    values = np.where(np.isnan(scores), 0, scores).ravel()
    chosen = [i for i in rank(values) if free[i]][:wanted]
    mask = (fixed.ravel() > 0).astype(np.int8)
    mask[chosen] = 1
    return mask.reshape(scores.shape)


def _choose_signed(selector, scores, k):
    return _top(scores, _count(k, scores.size)) * np.where(scores < 0, -1, 1).astype(np.int8)


def _choose_coats(selector, scores, k):
    shares = [(selector.coats - coat) / selector.coats for coat in range(selector.coats)]
    return sum(_top(scores, _count(k * share, scores.size)) for share in shares)


def _choose_groups(selector, scores, k):
    mask = np.zeros(scores.shape, np.int8)
    for first in range(0, scores.shape[0], selector.m):
        for output in range(scores.shape[1]):
            group = scores[first : first + selector.m, output]
            mask[first : first + selector.m, output] = _top(group, _count(k, selector.m))
    return mask


def _choose_blocks(selector, scores, k):
    side = selector.size
    places = [(i, j) for i in range(0, scores.shape[0], side) for j in range(0, scores.shape[1], side)]
    sizes = [np.abs(scores[i : i + side, j : j + side].astype(np.float64)).mean() for i, j in places]
    kept = _top(np.array(sizes, np.float32), _count(k, len(places)))
    mask = np.zeros(scores.shape, np.int8)
    for (i, j), chosen in zip(places, kept, strict=True):
        mask[i : i + side, j : j + side] = chosen
    return mask


_ORACLES = {
    selectors.TopK: _choose_top_k,
    selectors.Signed: _choose_signed,
    selectors.MultiCoat: _choose_coats,
    selectors.NM: _choose_groups,
    selectors.Block: _choose_blocks,
}
