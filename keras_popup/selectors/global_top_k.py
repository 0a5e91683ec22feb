"""GlobalTopK: the k best-scored weights of a whole network."""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from keras_popup.selectors import programs
from keras_popup.selectors.base import Selector
from keras_popup.selectors.choices import ByChoice, Choice, choose_largest, count_kept_of, spread_by_sign
from keras_popup.selectors.counts import check_k, check_kept
from keras_popup.selectors.group_thresholds import choose_above, find_thresholds
from keras_popup.selectors.thresholds import count_kept_tensor

_BOUNDARIES = {True: 0.5, False: 2.0**-5}
"""Where `scores_for` puts the threshold, with `scale` and without: in the middle of scores of 1,000 inputs or so."""


@keras.saving.register_keras_serializable("keras_popup")
class GlobalTopK(ByChoice):
    """Keeps the k best-scored weights of all kernels together: one k and one threshold for the whole network.

    With kernels i of n_i weights, scores s_i, `kept = round-half-up(k * sum(n_i))` and a scale c_i,

        m_ij = 1 where |s_ij| / c_i is among the `kept` largest of the network, else 0
        dL/ds = dL/dm * sign(s)

    With `scale`, c_i = 1 / sqrt(fan_in), the bound of the initial scores, so that kernels of all widths compete alike.
    Initial scores by "magnitude" have a mean square of c_i**2 / 3 in each kernel too: so the scale is right for both,
    and without it wide kernels would lose all their weights. Without `scale`, c_i = 1: the scores themselves compete.

    No kernel may lose all its weights. So each keeps its own best `max(1, floor(f * k * n_i))`, with `f` the argument
    `floor`, and the others compete. The network has exactly `kept` ones: of equal sizes, those of the kernel that comes
    first in the network win, then lower flat indices (C order). NaN ranks below every number. |s| / c is computed as
    |s| * sqrt(fan_in), in float32.

    `mask_model` makes the group of kernels that choose together: all that it masks. All have one `k`: a new one for one
    layer is that of all. A layer by hand, such as `MaskedDense(selector="global_top_k")`, is alone and keeps what
    `TopK` would, unless `group`, `place` and `members` say to which group it belongs.

    Reference:
        Diffenderfer and Kailkhura, [Multi-Prize Lottery Ticket Hypothesis](https://arxiv.org/abs/2103.09377). Huang et
        al., [You Can Have Better Graph Neural Networks by Not Training Weights at
        All](https://arxiv.org/abs/2211.15335), with a gradual k.

    Args:
        floor: float in [0, 1], the share of its k * n_i weights that each kernel keeps in any case.
        scale: bool, whether the scores of each kernel are divided by 1 / sqrt(fan_in).
        group: integer in [0, 2**64), the same in all kernels that choose together; None for a kernel on its own.
        place: int, the place of the kernel in the group, from 0 to `members` - 1.
        members: int, the number of kernels in the group.

    Call arguments:
        scores: float32 tensor, of any shape with 1 to 2**31 - 1 elements.
        k: the fraction kept, in (0, 1]: a Python number or a float64 scalar tensor. Ignored with a `threshold`.
        training: ignored, the choice is the same.
        threshold: int64 scalar tensor of `find_thresholds`. None chooses among these scores alone.
        fans: (fan_in, fan_out) of the kernel, required with a `threshold`.

    Output shape:
        Same as `scores`, float32, exactly 0 or 1.

    Raises:
        TypeError: if the scores are a tensor or array of another type than float32.
        ValueError: if an argument is out of its range, if only a part of `group`, `place` and `members` is given, or if
            a Python `k` is outside (0, 1] or keeps no weight.

    Example:

    >>> import keras_popup
    >>> selector = keras_popup.selectors.GlobalTopK(floor=0.0, scale=False)
    >>> scores = [[0.9, -0.8, 0.7, 0.1], [0.3, 0.2]]
    >>> thresholds, _ = selector.find_thresholds(scores, 0.5, fans=[(1, 1), (1, 1)])
    >>> [selector(s, None, threshold=t, fans=(1, 1)).numpy().tolist() for s, t in zip(scores, thresholds)]
    [[1.0, 1.0, 0.0, 0.0], [1.0, 0.0]]
    """

    takes = ("threshold", "fans")
    hint_shape = (2,)

    def __init__(
        self,
        floor: float = 0.1,
        scale: bool = True,
        group: int | None = None,
        place: int | None = None,
        members: int | None = None,
    ) -> None:
        if isinstance(floor, bool) or not isinstance(floor, (int, float)) or not 0 <= floor <= 1:
            raise ValueError(f"`floor` must be a number in [0, 1]. Received: {floor!r}.")
        if not isinstance(scale, bool):
            raise ValueError(f"`scale` must be True or False. Received: {scale!r}.")
        self.floor, self.scale = float(floor), scale
        parts = (group, place, members)
        if not all(part is None for part in parts) and not (
            all(type(part) is int for part in parts) and 0 <= group < 2**64 and 0 <= place < members  # type: ignore
        ):
            raise ValueError(
                "`group`, `place` and `members` must be None, or an integer in [0, 2**64), one from 0 to members - 1, "
                f"and the number of members. Received: {group=}, {place=}, {members=}."
            )
        self.group, self.place, self.members = parts

    def at_place(self, group: int, place: int, members: int) -> "GlobalTopK":
        """Returns the same selector for the kernel at a place of a group."""
        return GlobalTopK(self.floor, self.scale, group, place, members)

    def choice(self, shape: tuple[int, ...], threshold: Any = None, fans: Any = None, **takes: Any) -> Choice:
        if threshold is None:
            return Choice(choose_largest, spread_by_sign)
        return Choice(choose_above, spread_by_sign, (self._multiplier(fans),))

    def count(self, scores: tf.Tensor, k: Any, threshold: Any = None, **takes: Any) -> tf.Tensor:
        return count_kept_of(scores, k) if threshold is None else tf.convert_to_tensor(threshold, tf.int64)

    def masked_kernel(
        self, kernel: tf.Tensor, scores: tf.Tensor, k: Any, training: bool, dtype: str, hint: Any = None, **takes: Any
    ) -> tf.Tensor:
        # The hints are those of the threshold, which is found already.
        return super().masked_kernel(kernel, scores, k, training, dtype, None, **takes)

    def kept(self, scores: Any, k: float, threshold: Any = None, **takes: Any) -> int:
        if threshold is None:
            return super().kept(scores, k)
        return Selector.kept(self, scores, k, threshold=threshold, **takes)

    def check(self, shape: tuple[int, ...], k: float, where: str = "", **takes: Any) -> None:
        # Of a group, the sizes of all kernels decide: `check_group`.
        check_kept(k, math.prod(shape), where) if self.group is None else check_k(k)

    def check_group(self, sizes: Sequence[int], k: float) -> None:
        """Raises ValueError if `k` does not keep a weight of each kernel, or if there are too many weights.

        Args:
            sizes: list of ints, the numbers of weights of all kernels of the group.
            k: float in (0, 1].
        """
        total = sum(sizes)
        if total >= 2**31:
            raise ValueError(
                f"A group may have 2**31 - 1 weights at most. Received: {total:,}. Use the selector 'top_k'."
            )
        kept = check_kept(k, total, " of the network")
        if kept < (least := sum(self.find_floor(k, size) for size in sizes)):
            raise ValueError(
                f"k={k} keeps {kept} of the {total} weights of the network, but each of its {len(sizes)} kernels keeps "
                f"one at least: {least} in all. Use a larger k, or exclude small layers."
            )

    def find_floor(self, k: float, size: int) -> int:
        """Returns how many weights a kernel keeps in any case."""
        return max(1, math.floor(self.floor * size * k))

    def find_thresholds(
        self, scores: Sequence[Any], k: Any, fans: Sequence[tuple[int, int]], hints: Any = None
    ) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Finds the thresholds of the kernels of a group.

        Args:
            scores: list of float32 tensors, the scores of all kernels in their order.
            k: the fraction kept of all of them: a number or a float64 scalar tensor.
            fans: list of (fan_in, fan_out).
            hints: int64 tensor of shape (G + 1,) for G kernels, any numbers, best those that the last call returned.

        Returns:
            (thresholds, hints): a list of int64 scalars, and the hints for the next call.
        """
        scores = [tf.convert_to_tensor(each, tf.float32) for each in scores]
        sizes = [programs.static_size(each) for each in scores]
        if isinstance(k, (int, float)):
            self.check_group(sizes, k)
        k = tf.convert_to_tensor(k, tf.float64)
        floors = tf.math.floor(tf.constant([self.floor * size for size in sizes], tf.float64) * k)
        floors = tf.maximum(tf.cast(floors, tf.int32), 1)
        hints = tf.zeros(len(sizes) + 1, tf.int64) if hints is None else hints
        multipliers = tuple(self._multiplier(each) for each in fans)
        return find_thresholds(scores, multipliers, floors, count_kept_tensor(k, sum(sizes)), hints)

    def _multiplier(self, fans: tuple[int, int]) -> float:
        return math.sqrt(max(1, fans[0])) if self.scale else 1.0

    def scores_for(
        self, mask: NDArray[Any], start: NDArray[np.float32], fans: tuple[int, int] = (1, 1)
    ) -> NDArray[np.float32]:
        """Returns scores for which this selector chooses `mask`, if those of the other kernels come from here too.

        They have the signs of `start`. Divided by c_i, the magnitudes of kept weights are between a number b and 2 b,
        which is the same for all kernels, and those of the others are below b.

        Args:
            mask: array of zeros and ones.
            start: array of the same shape, initial scores.
            fans: (fan_in, fan_out) of the kernel.
        """
        magnitudes = np.abs(start) / (np.abs(start).max(initial=0) or np.float32(1))
        placed = np.where(mask != 0, 1 + magnitudes, magnitudes * np.float32(0.999))
        boundary = np.float32(_BOUNDARIES[self.scale] / self._multiplier(fans))
        return np.copysign((placed * boundary).astype(np.float32), start)

    def get_config(self) -> dict[str, Any]:
        config: dict[str, Any] = {"floor": self.floor, "scale": self.scale}
        if self.group is None:
            return config
        return {**config, "group": self.group, "place": self.place, "members": self.members}
