"""Pictures of masks and scores, by matplotlib: the extra `plots`."""

import functools
import math
from collections.abc import Callable
from typing import Any, ParamSpec

import keras
import numpy as np

from keras_popup import _style, conversion
from keras_popup.layers import MaskedKernel

__all__ = ["plot_mask_flow", "plot_mask_overlap", "plot_masks", "plot_scores"]

_MOST_KERNELS = 24
_MOST_FILTERS = 12

_KEPT, _LEFT_OUT, _MARK = _style.KEPT, _style.LEFT_OUT, _style.MARK


P = ParamSpec("P")


def _styled(draw: Callable[P, Any]) -> Callable[P, Any]:
    """Makes a function draw in the style of the project. It raises ImportError if matplotlib is not installed."""

    @functools.wraps(draw)
    def styled(*args: P.args, **kwargs: P.kwargs) -> Any:
        _check_matplotlib()
        import matplotlib

        with matplotlib.rc_context(_style.matplotlib_settings()):
            return draw(*args, **kwargs)

    return styled


@_styled
def plot_masks(model: keras.Model, *, figure: Any = None) -> Any:
    """Draws what the masks of a model keep.

    At the left is the share kept of each kernel. Beside it is a map for each kernel, inputs down and outputs across:
    the darker, the more of the weights between them are kept. Windows of convolutions are averaged, and so are
    neighbours where there are more than 64 channels. If the first kernel is that of a 2D convolution of images, its
    filters follow, before and after the mask.

    Args:
        model: a masked `keras.Model`, built.
        figure: a matplotlib figure to draw into. None makes one.

    Returns:
        The matplotlib `Figure`. A notebook shows it; `figure.savefig("masks.png")` writes it.

    Raises:
        ImportError: if matplotlib is not installed.
        TypeError: if `model` is not a `keras.Model`.
        ValueError: if the model has no masked layer, or is not built.

    Example:

    >>> import keras_popup
    >>> masked = keras_popup.mask_model(keras_popup.models.FullyConnected(), k=0.3, seed=1)
    >>> figure = keras_popup.plot_masks(masked)
    >>> len(figure.axes)
    4
    """
    kernels = conversion.find_kernels(model, "plot_masks")
    shown = kernels[:_MOST_KERNELS]
    filters = _has_filters(shown[0][1])
    columns = min(4, max(2, math.ceil(math.sqrt(len(shown)))))
    rows = math.ceil(len(shown) / columns)
    figure = figure or _make_figure(3.2 + 2.1 * columns, 2.1 * rows + 2.2 * filters + 0.4)
    parts = figure.subfigures(2, 1, height_ratios=[rows, 1.0]) if filters else [figure]
    left, right = parts[0].subfigures(1, 2, width_ratios=[3.2, 2.1 * columns])
    _draw_shares(left.subplots(), shown, len(kernels))
    grid = right.subplots(rows, columns, squeeze=False)
    for axis, (path, kernel) in zip(grid.ravel(), shown, strict=False):
        shares = conversion.average_channels(kernel)
        axis.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
        axis.set_title(_shorten(path), fontsize=8)
        axis.set_xticks([])
        axis.set_yticks([])
    for axis in grid.ravel()[len(shown) :]:
        axis.remove()
    if filters:
        _draw_filters(parts[1], *shown[0])
    return figure


