"""Masks of trained networks: every criterion and treatment against its formula."""

import itertools

import keras
import numpy as np
import pytest

from keras_popup import conversion, criteria, models

RNG = np.random.default_rng(1)
INITIAL, FINAL = (RNG.standard_normal((40, 30)).astype(np.float32) for _ in range(2))


@pytest.mark.parametrize("k", [0.01, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("name", sorted(criteria.CRITERIA))
def test_criteria_keep_the_best_by_their_definitions(name, k):
    """What is kept is at least as good as what is not, by the definition in words."""
    measure = {
        "large_final": lambda i, f: abs(f),
        "large_final_same_sign": lambda i, f: f * np.sign(i),
        "magnitude_increase": lambda i, f: abs(f) - abs(i),
        "random": lambda i, f: 0.0,
    }[name]
    seed = {"seed": 3} if name == "random" else {}
    mask = criteria.choose(criteria.CRITERIA[name](INITIAL, FINAL, **seed), k)
    assert mask.sum() == round(k * mask.size)
    values = np.vectorize(measure)(INITIAL, FINAL)
    assert values[mask].min() >= values[~mask].max(initial=-np.inf)


def test_random_is_its_seed_and_nothing_else():
    same, other = (criteria.random(INITIAL, FINAL, seed) for seed in (3, 4))
    assert np.array_equal(same, criteria.random(FINAL, INITIAL, 3))
    assert not np.array_equal(same, other)
    assert abs(np.corrcoef(criteria.choose(same, 0.5).ravel(), np.abs(FINAL).ravel())[0, 1]) < 0.1


def test_choose_gives_ties_to_the_lower_index():
    assert criteria.choose(np.array([[1.0, 2.0], [1.0, 1.0]]), 0.5).tolist() == [[True, True], [False, False]]


@pytest.mark.parametrize(("criterion", "treatment"), list(itertools.product(criteria.CRITERIA, criteria.TREATMENTS)))
def test_mask_trained_by_every_criterion_and_treatment(criterion, treatment):
    networks = [keras.Sequential([keras.Input((40,)), keras.layers.Dense(30), keras.layers.Dense(2)]) for _ in "ab"]
    for network, kernel in zip(networks, (INITIAL, FINAL), strict=True):
        network.layers[0].set_weights([kernel, np.full(30, kernel[0, 0])])
    before = [network.get_weights() for network in networks]
    found = criteria.mask_trained(*networks, 0.3, criterion, treatment, seed=5)
    kernel = found.layers[0].kernel.numpy()
    mask = kernel != 0
    assert mask.sum() == 360
    expected = {"trained": FINAL, "rewound": INITIAL, "signed_constant": np.sign(INITIAL) * np.std(INITIAL)}[treatment]
    np.testing.assert_allclose(kernel[mask], expected[mask], rtol=1e-6)
    assert found.layers[0].bias.numpy()[0] == (FINAL if treatment == "trained" else INITIAL)[0, 0]
    for network, weights in zip(networks, before, strict=True):
        assert all(map(np.array_equal, network.get_weights(), weights))
    if criterion != "random":
        values = criteria.CRITERIA[criterion](INITIAL, FINAL)
        assert np.array_equal(mask, criteria.choose(values, 0.3))


def test_random_is_not_drawn_as_kernels_of_its_seed_are():
    """The numbers of the mask are not those of which `mask_model` has made the kernels."""
    plain = keras.Sequential([keras.Input((40,)), keras.layers.Dense(30)])
    network = conversion.strip_masks(conversion.mask_model(plain, k=1.0, kernel_initializer="kaiming_uniform", seed=5))
    kernel = network.layers[0].kernel.numpy()
    mask = criteria.mask_trained(network, network, 0.5, "random", seed=5).layers[0].kernel.numpy() != 0
    assert abs(np.corrcoef(mask.ravel(), kernel.ravel())[0, 1]) < 0.1


def test_mask_trained_refuses_what_cannot_be():
    network, other = models.FullyConnected(), models.Conv2()
    with pytest.raises(ValueError, match="`criterion` must be one of large_final"):
        criteria.mask_trained(network, network, 0.5, "small_final")
    with pytest.raises(ValueError, match="`treatment` must be one of trained"):
        criteria.mask_trained(network, network, 0.5, treatment="kept")
    with pytest.raises(ValueError, match="of the same shapes"):
        criteria.mask_trained(network, other, 0.5)
    with pytest.raises(ValueError, match="`k`"):
        criteria.mask_trained(network, network, 0.0)
