"""Pictures: what is drawn is what the masks are."""

import sys

import keras
import numpy as np
import pytest
from matplotlib.figure import Figure

import keras_popup
from keras_popup import pictures


def _model(seed=1, **arguments):
    stack = [
        keras.Input((8, 8, 3)),
        keras.layers.Conv2D(10, 3, name="conv"),
        keras.layers.Flatten(name="flatten"),
        keras.layers.Dense(100, name="hidden"),
        keras.layers.Dense(4, name="classes"),
    ]
    return keras_popup.mask_model(keras.Sequential(stack), **{"k": {"conv": 0.5, "*": 0.25}, "seed": seed, **arguments})


def test_plot_masks_shows_shares_maps_and_filters(tmp_path):
    model = _model()
    mask = keras_popup.masked_layers(model)[1].mask().numpy()
    figure = keras_popup.plot_masks(model)
    shares = [patch.get_width() for patch in figure.axes[0].patches[3:]]
    assert shares == pytest.approx([0.5, 0.25, 0.25], abs=1e-3)
    titles = [ax.get_title() for ax in figure.axes[1:4]]
    assert titles == ["conv", "hidden", "classes"]
    drawn = figure.axes[2].images[0].get_array()
    assert drawn.shape == (64, 64)
    rows = np.array_split(np.arange(mask.shape[0]), 64)
    columns = np.array_split(np.arange(100), 64)
    assert drawn[5, 7] == pytest.approx(mask[np.ix_(rows[5], columns[7])].mean())
    assert len(figure.axes) == 1 + 3 + 2 * 10  # the first filters, without and with the mask
    figure.savefig(tmp_path / "masks.png", dpi=40)
    assert (tmp_path / "masks.png").stat().st_size > 2000


def test_plot_scores_shows_all_scores_and_the_threshold():
    model = _model()
    ax = keras_popup.plot_scores(model, "hidden")
    layer = keras_popup.masked_layers(model)[1]
    heights = np.array([[patch.get_height() for patch in container] for container in ax.containers])
    assert heights.sum() == layer.masked_kernels["kernel"].size
    assert heights[0].sum() == layer.kept
    scores, mask = layer.scores.numpy(), layer.mask().numpy()
    assert ax.lines[0].get_xdata()[0] == pytest.approx(np.abs(scores[mask == 1]).min())
    assert keras_popup.plot_scores(model).get_title().startswith("hidden:")  # the largest
    own = Figure().subplots()
    assert keras_popup.plot_scores(model, ax=own) is own
    with pytest.raises(ValueError, match="no masked kernel 'head'. It has: conv, hidden, classes"):
        keras_popup.plot_scores(model, "head")


def test_plot_mask_overlap_shows_what_compare_masks_says():
    first, second = _model(1), _model(2)
    rows = keras_popup.compare_masks(first, second).kernels
    ax = keras_popup.plot_mask_overlap(first, second)
    assert [patch.get_width() for patch in ax.patches] == [row.iou for row in rows]
    assert [segment[0][0] for segment in ax.collections[0].get_segments()] == [row.chance for row in rows]


def test_plot_mask_flow_shows_what_find_dead_says():
    model = _model(k=0.02)
    rows = keras_popup.conversion.find_dead(model).layers
    assert any(row.leaving for row in rows)
    ax = keras_popup.plot_mask_flow(model)
    widths = [[patch.get_width() for patch in container] for container in ax.containers]
    assert widths[1] == pytest.approx([row.leaving / row.channels for row in rows])
    assert np.sum(widths, axis=0) == pytest.approx(np.ones(len(rows)))


@pytest.mark.parametrize("selector", ["signed", "bernoulli", "n_m", "block"])
def test_pictures_of_other_masks(selector):
    stack = [keras.Input((8,)), keras.layers.Dense(12, name="a"), keras.layers.Dense(4, name="b")]
    model = keras_popup.mask_model(keras.Sequential(stack), selector=selector, seed=1)
    for figure in (keras_popup.plot_masks(model), keras_popup.plot_scores(model).figure):
        figure.canvas.draw()


@pytest.mark.parametrize("name", pictures.__all__)
def test_pictures_need_masks_and_matplotlib(name, monkeypatch):
    plain = keras.Sequential([keras.Input((2, 2)), keras.layers.LayerNormalization()])
    arguments = [plain, plain] if name == "plot_mask_overlap" else [plain]
    with pytest.raises(ValueError, match="has no"):
        getattr(pictures, name)(*arguments)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"keras-popup\[plots\]"):
        getattr(pictures, name)(*arguments)
