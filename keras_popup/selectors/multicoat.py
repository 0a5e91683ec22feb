"""MultiCoat: the sum of several masks with falling k."""

import itertools
import math
from typing import Any

import keras
import tensorflow as tf

from keras_popup.selectors.choices import ByChoice, Choice, choose_largest, count_kept_of
from keras_popup.selectors.counts import check_kept, count_kept, entropy_bits


@keras.saving.register_keras_serializable("keras_popup")
class MultiCoat(ByChoice):
    """Adds several masks of the same scores, with falling k: multicoated masks.

    With N coats, n scores s and `kept_j = round-half-up(k * (N + 1 - j) / N * n)` for j from 1 to N,

        m_i  = the number of coats j for which |s_i| is among the `kept_j` largest: 0 to N
        dL/ds = N * dL/dm * sign(s)

    So of the kept weights those with the best scores count more. `k` is the fraction that is kept at all. Each coat
    has exactly its number of weights. With one coat it is `TopK`. A ticket takes the bits of the first mask, and those
    of each further one among the weights of the one before. The int8 export stays exact.

    Reference:
        Okoshi et al., [Multicoated Supermasks Enhance Hidden
        Networks](https://proceedings.mlr.press/v162/okoshi22a.html).

    Args:
        coats: int from 1 to 127, the number of masks.

    Call arguments:
        scores: float32 tensor, of any shape with 1 to 2**31 - 1 elements.
        k: the fraction kept, in (0, 1]: a Python number or a float64 scalar tensor.
        training: ignored, the choice is the same.

    Output shape:
        Same as `scores`, float32, whole numbers from 0 to `coats`.

    Raises:
        TypeError: if the scores are a tensor or array of another type than float32.
        ValueError: if `coats` is out of its range; if a Python `k` is outside (0, 1], or if a coat keeps no weight.

    Example:

    >>> import keras_popup
    >>> mask = keras_popup.selectors.MultiCoat(coats=2)([0.1, -0.9, 0.5, -0.2], k=0.5)
    >>> mask.numpy().tolist()
    [0.0, 2.0, 1.0, 0.0]
    """

    def __init__(self, coats: int = 2) -> None:
        if type(coats) is not int or not 1 <= coats <= 127:
            raise ValueError(f"`coats` must be an integer from 1 to 127. Received: {coats!r}.")
        self.coats = coats
        self.levels = tuple(range(coats + 1))
        self.hint_shape = (coats,)

    def choice(self, shape: tuple[int, ...], **takes: Any) -> Choice:
        return Choice(_add_coats, _spread, (self.coats,))

    def _shares(self) -> list[float]:
        """Returns the k of each coat as a share of the layer's."""
        return [(self.coats - coat) / self.coats for coat in range(self.coats)]

    def count(self, scores: tf.Tensor, k: Any, **takes: Any) -> tf.Tensor:
        # A schedule may pass a k for which the last coat would be empty.
        return tf.maximum(tf.stack([count_kept_of(scores, k * share) for share in self._shares()]), 1)

    def check(self, shape: tuple[int, ...], k: float, where: str = "", **takes: Any) -> None:
        for share in self._shares():
            check_kept(k * share, math.prod(shape), where)

    def mask_bits(self, shape: tuple[int, ...], k: float, **takes: Any) -> float:
        size = math.prod(shape)
        counts = [size, *(count_kept(k * share, size) for share in self._shares())]
        return sum(entropy_bits(*pair) for pair in itertools.pairwise(counts))

    def get_config(self) -> dict[str, Any]:
        return {"coats": self.coats}


def _add_coats(scores: tf.Tensor, kept: tf.Tensor, hint: Any, coats: int) -> tuple[tf.Tensor, Any]:
    total, hints = tf.zeros(tf.shape(scores), tf.int8), []
    for coat in range(coats):  # added one by one: there are up to 127
        chosen, next_hint = choose_largest(scores, kept[coat], None if hint is None else hint[coat])
        total += tf.cast(chosen, tf.int8)
        hints.append(next_hint)
    return total, None if hint is None else tf.stack(hints)


def _spread(upstream: tf.Tensor, scores: tf.Tensor, coats: int) -> tf.Tensor:
    return coats * upstream * tf.sign(scores)
