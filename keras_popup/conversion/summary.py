"""mask_summary: a table of the layers of a masked model."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import keras
import rich.box
import rich.table

from keras_popup import initializers, selectors
from keras_popup._tables import format_table
from keras_popup.conversion import inspection
from keras_popup.conversion.patterns import Paths
from keras_popup.layers import MaskedLayer, own_weights


@dataclasses.dataclass(frozen=True)
class LayerSummary:
    """One masked kernel, or one layer with weights of its own and without a mask.

    Attributes:
        path: str, the path of the layer: the names of the layers that hold it, then its own name. The kernel's name
            follows if the layer has several kernels.
        kind: str, the class of the layer.
        weights: int, the number of weights of the kernel; of a layer without a mask, the number of all its weights.
        kept: int, the number of weights that the mask keeps. None without a mask.
        k: float, the fraction kept. None without a mask.
        seed: int, the seed of the kernel and the initial scores. None if the kernel is not drawn from a seed.
        not_masked: str, the reason why the layer has no mask. Empty for a masked kernel.
    """

    path: str
    kind: str
    weights: int
    kept: int | None = None
    k: float | None = None
    seed: int | None = None
    not_masked: str = ""


@dataclasses.dataclass(frozen=True)
class MaskSummary:
    """The layers of a model that have weights, and totals over its masked kernels. `str()` gives a table.

    Attributes:
        name: str, the name of the model.
        layers: tuple of `LayerSummary`.
        weights: int, the number of weights of all masked kernels.
        kept: int, the number of these weights that the masks keep.
        one_bit_bytes: int, the size of all masks at one bit per weight: the sum of ceil(n / 8).
        entropy_bytes: int, the size of all masks at the entropy limit: the sum of ceil(log2 C(n, kept) / 8).
        other_weights: int, the number of all other weights: biases, and weights of layers without a mask.
    """

    name: str
    layers: tuple[LayerSummary, ...]
    weights: int
    kept: int
    one_bit_bytes: int
    entropy_bytes: int
    other_weights: int

    def __str__(self) -> str:
        table = rich.table.Table(box=rich.box.SIMPLE_HEAD)
        for title in ("layer", "kind", "weights", "kept", "k", "seed", "not masked"):
            numeric = title in ("weights", "kept", "k", "seed")
            table.add_column(title, justify="right" if numeric else "left", max_width=70)
        for row in self.layers:
            masked = (f"{row.kept:,}", f"{row.k:.4g}") if row.kept is not None and row.k is not None else ("", "")
            seed = "" if row.seed is None else str(row.seed)
            table.add_row(row.path, row.kind, f"{row.weights:,}", *masked, seed, row.not_masked)
        masked_layers = sum(not row.not_masked for row in self.layers)
        lines = [
            f"Masked model: {self.name}",
            format_table(table),
            f" Masked layers: {masked_layers}, {self.kept:,} of {self.weights:,} weights kept "
            f"({self.kept / self.weights:.2%})",
            f" Masks at one bit per weight: {self.one_bit_bytes:,} bytes",
            f" Masks at the entropy limit: {self.entropy_bytes:,} bytes",
            f" Other weights: {self.other_weights:,}",
        ]
        return "\n".join(lines)


def mask_summary(model: keras.Model, print_fn: Callable[[str], Any] | None = None) -> MaskSummary:
    """Prints and returns a table of the masked kernels of a model, and of its layers without a mask and the reasons.

    Args:
        model: a masked `keras.Model`, built.
        print_fn: function that takes the table as a str. None prints it, as in `keras.Model.summary`.

    Returns:
        A `MaskSummary`, with the rows and totals of the table.

    Raises:
        TypeError: if `model` is not a `keras.Model`.
        ValueError: if the model has no masked layer, or is not built.

    Example:

    >>> import keras_popup
    >>> masked = keras_popup.mask_model(keras_popup.models.FullyConnected(), k=0.3, seed=1)
    >>> keras_popup.mask_summary(masked, print_fn=lambda text: None).entropy_bytes
    29323
    """
    inspection.find_kernels(model, "mask_summary")
    rows, other_weights = [], 0
    paths = Paths(model)
    for path, layer in ("", model), *paths.found:
        weights = sum(math.prod(weight.shape) for weight in own_weights(layer))
        if isinstance(layer, MaskedLayer):
            several = len(layer.masked_kernels) > 1
            for name, kernel in layer.masked_kernels.items():
                # Subtract the kernel, its scores, k and the count of draws.
                weights -= 2 * kernel.size + 1 + kernel.selector.draws
                seed = kernel.seed if isinstance(kernel.initializer, initializers.FrozenInitializer) else None
                kernel_path = paths.of_kernel(layer, name, several) or model.name
                rows.append(LayerSummary(kernel_path, type(layer).__name__, kernel.size, kernel.kept, kernel.k, seed))
            other_weights += weights
        elif weights:
            other_weights += weights
            reason = inspection.reason_not_masked(layer)
            rows.append(LayerSummary(path or model.name, type(layer).__name__, weights, not_masked=reason))
    sizes = [(row.weights, row.kept) for row in rows if row.kept is not None]
    summary = MaskSummary(
        name=model.name,
        layers=tuple(rows),
        weights=sum(size for size, _ in sizes),
        kept=sum(kept for _, kept in sizes),
        one_bit_bytes=sum(-(-size // 8) for size, _ in sizes),
        entropy_bytes=sum(math.ceil(selectors.entropy_bits(size, kept) / 8) for size, kept in sizes),
        other_weights=other_weights,
    )
    (print_fn or print)(str(summary))
    return summary
