"""Folders of images: what is read of them, and what is refused."""

import numpy as np
import pytest
import tensorflow as tf
from small_datasets import epochs_of, write_images

from keras_popup import datasets


@pytest.mark.parametrize(
    ("name", "augment", "expected"),
    [("cifar10", None, "crop_flip"), ("pets", "none", "none"), ("pets", "crop_flip", "crop_flip")],
)
def test_load_folder_preprocesses_by_its_name(tmp_path, name, augment, expected):
    data = datasets.load(name, data_dir=str(write_images(tmp_path)), augment=augment, validation=0)
    assert data.augment == expected
    assert (data.mean == (0.491, 0.482, 0.447)) == (name == "cifar10")


def break_folder(root, how):
    if how == "corrupt":
        (root / "train" / "dog" / "3.png").write_bytes(b"\x89PNG\r\n\x1a\nnonsense")
    elif how == "truncated":
        path = root / "test" / "cat" / "2.JPG"
        path.write_bytes(path.read_bytes()[:200])
    elif how == "text":
        (root / "train" / "dog" / "3.png").write_text("not an image")
    elif how == "no_test":
        (root / "test").rename(root / "later")
    elif how == "class_missing":
        (root / "test" / "dog").rename(root / "test" / "cow")
    elif how == "empty_class":
        for path in (root / "train" / "dog").iterdir():
            path.unlink()
    elif how == "no_classes":
        for name in ("cat", "dog"):
            (root / "train" / name).rename(root / name)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("corrupt", "Cannot decode the image '.*dog/3.png'"),
        ("truncated", "Cannot decode the image '.*cat/2.JPG'"),
        ("text", "Cannot decode the image '.*dog/3.png'"),
        ("no_test", "needs a test split"),
        ("class_missing", r"\['dog'\] in '.*test'; \['cow'\] in 'train'"),
        ("empty_class", "No images in '.*dog'"),
        ("no_classes", "No class folders in"),
    ],
)
def test_load_folder_refuses_broken_folders(tmp_path, how, message):
    root = write_images(tmp_path)
    break_folder(root, how)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        datasets.load("pets", data_dir=str(root))


def test_load_folder_that_is_streamed_names_a_broken_file(tmp_path):
    root = write_images(tmp_path)
    break_folder(root, "text")
    with pytest.raises(ValueError, match="Cannot decode the image '.*dog/3.png'"):
        datasets.load("pets", data_dir=str(root), image_size=8)


def test_load_folder_that_is_streamed_names_a_truncated_file(tmp_path):
    root = write_images(tmp_path)
    break_folder(root, "truncated")
    with pytest.raises(ValueError, match="Cannot decode the image '.*cat/2.JPG': not a complete"):
        datasets.load("pets", data_dir=str(root), image_size=8)


def test_load_folder_with_random_resized_crops(tmp_path):
    root = write_images(tmp_path, sizes=((40, 30),), per_class=2)
    data = datasets.load("pets", data_dir=str(root), image_size=16, validation=0)
    assert data.augment == "resized_crop"
    plain = np.concatenate([x for x, _ in data.evaluation_batches("train", 4)])
    seen = [np.concatenate([x for x, _ in batch]) for batch in zip(*[iter(epochs_of(data, 0, 8))] * 1, strict=True)]
    assert all(not any(np.array_equal(x, y) for y in plain) for x in np.concatenate(seen))


def test_load_folder_with_one_grey_file_is_not_all_grey(tmp_path):
    root = write_images(tmp_path)
    grey = tf.io.encode_png(np.full((8, 8, 1), 7, np.uint8)).numpy()
    rgba = tf.io.encode_png(np.full((8, 8, 4), 9, np.uint8)).numpy()
    (root / "train" / "cat" / "0.png").write_bytes(grey)
    (root / "train" / "cat" / "00.png").write_bytes(rgba)
    (root / "train" / "cat" / ".hidden.png").write_bytes(b"")
    for image_size in (None, 8):
        data = datasets.load("pets", data_dir=str(root), image_size=image_size, validation=0)
        assert data.image_shape == (8, 8, 3)
        assert data.train.size == 14
    for path in root.rglob("*.*"):
        path.write_bytes(grey)
    assert datasets.load("pets", data_dir=str(root), validation=0).image_shape == (8, 8, 1)


def test_load_folder_refuses_a_single_class(tmp_path):
    root = write_images(tmp_path, classes=("cat",))
    with pytest.raises(ValueError, match="two classes or more"):
        datasets.load("pets", data_dir=str(root))
