"""Draws the picture that explains edge-popup: python docs/site/draw_edge_popup.py docs/img/edge-popup.svg

The weights, the scores and the masks in it are those of layers of this library. Only what training does to the scores
is made up. The colours follow the reader's scheme, light or dark.
"""

import argparse
import itertools
from pathlib import Path

import numpy as np

from keras_popup import criteria, initializers

SIZES = (3, 4, 2)
K = 0.5
SEED = 1

STYLE = """
  text { font: 17px system-ui, sans-serif; fill: #1f2328; }
  .title { font-weight: 600; }
  .small { font-size: 15px; fill: #59636e; }
  .code { font-family: ui-monospace, monospace; font-size: 14px; }
  .panel { fill: #f6f8fa; stroke: #d1d9e0; }
  .unit { fill: #ffffff; stroke: #59636e; stroke-width: 2; }
  line { stroke-linecap: round; }
  .plus { stroke: #0969da; }
  .minus { stroke: #bc4c00; }
  .out { stroke: #afb8c1; stroke-dasharray: 2 6; stroke-width: 1.5; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; }
    .small { fill: #9198a1; }
    .panel { fill: #1c2128; stroke: #3d444d; }
    .unit { fill: #0d1117; stroke: #9198a1; }
    .plus { stroke: #58a6ff; }
    .minus { stroke: #f0883e; }
    .out { stroke: #59636e; }
  }
"""

WIDTH, HEIGHT = 640, 676
PANEL_WIDTH, PANEL_HEIGHT = 308, 326


def make_layers():
    """Returns the kernel, the scores before training and the scores after it, of each layer: seeds 1 and 2."""
    layers = []
    for number, shape in enumerate(itertools.pairwise(SIZES)):
        fans = initializers.kernel_fans(shape)
        kernel = initializers.SignedConstant(seed=SEED + number).values(shape, fans)
        before = np.abs(initializers.ScoreUniform(seed=SEED + number + 10).values(shape, fans))
        moved = np.random.Generator(np.random.Philox(key=SEED + number + 25)).normal(0, 0.6 * before.max(), shape)
        layers.append((kernel, before, np.abs(before + moved)))
    return layers


def place(layer, index, left, top):
    """Returns the coordinates of a unit in a panel."""
    x = left + 50 + layer * (PANEL_WIDTH - 100) / (len(SIZES) - 1)
    y = top + 184 + 52 * (index - (SIZES[layer] - 1) / 2)
    return x, y


def draw_network(left, top, widths, kept):
    """Returns the lines and units of a network: `widths` of its lines in pixels, dotted where they are not kept."""
    lines = []
    for layer, (kernel, _, _) in enumerate(make_layers()):
        for row, column in sorted(np.ndindex(kernel.shape), key=lambda index: bool(kept[layer][index])):
            (x1, y1), (x2, y2) = place(layer, row, left, top), place(layer + 1, column, left, top)
            sign = "plus" if kernel[row, column] > 0 else "minus"
            style = f'class="{sign}" stroke-width="{widths[layer][row, column]:.1f}"'
            style = style if kept[layer][row, column] else 'class="out"'
            lines.append(f'<line {style} x1="{x1:.0f}" y1="{y1:.0f}" x2="{x2:.0f}" y2="{y2:.0f}"/>')
    for layer, size in enumerate(SIZES):
        for index in range(size):
            x, y = place(layer, index, left, top)
            lines.append(f'<circle class="unit" cx="{x:.0f}" cy="{y:.0f}" r="11"/>')
    return lines


def draw_panel(left, top, title, below):
    """Returns the frame of a panel with its title, and the lines of text below the title."""
    lines = [f'<rect class="panel" x="{left}" y="{top}" width="{PANEL_WIDTH}" height="{PANEL_HEIGHT}" rx="10"/>']
    lines.append(f'<text class="title" x="{left + 16}" y="{top + 30}">{title}</text>')
    lines += [f'<text class="small" x="{left + 16}" y="{top + 54 + 20 * i}">{t}</text>' for i, t in enumerate(below)]
    return lines


def draw():
    """Returns the picture as SVG."""
    layers = make_layers()
    everything = [np.ones(kernel.shape, bool) for kernel, _, _ in layers]
    even = [np.full(kernel.shape, 2.5) for kernel, _, _ in layers]
    before = [criteria.choose(scores, K) for _, scores, _ in layers]
    after = [criteria.choose(scores, K) for _, _, scores in layers]
    by_score = [1 + 6 * scores / scores.max() for _, scores, _ in layers]
    new = sum(int((a & ~b).sum()) for a, b in zip(after, before, strict=True))
    bits = "".join(str(int(bit)) for mask in after for bit in mask.ravel())
    left, right = 8, WIDTH - PANEL_WIDTH - 8
    bottom = HEIGHT - PANEL_HEIGHT - 8

    body = draw_panel(left, 8, "1  Random weights", ("Drawn from a seed, then frozen.", "Blue is +, orange is −."))
    body += draw_network(left, 8, even, everything)
    body += draw_panel(right, 8, "2  A score for each weight", ("A thicker line is a higher score.", "Also random."))
    body += draw_network(right, 8, by_score, everything)
    body += draw_panel(
        left, bottom, "3  Keep the best half", ("Each layer, in each step: k = 0.5.", "The rest counts as 0.")
    )
    body += draw_network(left, bottom, even, before)
    text = ("Edges pop up, others drop out:", f"{new} of {bits.count('1')} are new. No weight moves.")
    body += draw_panel(right, bottom, "4  Training moves the scores", text)
    body += draw_network(right, bottom, even, after)
    body.append(
        f'<text class="code" x="{right + 16}" y="{bottom + PANEL_HEIGHT - 14}">seeds {SEED}, {SEED + 1} + {bits}</text>'
    )
    words = (
        "Edge-popup in four steps: random weights that are frozen; a score for each weight; the best-scored half of "
        "each layer is kept; training moves the scores, so that other weights are kept. Seed and mask are the network."
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'role="img">\n<title>{words}</title>\n<style>{STYLE}</style>\n' + "\n".join(body) + "\n</svg>\n"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.parse_args().out.write_text(draw(), encoding="utf-8")


if __name__ == "__main__":
    main()
