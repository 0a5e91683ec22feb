"""Works on the masks of a whole model: sets k, and compares the masks of two models."""

import dataclasses
import itertools

import keras
import numpy as np
import rich.box
import rich.table

from keras_popup._tables import format_table
from keras_popup.conversion import inspection, patterns
from keras_popup.layers import pick_one_of_each


def set_k(model: keras.Model, k: patterns.Fractions) -> None:
    """Sets the fraction of weights kept in the masked layers of a model.

    The scores stay as they are, so the masks are those of the same scores with another k. Nothing needs to be compiled
    again. All values are checked before the first is set.

    Args:
        model: a masked `keras.Model`, built.
        k: as in `mask_model`: a float in (0, 1] for all kernels; a dict from patterns of layer paths to floats, in
            which the first match counts; or a function that takes a layer and returns a float. With a dict, kernels
            that no pattern matches keep their k.

    Raises:
        TypeError: if `model` is not a `keras.Model`.
        ValueError: if the model has no masked layer or is not built, if `k` is outside (0, 1] or keeps no weight of a
            kernel, or if a pattern matches nothing.

    Example:

    >>> import keras_popup
    >>> masked = keras_popup.mask_model(keras_popup.models.FullyConnected(), k=0.3, seed=1)
    >>> keras_popup.set_k(masked, {"dense1": 0.1})
    >>> [layer.k for layer in keras_popup.masked_layers(masked)]
    [0.1, 0.3, 0.3]
    """
    kernels = {(id(kernel.layer), kernel.name): kernel for _, kernel in inspection.find_kernels(model, "set_k")}
    chosen = [(kernel.layer, kernel.name) for kernel in kernels.values()]
    paths = patterns.Paths(model)
    if isinstance(k, dict):
        paths.check("k", k, chosen)
        chosen = [kernel for kernel in chosen if any(paths.match_kernel(kernel, pattern) for pattern in k)]
    sizes = {key: (kernel.group or kernel).size for key, kernel in kernels.items()}
    fractions = patterns.find_fractions(paths, chosen, k, lambda layer, name: sizes[id(layer), name])
    groups = {id(kernel.group): kernel for key, kernel in kernels.items() if kernel.group and key in fractions}
    for group, one in groups.items():
        of_all = [fractions.get(key, kernel.k) for key, kernel in kernels.items() if id(kernel.group) == group]
        patterns.check_one_k(k, of_all, one.selector)
    for key, fraction in fractions.items():
        if kernels[key].group is None:
            kernels[key].check_k(fraction)
    for kernel in pick_one_of_each(kernels[key] for key in fractions):
        kernel.k = fractions[id(kernel.layer), kernel.name]


@dataclasses.dataclass(frozen=True)
class KernelOverlap:
    """The masks of one kernel in two models.

    Attributes:
        path: str, the path of the layer; the kernel's name follows if the layer has several kernels.
        weights: int, the number of weights of the kernel.
        kept: pair of ints, how many weights each of the masks keeps.
        both: int, how many weights both masks keep.
    """

    path: str
    weights: int
    kept: tuple[int, int]
    both: int

    @property
    def iou(self) -> float:
        """Weights that both keep, as a share of those that at least one keeps: 1 for equal masks."""
        return _compute_iou(self.both, self.kept)

    @property
    def chance(self) -> float:
        """The `iou` to be expected of two random masks that keep as many weights."""
        return _compute_iou(self.kept[0] * self.kept[1] / self.weights, self.kept)


@dataclasses.dataclass(frozen=True)
class MaskComparison:
    """The masks of two models of the same architecture. `str()` gives a table.

    Attributes:
        kernels: tuple of `KernelOverlap`.
    """

    kernels: tuple[KernelOverlap, ...]

    @property
    def both(self) -> int:
        """How many weights the masks of both models keep, over all kernels."""
        return sum(kernel.both for kernel in self.kernels)

    @property
    def iou(self) -> float:
        """Weights that both models keep, as a share of those that at least one keeps, over all kernels."""
        return _compute_iou(self.both, self._kept)

    @property
    def chance(self) -> float:
        """The `iou` to be expected of random masks that keep as many weights of each kernel."""
        return _compute_iou(sum(each.kept[0] * each.kept[1] / each.weights for each in self.kernels), self._kept)

    @property
    def _kept(self) -> tuple[int, int]:
        return sum(kernel.kept[0] for kernel in self.kernels), sum(kernel.kept[1] for kernel in self.kernels)

    def __str__(self) -> str:
        table = rich.table.Table(box=rich.box.SIMPLE_HEAD)
        for title in ("layer", "weights", "kept by the first", "by the second", "by both", "IoU", "by chance"):
            table.add_column(title, justify="left" if title == "layer" else "right", max_width=70)
        total = KernelOverlap("all", sum(each.weights for each in self.kernels), self._kept, self.both)
        for row, iou, chance in (
            *((each, each.iou, each.chance) for each in self.kernels),
            (total, self.iou, self.chance),
        ):
            counts = (f"{number:,}" for number in (row.weights, *row.kept, row.both))
            table.add_row(row.path, *counts, f"{iou:.3f}", f"{chance:.3f}", end_section=row is self.kernels[-1])
        return format_table(table)


def compare_masks(first: keras.Model, second: keras.Model) -> MaskComparison:
    """Compares the masks of two models, kernel by kernel.

    For masks a and b of a kernel, IoU = |a and b| / |a or b|. Masks that keep `p` and `q` of n weights at random are
    expected to have p q / n weights in common.

    Args:
        first: a masked `keras.Model`, built.
        second: a masked model of the same architecture: the kernels are paired in their order, and must have the same
            shapes. Their values need not be the same.

    Returns:
        A `MaskComparison`, with counts, IoU and the IoU to be expected by chance, in all and for each kernel.

    Raises:
        TypeError: if one of them is not a `keras.Model`.
        ValueError: if a model has no masked layer or is not built, or if the kernels have other shapes.

    Example:

    >>> import keras_popup
    >>> masked = keras_popup.mask_model(keras_popup.models.FullyConnected(), k=0.5, seed=1)
    >>> other = keras_popup.mask_model(keras_popup.models.FullyConnected(), k=0.5, seed=2)
    >>> comparison = keras_popup.compare_masks(masked, other)
    >>> f"{comparison.iou:.2f}, by chance {comparison.chance:.2f}"
    '0.33, by chance 0.33'
    """
    pairs = [inspection.find_kernels(model, "compare_masks") for model in (first, second)]
    for number, both in enumerate(itertools.zip_longest(*pairs), 1):
        shapes = [each and tuple(each[1].scores.shape) for each in both]
        if shapes[0] != shapes[1]:
            described = [f"'{each[0]}' of shape {tuple(each[1].scores.shape)}" if each else "nothing" for each in both]
            raise ValueError(
                "compare_masks takes two models whose masked kernels have the same shapes. "
                f"Received: as kernel {number}, {described[0]} in the first and {described[1]} in the second."
            )
    overlaps = []
    for (path, kernel), (_, other) in zip(*pairs, strict=True):
        masks = [each.mask().numpy().astype(bool) for each in (kernel, other)]
        kept = int(np.count_nonzero(masks[0])), int(np.count_nonzero(masks[1]))
        overlaps.append(KernelOverlap(path, kernel.size, kept, int(np.count_nonzero(masks[0] & masks[1]))))
    return MaskComparison(tuple(overlaps))


def _compute_iou(both: float, kept: tuple[int, int]) -> float:
    return both / ((sum(kept) - both) or 1)
