"""Every initializer: golden checksums, moments, round trips, errors."""

import zlib

import keras
import numpy as np
import pytest
from tables import INITIALIZERS

import keras_popup
from keras_popup import criteria, initializers

# crc32 of the float32 bytes for seed 1 and shape (3, 3, 8, 16): a change of any kernel of any ticket.
CHECKSUMS = {
    "kaiming_normal": "88d3974b",
    "kaiming_uniform": "4d364faf",
    "score_uniform": "4384e8d3",
    "signed_constant": "09a675ec",
    "unsigned_constant": "1708b019",
    "xavier_normal": "683be5aa",
    "xavier_signed_constant": "3a4fbd22",
}


def make(name, **arguments):
    return initializers.INITIALIZERS[name](**arguments)


@pytest.mark.parametrize("name", INITIALIZERS)
def test_initializers_have_their_checksums(name):
    values = make(name, seed=1)((3, 3, 8, 16)).numpy()
    assert f"{zlib.crc32(values.astype('<f4').tobytes()):08x}" == CHECKSUMS[name]


@pytest.mark.parametrize("name", INITIALIZERS)
@pytest.mark.parametrize("shape", [(1,), (3, 5), (3, 3, 4, 70)])
def test_initializers_are_functions_of_their_seeds(name, shape):
    initializer = make(name, seed=2**64 - 1)
    first = initializer(shape).numpy()
    assert first.shape == shape
    assert first.dtype == np.float32
    np.testing.assert_array_equal(first, initializer(shape).numpy())
    again = initializers.deserialize(initializers.serialize(initializer))
    np.testing.assert_array_equal(first, again(shape).numpy())
    if name != "unsigned_constant" and first.size > 64:
        assert (make(name, seed=3)(shape).numpy() != first).any()


@pytest.mark.parametrize("name", INITIALIZERS)
@pytest.mark.parametrize("scaled", [False, True])
def test_initializers_have_their_moments(name, scaled):
    fans, shape, k = (50, 20), (400, 500), 0.25
    initializer = make(name, seed=5, scaled=scaled, k=k)
    values = initializer(shape, fans=fans).numpy().astype(np.float64)
    sigma = {"score_uniform": (1 / 150) ** 0.5}.get(name, (2 / (70 if "xavier" in name else 50)) ** 0.5)
    sigma *= 2.0 if scaled else 1.0
    assert np.sqrt(np.mean(values**2)) == pytest.approx(sigma, rel=0.01)
    if "unsigned" not in name:
        assert abs(values.mean()) < 0.01 * sigma
    largest = np.abs(values).max() / sigma
    if "constant" in name:
        assert np.unique(np.abs(values)).size == 1
    elif "normal" in name:
        assert largest > 4.0, "truncated"
        assert np.mean(values**4) / sigma**4 == pytest.approx(3.0, rel=0.02)
        assert np.mean(np.abs(values) < 1.959964 * sigma) == pytest.approx(0.95, abs=0.002)
    else:
        assert 1.7 < largest <= 3**0.5 * (1 + 1e-6)


def test_initializers_of_neighbouring_seeds_are_unrelated():
    a, b = (make("signed_constant", seed=seed)((64, 64)).numpy() for seed in (1, 2))
    assert abs(np.mean(np.sign(a) * np.sign(b))) < 0.05
    kernel = make("kaiming_uniform", seed=initializers.derive_seed(1, "scores"))((64, 64)).numpy()
    scores = make("score_uniform", seed=1)((64, 64)).numpy()
    assert abs(np.corrcoef(kernel.ravel(), scores.ravel())[0, 1]) < 0.05


def test_log_is_the_logarithm():
    x = np.concatenate([np.random.default_rng(1).random(10_000), [2.0**-104, 0.5, 0.5**0.5, 1 - 2.0**-52]])
    np.testing.assert_allclose(initializers._log(x), np.log(x), rtol=4e-15, atol=1e-16)


def test_get_filled_fills_in_a_seed_where_there_is_none():
    assert initializers.get_filled("kaiming_normal", seed=5).seed == 5
    assert initializers.get_filled(make("kaiming_normal", seed=4), seed=5).seed == 4
    assert initializers.get_filled("glorot_normal", seed=5).get_config()["seed"] == 5
    assert type(initializers.get_filled("zeros", seed=5)) is keras.initializers.Zeros


def test_frozen_initializer_keeps_the_seed_it_drew():
    initializer = make("signed_constant")
    first = initializer((10, 10)).numpy()
    np.testing.assert_array_equal(first, initializers.deserialize(initializers.serialize(initializer))((10, 10)))


def test_get_takes_the_names_of_keras():
    assert isinstance(initializers.get("glorot_uniform"), keras.initializers.GlorotUniform)


@pytest.mark.parametrize("identifier", ["signed", None, 3])
def test_get_refuses_what_is_unknown(identifier):
    with pytest.raises(ValueError, match="signed_constant"):
        initializers.get(identifier)


@pytest.mark.parametrize("seed", [-1, 2**64, 1.0, "1", True])
def test_check_seed_refuses_bad_seeds(seed):
    with pytest.raises(ValueError, match="must be an integer in"):
        make("signed_constant", seed=seed)


@pytest.mark.parametrize("k", [-1, 0.0, 30])
def test_frozen_initializer_refuses_a_bad_k(k):
    with pytest.raises(ValueError, match=r"must be a number in \(0, 1\]"):
        make("signed_constant", seed=1, scaled=True, k=k)


def test_frozen_initializer_that_is_scaled_needs_k():
    with pytest.raises(ValueError, match="needs `k` outside a masked layer"):
        make("signed_constant", seed=1, scaled=True)((3, 3))


def test_magnitude_ranks_by_the_kernel():
    kernel = np.random.default_rng(0).normal(size=(3, 4, 5)).astype("float32")
    scores = initializers.Magnitude()(kernel.shape, kernel=kernel, fans=(12, 5)).numpy()
    np.testing.assert_allclose(scores / scores.flat[0], kernel / kernel.flat[0], rtol=1e-5)
    assert np.sqrt(np.mean(scores**2)) == pytest.approx(np.sqrt(1 / 36), rel=1e-5)
    np.testing.assert_array_equal(initializers.Magnitude()((2,), kernel=np.zeros(2)), [0, 0])
    with pytest.raises(ValueError, match="Received: kernel=None"):
        initializers.Magnitude()((2, 3))


def test_magnitude_starts_with_the_mask_of_magnitude_pruning():
    plain = keras.Sequential(
        [keras.Input((6, 6, 3)), keras.layers.Conv2D(8, 3), keras.layers.Flatten(), keras.layers.Dense(5)]
    )
    masked = keras_popup.mask_model(plain, weights="keep", k=0.2, scores_initializer="magnitude", seed=1)
    for layer, twin in zip(plain.layers, masked.layers, strict=True):
        if layer.weights:
            expected = criteria.choose(np.abs(layer.kernel.numpy()), 0.2)
            np.testing.assert_array_equal(twin.mask().numpy().astype(bool), expected)
    with pytest.raises(ValueError, match="draws its masks by probabilities, which magnitudes are not"):
        keras_popup.mask_model(plain, weights="keep", selector="bernoulli", scores_initializer="magnitude")
