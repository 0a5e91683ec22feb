"""mask_summary: a table of the layers of a masked model."""

import dataclasses
import html
import itertools
import math
import sys
from collections.abc import Callable
from typing import Any

import keras
import rich.box
import rich.table

from keras_popup import initializers
from keras_popup._tables import format_table
from keras_popup.conversion import inspection
from keras_popup.conversion.patterns import Paths
from keras_popup.layers import MaskedKernel, MaskedLayer, own_weights


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


@dataclasses.dataclass(frozen=True, repr=False)
class MaskSummary:
    """The layers of a model that have weights, and totals over its masked kernels. `str()` gives a table.

    Attributes:
        name: str, the name of the model.
        layers: tuple of `LayerSummary`.
        weights: int, the number of weights of all masked kernels.
        kept: int, the number of these weights that the masks keep.
        one_bit_bytes: int, the size of all masks at one bit per weight: the sum of ceil(n / 8).
        entropy_bytes: int, the size of all masks at the entropy limit: the sum of ceil(log2 C(n, kept) / 8), or of what
            the selector says for masks of another kind.
        other_weights: int, the number of all other weights: biases, and weights of layers without a mask.
    """

    name: str
    layers: tuple[LayerSummary, ...]
    weights: int
    kept: int
    one_bit_bytes: int
    entropy_bytes: int
    other_weights: int
    _printed_in: int | None = dataclasses.field(default=None, compare=False)

    def __repr__(self) -> str:
        return f"<MaskSummary of '{self.name}': {self.kept:,} of {self.weights:,} weights kept>"

    def __str__(self) -> str:
        return self.format()

    def format(self, show_all: bool = False) -> str:
        """Returns the table as text.

        Args:
            show_all: bool. True has a row for every masked kernel, and for every layer without a mask. False leaves the
                latter out, and sums up the kernels of each block if there are more than 40.
        """
        masked = [row for row in self.layers if not row.not_masked]
        others = [row for row in self.layers if row.not_masked]
        rows = self.layers if show_all else tuple(masked)
        if blocks := not show_all and len(masked) > _MOST_ROWS:
            rows = _sum_blocks(masked)
        table = rich.table.Table(box=rich.box.SIMPLE_HEAD)
        for title in ("layer", "kind", "weights", "kept", "k", "seed", *(["not masked"] if show_all else [])):
            numeric = title in ("weights", "kept", "k", "seed")
            table.add_column(title, justify="right" if numeric else "left", max_width=70)
        for row in rows:
            of_mask = (f"{row.kept:,}", f"{row.k:.4g}") if row.kept is not None and row.k is not None else ("", "")
            seed = "" if row.seed is None else str(row.seed)
            reason = [row.not_masked] if show_all else []
            table.add_row(row.path, row.kind, f"{row.weights:,}", *of_mask, seed, *reason)
        lines = [
            f"Masked model: {self.name}",
            format_table(table),
            f" Masked kernels: {len(masked)}, {self.kept:,} of {self.weights:,} weights kept "
            f"({self.kept / self.weights:.2%})",
            f" Masks at one bit per weight: {self.one_bit_bytes:,} bytes",
            f" Masks at the entropy limit: {self.entropy_bytes:,} bytes",
            f" Other weights: {self.other_weights:,}",
            " kept: weights that the mask keeps; k: their fraction; seed: of the kernel and the first scores, none if "
            "the kernel is not drawn",
            " keras.Model.summary() counts each masked weight twice: as a weight of the kernel and as a score",
        ]
        if others and not show_all:
            count, weights = len(others), sum(row.weights for row in others)
            lines.append(
                f" Not masked: {count} layers with {weights:,} weights; show_all=True lists them with the reasons"
            )
        if blocks:
            lines.append(f" Each row is a block of kernels; show_all=True lists all {len(masked)}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """Returns the table for notebooks; nothing in the cell that has printed it already."""
        if _find_cell() is not None and _find_cell() == self._printed_in:
            return ""
        return f"<pre>{html.escape(self.format())}</pre>"


_MOST_ROWS = 40


def _find_share(kernel: MaskedKernel) -> float:
    """Returns the fraction that a kernel keeps: `k`, or what follows from the scores, of this kernel or of all."""
    return kernel.kept / kernel.size if kernel.selector.draws or kernel.group is not None else kernel.k


def _sum_blocks(rows: list[LayerSummary]) -> tuple[LayerSummary, ...]:
    """Returns one row for each block: layers that follow each other, and whose paths begin alike."""
    blocks = []
    for block, group in itertools.groupby(rows, lambda row: _find_block(row.path)):
        members = list(group)
        if len(members) == 1:
            blocks += members
            continue
        kept, weights = sum(row.kept or 0 for row in members), sum(row.weights for row in members)
        kind = f"{len(members)} kernels"
        blocks.append(LayerSummary(f"{block}...", kind, weights, kept, kept / weights))
    return tuple(blocks)


def _find_block(path: str) -> str:
    """Returns what the paths of a block have in common: two parts of a path, or of a name such as "stage1_block2_a"."""
    separator = "/" if "/" in path else "_"
    parts = path.split(separator)
    return separator.join(parts[: min(2, len(parts) - 1)]) + separator if len(parts) > 1 else path


def _find_cell() -> int | None:
    """Returns the number of the running notebook cell; None outside of notebooks."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return None if shell is None else int(shell.execution_count)


def mask_summary(
    model: keras.Model, print_fn: Callable[[str], Any] | None = None, *, show_all: bool = False
) -> MaskSummary:
    """Prints and returns a table of the masked kernels of a model.

    Args:
        model: a masked `keras.Model`, built.
        print_fn: function that takes the table as a str. None prints it, as in `keras.Model.summary`.
        show_all: bool. True prints the layers without a mask too, with the reasons, and a row for every kernel. False
            sums up the kernels of each block if there are more than 40.

    Returns:
        A `MaskSummary`, with all rows and totals.

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
    rows, other_weights, entropy_bytes = [], 0, 0
    paths = Paths(model)
    for path, layer in ("", model), *paths.found:
        weights = sum(math.prod(weight.shape) for weight in own_weights(layer))
        if isinstance(layer, MaskedLayer):
            several = len(layer.masked_kernels) > 1
            for name, kernel in layer.masked_kernels.items():
                weights -= sum(math.prod(variable.shape) for variable in kernel.variables().values())
                seed = kernel.seed if isinstance(kernel.initializer, initializers.FrozenInitializer) else None
                kernel_path = paths.of_kernel(layer, name, several) or model.name
                limit = kernel.selector.mask_bits(tuple(kernel.scores.shape), _find_share(kernel), **kernel.takes())
                entropy_bytes += math.ceil(limit / 8)
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
        entropy_bytes=entropy_bytes,
        other_weights=other_weights,
        _printed_in=_find_cell() if print_fn is None else None,
    )
    (print_fn or print)(summary.format(show_all))
    return summary
