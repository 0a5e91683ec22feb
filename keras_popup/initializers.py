"""Initializers of frozen kernels and of scores, bit-exact from a seed.

A network found by edge-popup consists of its seed and its mask. So a seed must give the same kernel on every machine
and with every version. NumPy guarantees this for the bit stream of its Philox generator, but not for its
distributions. The initializers here compute their values from that stream, with operations whose results IEEE 754
defines exactly: integer operations, + - * / and sqrt.
"""

import hashlib
import math
import random
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from keras_popup._fractions import check_k

__all__ = [
    "FrozenInitializer",
    "KaimingNormal",
    "KaimingUniform",
    "Magnitude",
    "ScoreUniform",
    "SignedConstant",
    "UnsignedConstant",
    "XavierNormal",
    "XavierSignedConstant",
    "deserialize",
    "get",
    "serialize",
]

Float64 = NDArray[np.float64]

_PART = 1 << 18  # values drawn at once; a multiple of 64, because a word of the stream gives 64 signs
_PAIRS = 1 << 14  # points drawn at once for normal values; another number would change the values of every seed


def fresh_seed() -> int:
    """Returns a seed from Python's generator, which `keras.utils.set_random_seed` controls."""
    return random.randrange(1, 2**32)


def derive_seed(seed: int, *path: int | str) -> int:
    """Returns a 32-bit seed that follows from another seed.

    Args:
        seed: integer in [0, 2**64).
        path: what the new seed is for, such as the index of a layer. Different paths give unrelated seeds.

    Example:

    >>> from keras_popup import initializers
    >>> initializers.derive_seed(1, "scores")
    4083938343
    """
    text = "/".join(str(part) for part in (check_seed(seed), *path))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "little")


def check_seed(seed: Any) -> int:
    """Returns `seed` after checking that it is an integer in [0, 2**64).

    Raises:
        ValueError: if it is not such an integer.
    """
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**64:
        raise ValueError(f"`seed` must be an integer in [0, 2**64). Received: seed={seed!r}.")
    return int(seed)


def kernel_fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """Returns (fan_in, fan_out) of a dense or convolution kernel `(*window, inputs, outputs)`."""
    if len(shape) < 2:
        return math.prod(shape), math.prod(shape)
    window = math.prod(shape[:-2])
    return window * shape[-2], window * shape[-1]


class FrozenInitializer(keras.initializers.Initializer):
    """Base of the initializers whose values depend on nothing but their arguments, the shape and the fans.

    Args:
        seed: integer in [0, 2**64), or None. With None, a masked layer fills in its own seed; outside of a masked
            layer, the first call draws a seed and keeps it.
        scaled: bool, whether sigma is divided by sqrt(k). A sum over the kept weights then has the variance that
            a sum over all weights has without `scaled`. The code of Ramanujan et al. divides by sqrt(1 - k), which is
            the same at k = 0.5 only.
        k: float in (0, 1], the fraction kept, used if `scaled`. With None, a masked layer fills in its own k.

    Raises:
        ValueError: if `seed` or `k` is out of its range.

    Call arguments:
        shape: tuple of ints.
        dtype: dtype of the result. None is `keras.config.floatx()`. Values are rounded to float32 first.
        fans: (fan_in, fan_out). None computes them from `shape`, as for a dense or convolution kernel.
    """

    def __init__(self, seed: int | None = None, scaled: bool = False, k: float | None = None) -> None:
        self.seed = None if seed is None else check_seed(seed)
        self.scaled = bool(scaled)
        self.k = None if k is None else check_k(k)

    def __call__(self, shape: tuple[int, ...], dtype: Any = None, *, fans: tuple[int, int] | None = None) -> Any:
        values = self.values(tuple(shape), fans or kernel_fans(tuple(shape)))
        return keras.ops.convert_to_tensor(values, dtype or keras.config.floatx())

    def values(self, shape: tuple[int, ...], fans: tuple[int, int]) -> NDArray[np.float32]:
        """Returns the values as a NumPy array, computed without TensorFlow."""
        if self.seed is None:
            self.seed = fresh_seed()
        sigma = self.sigma(*fans)
        if self.scaled:
            if self.k is None:
                raise ValueError(
                    f"{type(self).__name__}(scaled=True) needs `k` outside a masked layer: the fraction of weights "
                    "kept. Received: k=None. Pass k."
                )
            sigma /= math.sqrt(self.k)
        bits = np.random.Philox(key=self.seed)
        values = np.empty(math.prod(shape), np.float32)
        filled = 0
        while filled < values.size:  # in parts: all values at once as float64 would take twice the kernel's memory
            part = self._draw_standard(bits, values.size - filled)[: values.size - filled]
            values[filled : filled + part.size] = sigma * part
            filled += part.size
        return values.reshape(shape)

    def of_redraw(self, redraw: int) -> "FrozenInitializer":
        """Returns the initializer of the values of the `redraw`-th redraw, counted from 1; number 0 is this one."""
        if self.seed is None:
            raise ValueError(f"{type(self).__name__} has no seed, so it has no redraws. Give it one.")
        return type(self)(derive_seed(self.seed, "redraw", redraw), self.scaled, self.k) if redraw else self

    def sigma(self, fan_in: int, fan_out: int) -> float:
        """Returns the standard deviation of the values."""
        raise NotImplementedError

    def _draw_standard(self, bits: np.random.Philox, size: int) -> Float64:
        """Returns the next values, of mean square 1. There may be more or fewer than `size`, but at least one."""
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        return {"seed": self.seed, "scaled": self.scaled, "k": self.k}


