"""Makes the page of docs/reader: the images that its network is trained on, and the page with its ticket.

python benchmarks/reader_page.py images runs/slanted_digits
keras-popup train --model conv2 --width 0.25 --k 0.3 --epochs 30 --dataset slanted_digits \
    --data_dir runs/slanted_digits --validation 0 --seed 1 --out runs/reader
keras-popup ticket pack runs/reader
python benchmarks/reader_page.py page runs/reader/model.ticket
"""

import argparse
import base64
import re
from pathlib import Path

import keras
import numpy as np
from scipy import ndimage

from keras_popup import datasets, load_ticket, ticket_info

PAGE = Path(__file__).parents[1] / "docs" / "reader" / "index.html"
EMBEDDED = re.compile(r'(<script type="application/octet-stream" id="embedded" data-name=")[^"]*(">)[^<]*(</script>)')

FINE = 4  # points per pixel and axis, as in docs/reader/drawing.js
WIDEST = 0.77  # likewise
INK = 0.305  # likewise
SLANTED = 10  # images made of each training image
DRAWN = 150  # images made of each way to write a digit


def slant(image, generator):
    """Returns an image of 8x8 pixels, turned, sheared and stretched at random, and placed as the page places strokes.

    The data set has 43 writers. Hands with a mouse write differently.
    """
    size = FINE * len(image)
    ink, fine = image.mean() / 255, ndimage.zoom(np.pad(image, 4).astype(float), 3 * FINE, order=1)
    turn, shear = generator.uniform(-0.25, 0.25, 2)
    stretch = np.exp(generator.uniform(-0.2, 0.2))
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn) + shear, np.cos(turn)]]) @ np.diag([1, stretch])
    middle = np.array(fine.shape) / 2
    turned = ndimage.affine_transform(fine, matrix, middle - matrix @ middle, order=1)
    rows, columns = np.nonzero(turned > 110)
    cut = turned[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    wide = min(round(cut.shape[1] * size / cut.shape[0]), int(WIDEST * size))
    placed = np.zeros((size, size))
    left = (size - wide) // 2
    placed[:, left : left + wide] = ndimage.zoom(cut, (size / cut.shape[0], wide / cut.shape[1]), order=1)[:size, :wide]
    inked = placed > np.quantile(placed, 1 - ink)
    return np.round(255 * inked.reshape(8, FINE, 8, FINE).mean((1, 3))).astype(np.uint8)


def arc(x, y, wide, high, first, last):
    angles = np.radians(np.linspace(first, last, 24))
    return [*zip(x + wide * np.cos(angles), y + high * np.sin(angles), strict=True)]


# Ways to write digits, of which some are rare in the data set: lists of strokes, in hundredths of the paper.
WAYS = {
    0: [[arc(50, 50, 28, 40, -90, 270)]],
    1: [[[(50, 10), (50, 90)]], [[(35, 28), (52, 10), (52, 90)]]],
    2: [[[*arc(50, 32, 24, 22, -170, 30), (28, 88), (76, 88)]]],
    3: [[[*arc(48, 30, 22, 20, -160, 90), *arc(48, 70, 25, 20, -90, 160)]]],
    4: [[[(58, 10), (24, 62), (80, 62)], [(62, 34), (60, 92)]], [[(30, 12), (28, 52), (74, 52)], [(70, 10), (68, 92)]]],
    5: [[[(72, 10), (34, 10), (32, 44), *arc(48, 66, 26, 24, -110, 150)]]],
    6: [[[(64, 10), (40, 36), *arc(50, 66, 22, 24, 200, -160)]]],
    7: [[[(24, 12), (76, 12), (44, 90)]], [[(24, 12), (76, 12), (44, 90)], [(36, 50), (68, 50)]]],
    8: [[[*arc(50, 30, 19, 20, 90, -270), *arc(50, 70, 23, 20, -90, 270)]]],
    9: [[[*arc(48, 32, 20, 21, -20, 340), (68, 34), (60, 90)]]],
}


def draw(strokes, generator):
    """Returns an image of 8x8 pixels of strokes, changed at random, as docs/reader/drawing.js draws them."""
    size, points = 8 * FINE, np.concatenate([np.array(stroke) for stroke in strokes])
    ends = np.cumsum([len(stroke) for stroke in strokes])[:-1]
    matrix = np.eye(2) + generator.uniform(-0.25, 0.25, (2, 2)) * [[1, 1], [0.6, 0.6]]
    moved = (points + generator.uniform(-2, 2, points.shape)) @ matrix.T
    low, high = moved.min(0), np.maximum(moved.max(0) - moved.min(0), 1e-6)
    centres = np.stack(np.meshgrid(*[np.arange(size) + 0.5] * 2), -1).reshape(-1, 1, 2)
    thin, thick = 0.0, size / 4
    for _ in range(12):
        radius = (thin + thick) / 2
        scale = (size - 2 * radius) / high[1]
        placed = (moved - low - high / 2) * [min(scale, (WIDEST * size - 2 * radius) / high[0]), scale] + size / 2
        pairs = [(line[:-1], line[1:]) for line in np.split(placed, ends)]
        begin, step = (np.concatenate(part) for part in zip(*[(a, b - a) for a, b in pairs], strict=True))
        along = ((centres - begin) * step).sum(-1) / np.maximum((step**2).sum(-1), 1e-12)
        apart = centres - begin - np.clip(along, 0, 1)[..., None] * step
        inked = (apart**2).sum(-1).min(1) <= radius**2
        thin, thick = (radius, thick) if inked.mean() < INK else (thin, radius)
    return np.round(255 * inked.reshape(8, FINE, 8, FINE).mean((1, 3))).astype(np.uint8)


def write_images(folder):
    """Writes scikit-learn's digits to a folder: its training images with slanted copies, and its test images.

    The training images have drawn digits too.
    """
    write_drawn(folder)
    digits, generator = datasets.load("digits", validation=0), np.random.default_rng(1)
    for split, copies in (("train", SLANTED), ("test", 0)):
        source = getattr(digits, split)
        for number, (image, label) in enumerate(zip(source.images[..., 0], source.labels, strict=True)):
            target = Path(folder, split, str(label))
            target.mkdir(parents=True, exist_ok=True)
            for copy, pixels in enumerate([image, *(slant(image, generator) for _ in range(copies))]):
                keras.utils.save_img(target / f"{number:04d}_{copy}.png", pixels[..., None], scale=False)


def write_drawn(folder):
    generator = np.random.default_rng(2)
    for digit, ways in WAYS.items():
        target = Path(folder, "train", str(digit))
        target.mkdir(parents=True, exist_ok=True)
        for number in range(DRAWN * len(ways)):
            pixels = draw(ways[number % len(ways)], generator)
            keras.utils.save_img(target / f"drawn_{number:04d}.png", pixels[..., None], scale=False)


def write_page(ticket):
    """Puts a ticket into the page. It is loaded first, so that the page has one that can be read."""
    load_ticket(ticket)
    text, changed = EMBEDDED.subn(
        lambda found: (
            f"{found[1]}digits.ticket{found[2]}{base64.b64encode(Path(ticket).read_bytes()).decode()}{found[3]}"
        ),
        PAGE.read_text(),
    )
    assert changed == 1, f"{PAGE} has {changed} places for a ticket"
    PAGE.write_text(text)
    print(ticket_info(ticket))


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=["images", "page"])
    parser.add_argument("path", help="the folder to write images to, or the ticket to put into the page")
    arguments = parser.parse_args()
    (write_images if arguments.what == "images" else write_page)(arguments.path)


if __name__ == "__main__":
    main()
