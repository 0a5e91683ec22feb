"""The coding of masks, against its definition."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_popup import initializers
from keras_popup.selectors import counts
from keras_popup.tickets import mask_coding

FRACTIONS = [0.001, 0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.98, 1.0]


def known_of(shape, seed):
    """What the coder may know of a layer: (starts, weights), and the initial scores."""
    scores = initializers.ScoreUniform(seed=seed).values(shape, (9, 9))
    kernel = initializers.KaimingNormal(seed=seed + 1).values(shape, (9, 9))
    return mask_coding.start_bins(scores), mask_coding.weight_bins(kernel), scores


def mask_by(scores, k):
    """The mask of the k largest magnitudes."""
    kept = max(1, round(k * scores.size))
    mask = np.zeros(scores.size, np.uint8)
    mask[np.argsort(-np.abs(scores), axis=None, kind="stable")[:kept]] = 1
    return mask.reshape(scores.shape)


def trained_mask(shape, k, seed, moved=0.3):
    """Scores that have moved from their start, those of some channels more than those of others."""
    starts, weights, scores = known_of(shape, seed)
    rng = np.random.default_rng(seed)
    strength = rng.uniform(0.0, 2.0, shape[-1]) * rng.uniform(0.0, 2.0, (shape[-2], 1))
    return starts, weights, mask_by(scores + moved * scores.std() * strength * rng.normal(size=shape), k)


def decoded(mask, starts, weights):
    tables, stream = mask_coding.encode(mask, starts, weights)
    kept = int(mask.sum())
    result = mask_coding.decode(tables, stream, mask.shape, kept, starts, weights)
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result, mask)
    return len(tables) + len(stream), counts.entropy_bits(mask.size, kept) / 8


@settings(max_examples=150, deadline=None)
@given(
    shape=st.lists(st.integers(1, 12), min_size=1, max_size=5).map(tuple),
    density=st.floats(0, 1),
    seed=st.integers(0, 2**32),
    with_starts=st.booleans(),
    with_weights=st.booleans(),
    by_axis=st.booleans(),
)
def test_decode_gives_any_mask_back(shape, density, seed, with_starts, with_weights, by_axis):
    rng = np.random.default_rng(seed)
    shares = rng.random(shape[-1]) if by_axis else np.full(shape[-1], density)
    mask = (rng.random(shape) < shares).astype(np.uint8)
    starts, weights, _ = known_of(shape, seed)
    size, limit = decoded(mask, starts if with_starts else None, weights if with_weights else None)
    assert size <= limit * 1.0005 + 16


@pytest.mark.parametrize("k", FRACTIONS)
@pytest.mark.parametrize("shape", [(640, 1000), (3, 3, 64, 64), (3, 3, 1, 7)])
def test_encode_takes_what_it_must_for_a_random_mask(shape, k):
    rng = np.random.default_rng(7)
    size, limit = decoded(mask_by(rng.random(shape), k), *known_of(shape, 3)[:2])
    assert size <= limit * 1.0005 + 16
    # ... and no coder does better than by luck: a size far below would mean that the test is not one.
    assert size >= limit - 16


@pytest.mark.parametrize(("k", "share"), [(0.02, 0.95), (0.1, 0.8), (0.3, 0.6), (0.5, 0.6), (0.7, 0.6), (0.98, 0.9)])
@pytest.mark.parametrize("shape", [(640, 1000), (3, 3, 64, 64)])
def test_encode_takes_less_for_a_trained_mask(shape, k, share):
    starts, weights, mask = trained_mask(shape, k, 3)
    size, limit = decoded(mask, starts, weights)
    assert size < share * limit
    # Of the same mask, without what is known of its layer.
    blind, _ = decoded(mask, None, None)
    assert blind <= limit * 1.0005 + 16
    # Channels that moved more than others are told apart: better than by the start alone.
    position_free, _ = decoded(mask.reshape(-1), starts, weights)
    assert size < 0.99 * position_free


def test_encode_takes_next_to_nothing_for_an_untrained_mask():
    starts, weights, scores = known_of((300, 200), 5)
    size, limit = decoded(mask_by(scores, 0.3), starts, weights)
    assert size < limit / 50


@pytest.mark.parametrize("axis", [0, 1, 2, 3])
def test_encode_uses_shares_that_differ_along_an_axis(axis):
    shape = (4, 4, 32, 32)
    rng = np.random.default_rng(axis)
    shares = rng.choice([0.1, 0.9], shape[axis]).reshape([-1 if other == axis else 1 for other in range(4)])
    size, limit = decoded((rng.random(shape) < shares).astype(np.uint8), None, None)
    assert size < 0.7 * limit


def test_encode_masks_of_several_blocks():
    shape = (1030, 1024)  # of which the last block is a small one
    assert math.prod(shape) > mask_coding.BLOCK
    starts, weights, mask = trained_mask(shape, 0.3, 11)
    size, limit = decoded(mask, starts, weights)
    assert size < 0.6 * limit


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_decode_of_damage_is_an_error_or_another_mask(data):
    shape = (6, 9, 8)
    starts, weights, mask = trained_mask(shape, 0.3, 1)
    tables, stream = (bytearray(part) for part in mask_coding.encode(mask, starts, weights))
    part = data.draw(st.sampled_from([tables, stream]))
    how = data.draw(st.sampled_from(["flip", "cut", "add"]))
    place = data.draw(st.integers(0, max(0, len(part) - 1)))
    if how == "flip" and part:
        part[place] ^= data.draw(st.integers(1, 255))
    elif how == "cut":
        del part[place:]
    else:
        part += data.draw(st.binary(min_size=1, max_size=8))
    try:
        result = mask_coding.decode(bytes(tables), bytes(stream), shape, int(mask.sum()), starts, weights)
    except mask_coding.CodingError:
        return
    assert result.shape == shape
    assert result.sum() == mask.sum()
    assert set(np.unique(result)) <= {0, 1}


def test_probabilities_are_part_of_the_format():
    assert mask_coding.PROBABILITIES.shape == (254,)
    by_hand = [round(2**24 / (1 + math.exp(-code / 12))) for code in range(-127, 127)]
    assert mask_coding.PROBABILITIES.tolist() == by_hand
    # No value is near enough to a half that another exp could round it to another integer.
    exact = 2**24 / (1 + np.exp(-np.arange(-127, 127, dtype=np.longdouble) / 12))
    assert np.abs(exact - np.floor(exact) - 0.5).min() > 1e-4


def test_inflate_takes_no_more_than_it_is_told():
    bomb = mask_coding.deflate(bytes(10_000_000))
    assert len(bomb) < 12_000
    with pytest.raises(mask_coding.CodingError, match="does not decompress to 100 bytes"):
        mask_coding.inflate(bomb, 100)