class _Kaiming(FrozenInitializer):
    def sigma(self, fan_in: int, fan_out: int) -> float:
        return math.sqrt(2.0 / fan_in)


class _Xavier(FrozenInitializer):
    def sigma(self, fan_in: int, fan_out: int) -> float:
        return math.sqrt(2.0 / (fan_in + fan_out))


class _Signed(FrozenInitializer):
    def _draw_standard(self, bits: np.random.Philox, size: int) -> Float64:
        words = bits.random_raw(-(-min(size, _PART) // 64)).astype("<u8")
        coins = np.unpackbits(words.view(np.uint8), bitorder="little")
        return np.where(coins, -1.0, 1.0)


class _Uniform(FrozenInitializer):
    def _draw_standard(self, bits: np.random.Philox, size: int) -> Float64:
        return math.sqrt(3.0) * _draw_symmetric_uniform(bits, min(size, _PART))


class _Normal(FrozenInitializer):
    def _draw_standard(self, bits: np.random.Philox, size: int) -> Float64:
        return _draw_standard_normal(bits)


@keras.saving.register_keras_serializable("keras_popup")
class SignedConstant(_Signed, _Kaiming):
    """Each weight is +sigma or -sigma with equal chance, sigma = sqrt(2 / fan_in).

    The best kernels known for edge-popup. The network then consists of its signs and its mask.

    Reference:
        Ramanujan et al., [arXiv 1911.13299](https://arxiv.org/abs/1911.13299), section 4.5.

    Example:

    >>> from keras_popup import initializers
    >>> initializers.SignedConstant(seed=1)((2, 3)).numpy().tolist()
    [[-1.0, -1.0, -1.0], [-1.0, -1.0, 1.0]]
    """


@keras.saving.register_keras_serializable("keras_popup")
class UnsignedConstant(_Kaiming):
    """Every weight is sigma = sqrt(2 / fan_in). An ablation: a mask can then choose positions, but no values."""

    def _draw_standard(self, bits: np.random.Philox, size: int) -> Float64:
        return np.ones(min(size, _PART))


@keras.saving.register_keras_serializable("keras_popup")
class KaimingNormal(_Normal, _Kaiming):
    """N(0, sigma^2) with sigma = sqrt(2 / fan_in). Not truncated, unlike Keras's `he_normal`.

    Reference:
        He et al., [Delving Deep into Rectifiers](https://arxiv.org/abs/1502.01852).
    """


@keras.saving.register_keras_serializable("keras_popup")
class KaimingUniform(_Uniform, _Kaiming):
    """U(-b, b) with b = sqrt(3) * sigma and sigma = sqrt(2 / fan_in)."""


@keras.saving.register_keras_serializable("keras_popup")
class XavierNormal(_Normal, _Xavier):
    """N(0, sigma^2) with sigma = sqrt(2 / (fan_in + fan_out)), not truncated.

    Reference:
        Glorot and Bengio, [Understanding the difficulty of training deep feedforward neural
        networks](https://proceedings.mlr.press/v9/glorot10a.html).
    """


@keras.saving.register_keras_serializable("keras_popup")
class XavierSignedConstant(_Signed, _Xavier):
    """Each weight is +sigma or -sigma with equal chance, sigma = sqrt(2 / (fan_in + fan_out))."""


@keras.saving.register_keras_serializable("keras_popup")
class ScoreUniform(_Uniform):
    """The initial scores of edge-popup: U(-1/sqrt(fan_in), 1/sqrt(fan_in)), sigma = 1/sqrt(3 * fan_in)."""

    def sigma(self, fan_in: int, fan_out: int) -> float:
        return math.sqrt(1.0 / (3.0 * fan_in))


@keras.saving.register_keras_serializable("keras_popup")
class Magnitude(keras.initializers.Initializer):
    """Initial scores that rank weights by their magnitude, so that the first mask is that of magnitude pruning.

    s = w * sigma / rms(w), sigma = 1/sqrt(3 * fan_in) as for `ScoreUniform`: training moves the mask from there. It is
    for the pretrained kernels of `mask_model(weights="keep")`.

    Reference:
        Zhang et al., [Lottery Jackpots Exist in Pre-trained Models](https://arxiv.org/abs/2104.08700).

    Call arguments:
        shape: tuple of ints.
        dtype: dtype of the result. None is float32.
        kernel: array or tensor w of this shape. A masked layer passes its kernel.
        fans: (fan_in, fan_out), as for `FrozenInitializer`.

    Raises:
        ValueError: if there is no `kernel`.

    Example:

    >>> from keras_popup import initializers
    >>> scores = initializers.Magnitude()((1, 4), kernel=[[1.0, -3.0, 2.0, 0.0]])
    >>> scores.numpy().argsort().tolist()
    [[1, 3, 0, 2]]
    """

    def __call__(
        self, shape: tuple[int, ...], dtype: Any = None, *, kernel: Any = None, fans: tuple[int, int] | None = None
    ) -> Any:
        if kernel is None:
            raise ValueError(
                "Magnitude ranks the weights of a kernel. Received: kernel=None. Use it in a masked layer."
            )
        weights = np.asarray(keras.ops.convert_to_numpy(kernel), np.float64).reshape(shape)
        mean_square = float(np.mean(weights**2))
        sigma = math.sqrt(1.0 / (3.0 * (fans or kernel_fans(tuple(shape)))[0]))
        scores = weights * (sigma / math.sqrt(mean_square)) if mean_square else weights
        return keras.ops.convert_to_tensor(scores, dtype or "float32")


def _draw_symmetric_uniform(bits: np.random.Philox, size: int) -> Float64:
    """Returns values in [-1, 1), multiples of 2**-52."""
    return (bits.random_raw(size) >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1.0


def _draw_standard_normal(bits: np.random.Philox) -> Float64:
    """Returns some standard normal values, by Marsaglia's polar method.

    The only function it needs is a logarithm. `_log` computes it from exactly rounded operations, because the last
    bits of NumPy's and the C library's logarithm differ between machines.
    """
    points = _draw_symmetric_uniform(bits, _PAIRS * 2).reshape(_PAIRS, 2)
    squares = points[:, 0] * points[:, 0] + points[:, 1] * points[:, 1]
    inside = (squares > 0.0) & (squares < 1.0)
    squares = squares[inside]
    return (points[inside] * np.sqrt(-2.0 * _log(squares) / squares)[:, None]).ravel()


def _log(x: Float64) -> Float64:
    """Returns the natural logarithm: x = m * 2**e with m in [sqrt(1/2), sqrt(2)), ln m = 2 atanh((m-1)/(m+1))."""
    mantissa, exponent = np.frexp(x)
    small = mantissa < math.sqrt(0.5)
    mantissa = np.where(small, 2.0 * mantissa, mantissa)
    exponent = exponent - small
    z = (mantissa - 1.0) / (mantissa + 1.0)
    series = np.zeros_like(z)
    for odd in range(23, 0, -2):
        series = series * (z * z) + 1.0 / odd
    logarithm: Float64 = exponent * 0.6931471805599453 + 2.0 * z * series
    return logarithm


INITIALIZERS: dict[str, type[FrozenInitializer]] = {
    "signed_constant": SignedConstant,
    "unsigned_constant": UnsignedConstant,
    "kaiming_normal": KaimingNormal,
    "kaiming_uniform": KaimingUniform,
    "xavier_normal": XavierNormal,
    "xavier_signed_constant": XavierSignedConstant,
    "score_uniform": ScoreUniform,
}


def get(identifier: Any) -> Any:
    """Retrieves an initializer: one of this module or, as `keras.initializers.get` does, one of Keras.

    Args:
        identifier: a snake_case name such as `"signed_constant"`, a serialized config or an initializer.

    Raises:
        ValueError: if there is no such initializer.

    Example:

    >>> from keras_popup import initializers
    >>> initializers.get("signed_constant").get_config()
    {'seed': None, 'scaled': False, 'k': None}
    """
    if isinstance(identifier, str) and identifier in INITIALIZERS:
        return INITIALIZERS[identifier]()
    if identifier == "magnitude":
        return Magnitude()
    try:
        initializer = keras.initializers.get(identifier)
    except (ValueError, TypeError):
        initializer = None
    if initializer is None:
        raise ValueError(
            f"Unknown initializer. Expected one of {sorted([*INITIALIZERS, 'magnitude'])}, a name that Keras knows, an "
            f"initializer or its config. Received: {identifier!r}."
        )
    return initializer


def get_filled(identifier: Any, **values: Any) -> Any:
    """Retrieves an initializer like `get`, and replaces each None in its config by the value given here.

    Example:

    >>> from keras_popup import initializers
    >>> initializers.get_filled("kaiming_normal", seed=5, k=0.3).get_config()
    {'seed': 5, 'scaled': False, 'k': 0.3}
    """
    initializer = get(identifier)
    if isinstance(initializer, keras.initializers.Initializer):
        config = initializer.get_config()
        missing = {name: value for name, value in values.items() if name in config and config[name] is None}
        if missing:
            return type(initializer).from_config({**config, **missing})
    return initializer


def without_seed(identifier: Any) -> Any:
    """Retrieves an initializer like `get`, and removes its seed if it has one."""
    initializer = get(identifier)
    if isinstance(initializer, keras.initializers.Initializer) and "seed" in (config := initializer.get_config()):
        return type(initializer).from_config({**config, "seed": None})
    return initializer


def serialize(initializer: Any) -> Any:
    """Returns the config of an initializer, for `deserialize`."""
    return keras.initializers.serialize(initializer)


def deserialize(config: Any) -> Any:
    """Returns the initializer that a serialized config describes."""
    return get(config)