@_styled
def plot_scores(model: keras.Model, layer: str | None = None, *, ax: Any = None) -> Any:
    """Draws how the scores of a masked kernel are spread, and where the choice ends.

    Args:
        model: a masked `keras.Model`, built.
        layer: str, the path of the layer, as in `mask_summary`. None takes the kernel with the most weights.
        ax: a matplotlib axis to draw on. None makes a figure.

    Returns:
        The matplotlib `Axes`.

    Raises:
        ImportError: if matplotlib is not installed.
        TypeError: if `model` is not a `keras.Model`.
        ValueError: if the model has no masked layer or is not built, or if it has no such layer.

    Example:

    >>> import keras_popup
    >>> masked = keras_popup.mask_model(keras_popup.models.FullyConnected(), k=0.3, seed=1)
    >>> keras_popup.plot_scores(masked, "dense2").get_title()
    'dense2: 9,000 of 30,000 weights kept'
    """
    kernels = dict(conversion.find_kernels(model, "plot_scores"))
    if layer is not None and layer not in kernels:
        raise ValueError(f"Model '{model.name}' has no masked kernel '{layer}'. It has: {', '.join(kernels)}.")
    path = layer or max(kernels, key=lambda each: kernels[each].size)
    kernel = kernels[path]
    ax = ax or _make_figure(6, 3.4).subplots()
    scores, kept = kernel.scores.numpy().ravel(), kernel.read_mask().ravel() != 0
    edges = np.histogram_bin_edges(scores[np.isfinite(scores)], 80)
    ax.hist([scores[kept], scores[~kept]], edges, stacked=True, color=[_KEPT, _LEFT_OUT], label=["kept", "not kept"])
    if kept.any() and not kept.all() and not kernel.selector.draws:
        threshold = float(np.abs(scores[kept]).min())
        for side, label in ((threshold, f"threshold, {threshold:.3g}"), (-threshold, None)):
            ax.axvline(side, color=_MARK, linewidth=1, linestyle="--", label=label)
    ax.set_title(f"{path}: {int(kept.sum()):,} of {kept.size:,} weights kept")
    ax.set_xlabel("score")
    ax.set_ylabel("weights")
    ax.legend(fontsize=8)
    return ax


@_styled
def plot_mask_overlap(first: keras.Model, second: keras.Model, *, ax: Any = None) -> Any:
    """Draws how much the masks of two models have in common, layer by layer, against chance.

    Args:
        first: a masked `keras.Model`, built.
        second: a masked model of the same architecture, as for `compare_masks`.
        ax: a matplotlib axis to draw on. None makes a figure.

    Returns:
        The matplotlib `Axes`: a bar for the intersection over union of each kernel, and a line where it would be by
        chance.

    Raises:
        ImportError: if matplotlib is not installed.
        TypeError: if one of them is not a `keras.Model`.
        ValueError: if a model has no masked layer or is not built, or if the kernels have other shapes.

    Example:

    >>> import keras_popup
    >>> masked = keras_popup.mask_model(keras_popup.models.FullyConnected(), k=0.3, seed=1)
    >>> other = keras_popup.mask_model(keras_popup.models.FullyConnected(), k=0.3, seed=2)
    >>> len(keras_popup.plot_mask_overlap(masked, other).patches)
    3
    """
    conversion.find_kernels(first, "plot_mask_overlap")
    rows = conversion.compare_masks(first, second).kernels[:_MOST_KERNELS]
    ax = ax or _make_figure(6, 0.9 + 0.28 * len(rows)).subplots()
    places = np.arange(len(rows))
    ax.barh(places, [row.iou for row in rows], color=_KEPT, height=0.7)
    chances = [row.chance for row in rows]
    ax.vlines(chances, places - 0.42, places + 0.42, color=_MARK, label="by chance")
    ax.set_yticks(places, [_shorten(row.path) for row in rows], fontsize=8)
    ax.invert_yaxis()
    ax.set_xlim(0, 1)
    ax.set_xlabel("kept by both, of those kept by one")
    ax.legend(fontsize=8)
    return ax


