"""TopK: the k best-scored weights, by edge-popup."""

import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from keras_popup.selectors.choices import ByChoice, Choice, choose_largest, spread_by_sign
from keras_popup.selectors.counts import check_kept, count_kept, entropy_bits


@keras.saving.register_keras_serializable("keras_popup")
class TopK(ByChoice):
    """Keeps the k best-scored weights of a layer: edge-popup.

    With n scores s and `kept = min(n, round-half-up(k * n))`,

        m_i  = 1 where |s_i| is among the `kept` largest, else 0
        dL/ds = dL/dm * sign(s)

    The gradient goes straight through the choice and exactly through the magnitude. The mask has exactly
    `kept` ones: of equal magnitudes the lower flat index (C order) wins, NaN ranks below every number.
    It is the same eagerly, in a graph and under XLA, and costs a number of passes over the scores that
    does not depend on n.

    With `pruned` or `locked`, a part of the mask is fixed: a layer draws from its seed
    which round-half-up(pruned * n) weights are never kept and which round-half-up(locked * n) always are. Scores
    choose among the others, `kept` in all. Only these take bits in a ticket.

    Reference:
        Ramanujan et al., [What's Hidden in a Randomly Weighted Neural
        Network?](https://arxiv.org/abs/1911.13299), section 3. Otsuka et al., [Partially Frozen Random Networks
        Contain Compact Strong Lottery Tickets](https://arxiv.org/abs/2402.14029), for fixed parts.

    Args:
        pruned: float in [0, 1), the share of the weights that is never kept.
        locked: float in [0, 1), the share of the weights that is always kept.

    Call arguments:
        scores: float32 tensor, of any shape with 1 to 2**31 - 1 elements.
        k: the fraction kept, in (0, 1]: a Python number or a float64 scalar tensor.
        training: ignored, the choice is the same.
        fixed: int8 tensor of the shape of `scores`, required with `pruned` or `locked`: -1 for weights that are
            never kept, 1 for those that always are, 0 for the others. See `draw_fixed`.

    Output shape:
        Same as `scores`, float32, exactly 0 or 1.

    Raises:
        TypeError: if the scores are a tensor or array of another type than float32.
        ValueError: if `pruned` and `locked` are out of their range, or leave nothing to choose; if a Python `k` is
            outside (0, 1] or keeps no weight; if a layer's `k` is below `locked` or above 1 - `pruned`.

    Example:

    >>> import keras_popup
    >>> mask = keras_popup.selectors.TopK()([0.1, -0.9, 0.5, -0.2], k=0.5)
    >>> mask.numpy().tolist()
    [0.0, 1.0, 1.0, 0.0]
    """

    pruned = locked = 0.0  # of subclasses with a constructor of their own

    def __init__(self, pruned: float = 0.0, locked: float = 0.0) -> None:
        for name, share in (("pruned", pruned), ("locked", locked)):
            if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 <= share < 1:
                raise ValueError(f"`{name}` must be a number in [0, 1). Received: {name}={share!r}.")
        if pruned + locked >= 1:
            raise ValueError(
                "`pruned` and `locked` must leave weights to choose from: their sum must be below 1. Received: "
                f"pruned={pruned}, locked={locked}."
            )
        self.pruned, self.locked = float(pruned), float(locked)
        self.takes = ("fixed",) if pruned or locked else ()
        self.k_range = self.locked, 1 - self.pruned

    def choice(self, shape: tuple[int, ...], **takes: Any) -> Choice:
        return Choice(_choose_others if self.takes else choose_largest, spread_by_sign)

    def list_fixed(self, fixed: Any = None, **takes: Any) -> tuple[tf.Tensor, ...]:
        if not self.takes:
            return ()
        if fixed is None:
            raise ValueError(
                f"TopK(pruned={self.pruned}, locked={self.locked}) needs `fixed`, which weights these are: "
                "selector.draw_fixed(shape, seed). Received: fixed=None."
            )
        return (tf.convert_to_tensor(fixed, tf.int8),)

    def check(self, shape: tuple[int, ...], k: float, where: str = "", **takes: Any) -> None:
        size = math.prod(shape)
        kept = check_kept(k, size, where)
        pruned, locked = self._count_fixed(size)
        if not locked <= kept <= size - pruned:
            raise ValueError(
                f"k={k} keeps {kept} of the {size} weights{where}, of which {locked} are always kept and {pruned} "
                f"never: locked={self.locked}, pruned={self.pruned}. Use a k from `locked` to 1 - `pruned`."
            )

    def round_k(self, shape: tuple[int, ...], k: float, **takes: Any) -> float:
        size = math.prod(shape)
        pruned, locked = self._count_fixed(size)
        kept = count_kept(k, size)
        possible = min(max(kept, locked), size - pruned)
        return k if possible == kept else possible / size

    def mask_bits(self, shape: tuple[int, ...], k: float, **takes: Any) -> float:
        size = math.prod(shape)
        pruned, locked = self._count_fixed(size)
        return entropy_bits(size - pruned - locked, count_kept(self.round_k(shape, k), size) - locked)

    def _count_fixed(self, size: int) -> tuple[int, int]:
        return count_kept(self.pruned, size), count_kept(self.locked, size)

    def draw_fixed(self, shape: tuple[int, ...], seed: int) -> NDArray[np.int8]:
        """Returns which weights are fixed: -1 for never kept, 1 for always kept, 0 for the others.

        Each weight has a 64-bit number, the raw output of NumPy's Philox with the seed as its key. The weights with the
        smallest numbers are never kept, those with the largest always.

        Args:
            shape: tuple of ints, the shape of the kernel.
            seed: integer in [0, 2**64).
        """
        size = math.prod(shape)
        pruned, locked = self._count_fixed(size)
        order = np.argsort(np.random.Philox(key=seed).random_raw(size), kind="stable")
        fixed = np.zeros(size, np.int8)
        fixed[order[:pruned]] = -1
        fixed[order[size - locked :]] = 1
        return fixed.reshape(shape)

    def get_config(self) -> dict[str, Any]:
        # Left out if there are none, so that earlier versions can read the file.
        return {"pruned": self.pruned, "locked": self.locked} if self.takes else {}


def _choose_others(scores: tf.Tensor, kept: tf.Tensor, hint: Any, fixed: tf.Tensor) -> tuple[tf.Tensor, Any]:
    """As `choose_largest`, of the scores that are not fixed."""
    locked, free = fixed > 0, tf.equal(fixed, 0)
    wanted = kept - tf.reduce_sum(tf.cast(locked, tf.int32))
    # NaN ranks below every number, so that fixed ones are never chosen. Those of scores that are free count as 0.
    numbers = tf.where(tf.math.is_nan(scores), tf.zeros_like(scores), scores)
    chosen, next_hint = choose_largest(
        tf.where(free, numbers, tf.fill(tf.shape(scores), math.nan)), tf.maximum(wanted, 1), hint
    )
    return locked | (free & chosen & (wanted > 0)), next_hint
