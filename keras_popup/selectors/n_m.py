"""NM: exactly N weights of each M along the inputs."""

import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_popup.selectors import plain
from keras_popup.selectors.choices import ByChoice, Choice, spread_by_sign
from keras_popup.selectors.counts import check_k, count_kept
from keras_popup.selectors.matrices import Axes, Layout, find_layout
from keras_popup.selectors.thresholds import count_kept_tensor

_MOST = 32


@keras.saving.register_keras_serializable("keras_popup")
class NM(ByChoice):
    """Keeps N weights of each M that follow each other along the inputs of a kernel: N:M masks.

    N is k * M: k = 0.5 and M = 4 give the 2:4 masks that GPUs multiply faster. In each group of M scores s,

        m_i  = 1 where |s_i| is among the N largest of its group, else 0
        dL/ds = dL/dm * sign(s)

    Each group has exactly N ones. Of equal magnitudes the one of the lower input wins, NaN ranks below every number.
    The groups run along the input channels of the kernel: its first axis in `Dense`, the last but one in `Conv2D`. A
    schedule of k rounds k * M half up.

    Reference:
        Fang et al., [MaskLLM](https://arxiv.org/abs/2409.17481), for learned masks of this form. There each of the
        possible patterns has a logit; here each weight has a score.

    Args:
        m: int from 2 to 32, the size of a group. M must divide the number of inputs.

    Call arguments:
        scores: float32 tensor of known shape.
        k: the fraction kept, N / M: a Python number or a float64 scalar tensor.
        training: ignored, the choice is the same.
        axes: (axes of inputs, axes of outputs) of the scores, two tuples of ints. The default is that of `Dense`.

    Output shape:
        Same as `scores`, float32, exactly 0 or 1.

    Raises:
        TypeError: if the scores are a tensor or array of another type than float32.
        ValueError: if `m` is out of its range, if M does not divide the number of inputs, or if a layer's `k` is not
            N / M.

    Example:

    >>> import keras_popup
    >>> mask = keras_popup.selectors.NM(m=2)([[0.1], [-0.9], [0.5], [0.2]], k=0.5)
    >>> mask.numpy().ravel().tolist()
    [0.0, 1.0, 1.0, 0.0]
    """

    takes = ("axes",)

    def __init__(self, m: int = 4) -> None:
        if type(m) is not int or not 2 <= m <= _MOST:
            raise ValueError(f"`m` must be an integer from 2 to {_MOST}. Received: {m!r}.")
        self.m = m

    def choice(self, shape: tuple[int, ...], axes: tuple[Axes, Axes] | None = None, **takes: Any) -> Choice:
        layout = find_layout(shape, axes)
        if layout.matrices[1] % self.m:
            raise ValueError(f"m={self.m} does not divide the {layout.matrices[1]} inputs of scores of shape {shape}.")
        return Choice(_choose_in_groups, spread_by_sign, (self.m, layout))

    def count(self, scores: tf.Tensor, k: Any, **takes: Any) -> tf.Tensor:
        if isinstance(k, (int, float, np.number)):
            return tf.constant(self.count_in_group(float(k)), tf.int32)
        return tf.clip_by_value(count_kept_tensor(k, self.m), 1, self.m)

    def count_in_group(self, k: float) -> int:
        """Returns N, from 1 to M."""
        return max(1, count_kept(check_k(k), self.m))

    def check(
        self, shape: tuple[int, ...], k: float, where: str = "", axes: tuple[Axes, Axes] | None = None, **takes: Any
    ) -> None:
        inputs = find_layout(tuple(shape), axes).matrices[1]
        if inputs % self.m:
            raise ValueError(
                f"Masks of {self.m} weights each need a number of inputs that {self.m} divides. Received: {inputs} "
                f"inputs{where}. Leave the layer out with mask_model(exclude=...), or use another `m`."
            )
        nearest = self.round_k(shape, k)
        if abs(k - nearest) > 1e-9:
            raise ValueError(
                f"`k` must be N / {self.m} for a whole number N. Received: k={k}{where}. The nearest is {nearest:g}."
            )

    def round_k(self, shape: tuple[int, ...], k: float, **takes: Any) -> float:
        return self.count_in_group(k) / self.m

    def kept(self, scores: Any, k: float, **takes: Any) -> int:
        return int(math.prod(scores.shape)) // self.m * self.count_in_group(k)

    def mask_bits(self, shape: tuple[int, ...], k: float, **takes: Any) -> float:
        return math.prod(shape) // self.m * math.log2(math.comb(self.m, self.count_in_group(k)))

    def get_config(self) -> dict[str, Any]:
        return {"m": self.m}


def _choose_in_groups(scores: tf.Tensor, kept: tf.Tensor, hint: Any, m: int, layout: Layout) -> tuple[tf.Tensor, Any]:
    # All NaN are equal.
    ranks = layout.stack(tf.maximum(plain.rank_scores(scores), -1))
    members = tf.unstack(tf.reshape(ranks, [-1, m, layout.matrices[2]]), axis=1)
    # How many of the group come before each: those with a higher rank, and equal ones of a lower input.
    before = [
        tf.add_n(
            [
                tf.cast(other >= member if place < own else other > member, tf.int32)
                for place, other in enumerate(members)
                if place != own
            ]
        )
        for own, member in enumerate(members)
    ]
    chosen = tf.reshape(tf.stack(before, axis=1) < kept, layout.matrices)
    return tf.reshape(layout.unstack(chosen), [-1]), hint