@_styled
def plot_mask_flow(model: keras.Model, *, ax: Any = None) -> Any:
    """Draws which channels are alive from input to output: those that change the output of the model.

    Args:
        model: a built `keras.Model`, masked or not.
        ax: a matplotlib axis to draw on. None makes a figure.

    Returns:
        The matplotlib `Axes`: for each layer the share of its channels that is alive, that could leave
        (`strip_masks(model, remove_dead=True)`), and that is constant but has to stay.

    Raises:
        ImportError: if matplotlib is not installed.
        TypeError: if `model` is not a `keras.Model`.
        ValueError: if the model is not built, or if no layer is understood, as in models with code of their own.

    Example:

    >>> import keras_popup
    >>> masked = keras_popup.mask_model(keras_popup.models.FullyConnected((8, 8, 1)), k=0.01, seed=1)
    >>> [text.get_text() for text in keras_popup.plot_mask_flow(masked).get_legend().get_texts()]
    ['alive', 'dead', 'constant, but stay']
    """
    rows = conversion.find_dead(model).layers[:_MOST_KERNELS]
    if not rows:
        raise ValueError(
            f"Model '{model.name}' has no layer whose channels can be followed: none is of a known kind, or the model "
            "has code of its own."
        )
    ax = ax or _make_figure(6, 0.9 + 0.28 * len(rows)).subplots()
    places, begin = np.arange(len(rows)), np.zeros(len(rows))
    staying = [sum(row.staying.values()) for row in rows]
    counts = {
        "alive": [row.channels - row.leaving - stays for row, stays in zip(rows, staying, strict=True)],
        "dead": [row.leaving for row in rows],
        "constant, but stay": staying,
    }
    for (label, numbers), color in zip(counts.items(), (_KEPT, _MARK, _LEFT_OUT), strict=True):
        shares = np.array(numbers) / [row.channels for row in rows]
        ax.barh(places, shares, left=begin, color=color, height=0.7, label=label)
        begin += shares
    ax.set_yticks(places, [f"{_shorten(row.path)} ({row.channels:,})" for row in rows], fontsize=8)
    ax.invert_yaxis()
    ax.set_xlim(0, 1)
    ax.set_xlabel("share of the layer's channels")
    ax.legend(fontsize=8, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return ax


def _check_matplotlib() -> None:
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise ImportError("Pictures need matplotlib. Install the extra: pip install 'keras-popup[plots]'.") from None


def _make_figure(width: float, height: float) -> Any:
    """Returns a figure, which a notebook shows if it is the last value of a cell."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _draw_shares(ax: Any, kernels: list[tuple[str, MaskedKernel]], total: int) -> None:
    places = np.arange(len(kernels))
    shares = [kernel.kept / kernel.size for _, kernel in kernels]
    ax.barh(places, np.ones(len(kernels)), color=_LEFT_OUT, height=0.7)
    ax.barh(places, shares, color=_KEPT, height=0.7)
    ax.set_yticks(places, [_shorten(path) for path, _ in kernels], fontsize=8)
    ax.invert_yaxis()
    ax.set_xlim(0, 1)
    ax.set_xlabel("share kept" if len(kernels) == total else f"share kept, the first {len(kernels)} of {total}")


def _has_filters(kernel: MaskedKernel) -> bool:
    shape = tuple(kernel.scores.shape)
    return len(shape) == 4 and shape[0] > 1 and shape[2] in (1, 3)


def _draw_filters(figure: Any, path: str, kernel: MaskedKernel) -> None:
    """Draws some filters of the first convolution: the kernel above, the masked kernel below."""
    whole, masked = kernel.kernel.numpy().astype(np.float64), kernel.baked().numpy().astype(np.float64)
    shown = min(_MOST_FILTERS, whole.shape[-1])
    largest = max(np.abs(whole).max(), np.abs(masked).max()) or 1.0
    figure.suptitle(
        f"{_shorten(path)}: the first {shown} of {whole.shape[-1]} filters, without and with the mask", fontsize=8
    )
    for row, values in zip(figure.subplots(2, shown, squeeze=False), (whole, masked), strict=True):
        for number, ax in enumerate(row):
            pixels = 0.5 + values[..., number] / (2 * largest)
            ax.imshow(pixels if pixels.shape[-1] == 3 else pixels[..., 0], cmap="gray", vmin=0, vmax=1)
            ax.set_axis_off()


def _shorten(path: str) -> str:
    return path if len(path) <= 32 else f"...{path[-29:]}"
