"""Lists, checks and reads folders of images."""

import concurrent.futures
import logging
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from keras_popup.datasets.sources import (
    MEMORY_LIMIT,
    STREAMED_SIZE,
    TEST_SPLITS,
    ArraySource,
    FileSource,
    Source,
    decode,
)

_logger = logging.getLogger("keras_popup")

_IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png"}
_FORMATS = (
    (b"\xff\xd8\xff", b"\xff\xd9"),
    (b"\x89PNG\r\n\x1a\n", b"IEND"),
)  # the first bytes and last bytes of JPEG and PNG files


def load_folder(root: Path, image_size: int | None, augment: str | None) -> tuple[list[str], Source, Source]:
    """Returns the classes, the training images and the test images of a folder `<split>/<class>/*.jpg|png`."""
    test_root = next((root / name for name in TEST_SPLITS if (root / name).is_dir()), None)
    if test_root is None:
        raise FileNotFoundError(
            f"A folder of images needs a test split. Expected one of the folders {TEST_SPLITS} beside "
            f"'{root / 'train'}'. Received: {sorted(p.name for p in root.iterdir())}."
        )
    train, test = _list_images(root / "train"), _list_images(test_root)
    if train.keys() != test.keys():
        missing = {str(test_root): sorted(train.keys() - test.keys()), "train": sorted(test.keys() - train.keys())}
        raise ValueError(
            "Every split must have the same classes, one folder each. Missing: "
            + "; ".join(f"{names} in '{split}'" for split, names in missing.items() if names)
            + "."
        )
    classes = sorted(train)
    if len(classes) < 2:
        raise ValueError(f"Expected folders of two classes or more in '{root / 'train'}'. Received: {classes}.")
    splits = [_flatten(listing, classes) for listing in (train, test)]
    first = _decode_file(splits[0][0][0])
    if image_size is None:
        bytes_needed = math.prod(first.shape[:2]) * 3 * sum(len(labels) for _, labels in splits)
        if bytes_needed <= MEMORY_LIMIT:
            arrays = _read_arrays([path for paths, _ in splits for path in paths], first.shape[:2])
            if arrays is not None:
                size = len(splits[0][1])
                train_source, test_source = arrays[:size], arrays[size:]
                return classes, ArraySource(train_source, splits[0][1]), ArraySource(test_source, splits[1][1])
        _logger.info("Streaming images, resized to %d pixels. Set another size with --image_size.", STREAMED_SIZE)
    for paths, _ in splits:
        _check_ends(paths)
    sample = splits[0][0][:: max(1, len(splits[0][0]) // 100)]
    channels = 1 if all(_decode_file(path).shape[2] == 1 for path in sample) else 3
    size = image_size or STREAMED_SIZE
    resized = augment in (None, "resized_crop")
    train_files, test_files = (
        FileSource(np.array([str(p) for p in paths]), labels, (size, size, channels), resized)
        for paths, labels in splits
    )
    return classes, train_files, test_files


def _list_images(split: Path) -> dict[str, list[Path]]:
    """Returns the image files of every class of a split."""
    listing = {
        folder.name: sorted(
            path
            for path in folder.iterdir()
            if path.suffix.lower() in _IMAGE_SUFFIXES and not path.name.startswith(".")
        )
        for folder in split.iterdir()
        if folder.is_dir() and not folder.name.startswith(".")
    }
    if not listing:
        raise ValueError(f"No class folders in '{split}'. Expected images as '{split}/<class>/*.jpg' or '*.png'.")
    for name, paths in listing.items():
        if not paths:
            raise ValueError(
                f"No images in '{split / name}'. Expected files with the suffixes {sorted(_IMAGE_SUFFIXES)}. "
                "Remove the folder if there is no such class."
            )
    return listing


def _flatten(listing: dict[str, list[Path]], classes: list[str]) -> tuple[list[Path], NDArray[np.int64]]:
    labels = np.repeat(np.arange(len(classes), dtype=np.int64), [len(listing[name]) for name in classes])
    return [path for name in classes for path in listing[name]], labels


def _decode_file(path: Path) -> Any:
    """Returns an image as uint8 `(height, width, 1 or 3)`. It drops an alpha channel."""
    try:
        image = decode(path.read_bytes(), 0)
        if image.shape[2] not in (1, 3):
            image = decode(path.read_bytes(), 3)
        return image.numpy()
    except tf.errors.InvalidArgumentError:
        raise ValueError(f"Cannot decode the image '{path}'. Remove or replace it.") from None


def _read_arrays(paths: list[Path], size: tuple[int, int]) -> NDArray[np.uint8] | None:
    """Returns all images in one array, with 1 channel if all are grey, or None if their sizes differ."""
    images = np.empty((len(paths), *size, 3), np.uint8)
    grey = True
    with concurrent.futures.ThreadPoolExecutor() as pool:
        for index, image in enumerate(pool.map(_decode_file, paths)):
            if image.shape[:2] != size:
                pool.shutdown(wait=False, cancel_futures=True)
                return None
            images[index] = image
            grey = grey and image.shape[2] == 1
    return images[..., :1] if grey else images


def _check_ends(paths: Iterable[Path]) -> None:
    """Checks the first and last bytes of every file. Decoding all files of a streamed dataset would take too long."""

    def check(path: Path) -> None:
        with path.open("rb") as file:
            start = file.read(8)
            file.seek(max(0, path.stat().st_size - 4096))
            end = file.read()
        if not any(start.startswith(magic) and last in end for magic, last in _FORMATS):
            raise ValueError(
                f"Cannot decode the image '{path}': not a complete JPEG or PNG file. Its first bytes are {start!r}, "
                f"its size is {path.stat().st_size} bytes. Remove or replace it."
            )

    with concurrent.futures.ThreadPoolExecutor() as pool:
        for _ in pool.map(check, paths):
            pass
