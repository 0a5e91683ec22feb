"""How many bytes a ticket will take, and which k a number of bytes allows."""

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from keras_popup.tickets import size

SIZES = st.lists(st.integers(1, 5000), min_size=1, max_size=4)


def exact_bytes(layout, k):
    """Returns the limit, from whole numbers, and what else is in the file."""
    kept = [min(n, max(1, math.floor(k * n + 0.5))) for n in layout.sizes]
    bits = [(math.comb(n, ones) - 1).bit_length() for n, ones in zip(layout.sizes, kept, strict=True)]
    return layout.others + sum(bits) / 8


@given(SIZES, st.floats(0.0, 1.0))
def test_ticket_bytes_are_the_limit_and_little_more(sizes, k):
    layout = size.TicketSize(sizes, 1000)
    excess = layout.ticket_bytes(k) - exact_bytes(layout, k)
    assert 0 < excess < 40 + 30 * len(sizes)


@example([237, 237, 237, 1660], 0.0, size.SPARSE, 0.0, 1.0)
@example([237, 237, 237, 256], 0.0, size.SPARSE, 0.0, 1.0)
@given(SIZES, st.floats(0.0, 1.0), st.sampled_from([size.SPARSE, size.DENSE]), st.floats(0, 0.4), st.floats(0.6, 1))
def test_fitting_k_is_the_one_next_to_half_that_fits(sizes, share, branch, low, high):
    layout = size.TicketSize(sizes, 1000)
    budget = round(1100 + share * 1.1 * (layout.ticket_bytes(0.5) - 1000))
    # 0.5 / n may round to a k that keeps no weight of n. (0.5 / 237 does.)
    extreme = max(low, 0.5 / min(sizes) * (1 + 1e-15)) if branch == size.SPARSE else high
    if layout.ticket_bytes(extreme) > budget:
        with pytest.raises(size.BudgetError) as caught:
            layout.fitting_k(budget, branch, low, high)
        assert caught.value.smallest == layout.ticket_bytes(extreme)
        return
    k = layout.fitting_k(budget, branch, low, high)
    assert layout.ticket_bytes(k) <= budget
    assert k <= 0.5 or branch == size.DENSE
    assert k >= 0.5 or branch == size.SPARSE
    assert low <= k <= high or min(sizes) < 2
    # No k nearer to a half fits, by as little as a weight of the largest layer.
    step = max(2 / max(sizes), 2e-6)
    nearer = k + step if branch == size.SPARSE else k - step
    if (branch == size.SPARSE and nearer < 0.5) or (branch == size.DENSE and nearer > 0.5):
        assert layout.ticket_bytes(nearer) > budget or math.isclose(layout.ticket_bytes(nearer), budget, abs_tol=2)


def test_fitting_k_keeps_a_weight_of_every_layer():
    layout = size.TicketSize([1728, 36864, 4194304, 65536, 2560], 1000)  # Conv2
    with pytest.raises(size.BudgetError) as caught:
        layout.fitting_k(1, size.SPARSE)
    for more in (0, 1, 50):
        k = layout.fitting_k(caught.value.smallest + more, size.SPARSE)
        assert all(math.floor(k * size + 0.5) >= 1 for size in layout.sizes)
    with pytest.raises(ValueError, match="to keep a weight of every layer"):
        layout.fitting_k(10**6, size.SPARSE, 1e-6, 1e-5)
