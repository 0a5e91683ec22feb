"""Makes the page of docs/reader: the images that its network is trained on, and the page with its ticket.

python benchmarks/reader_page.py images runs/slanted_digits
keras-popup train --model conv2 --width 0.25 --k 0.3 --epochs 20 --dataset slanted_digits \
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
SLANTED = 10  # images made of each training image


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


def write_images(folder):
    """Writes scikit-learn's digits to a folder: its training images with slanted copies, and its test images."""
    digits, generator = datasets.load("digits", validation=0), np.random.default_rng(1)
    for split, copies in (("train", SLANTED), ("test", 0)):
        source = getattr(digits, split)
        for number, (image, label) in enumerate(zip(source.images[..., 0], source.labels, strict=True)):
            target = Path(folder, split, str(label))
            target.mkdir(parents=True, exist_ok=True)
            for copy, pixels in enumerate([image, *(slant(image, generator) for _ in range(copies))]):
                keras.utils.save_img(target / f"{number:04d}_{copy}.png", pixels[..., None], scale=False)


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
