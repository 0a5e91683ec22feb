"""What docs/ticket-format.md says of numbers, against the packages that the library takes them from."""

from pathlib import Path

import constriction
import numpy as np
import pytest

from keras_popup.tickets import mask_coding

PAGE = (Path(__file__).parents[2] / "docs" / "ticket-format.md").read_text()
ONE = 2**24
UNITS = [1, 2, 3, ONE // 2, ONE - 2, ONE - 1, *mask_coding.PROBABILITIES.tolist()]
UNITS += np.random.default_rng(0).integers(1, ONE, 200).tolist()


def find_border(units):
    return (ONE - units) * (ONE - 2) // ONE + 1


def encode(bits, units):
    """The words of a mask, as the page tells a writer."""
    state, words = 0, []
    for bit in reversed(bits):
        low, width = (find_border(units), ONE - find_border(units)) if bit else (0, find_border(units))
        if state >= width << 40:
            words.append(state % 2**32)
            state >>= 32
        state = (state // width << 24) + state % width + low
    while state:
        words.append(state % 2**32)
        state >>= 32
    return words


@pytest.mark.parametrize("kind", ["likely", "any"])
def test_coder_of_the_page_is_that_of_constriction(kind):
    generator = np.random.default_rng(1)
    for units in UNITS:
        bits = (generator.random(150) < (units / ONE if kind == "likely" else 0.5)).astype(np.int32)
        coder = constriction.stream.stack.AnsCoder()
        coder.encode_reverse(bits, constriction.stream.model.Bernoulli(units / ONE, perfect=False))
        assert encode(bits.tolist(), units) == coder.get_compressed().tolist()


def test_coder_of_the_page_never_ends_in_zero():
    with pytest.raises(ValueError, match="never ends in a zero word"):
        constriction.stream.stack.AnsCoder(np.array([1, 0], np.uint32))


def test_probabilities_of_the_page_follow_from_any_exp():
    exact = ONE / (1 + np.exp(-np.arange(-127, 127) / 12))
    assert np.abs(exact - np.floor(exact) - 0.5).min() > 0.008
    assert f"smallest is {mask_coding.PROBABILITIES.min()}, the largest {mask_coding.PROBABILITIES.max():,}" in PAGE


def test_words_of_the_page_are_those_of_numpy():
    for word in np.random.Philox(key=1).random_raw(3):
        assert f"`{int(word):016X}`" in PAGE
