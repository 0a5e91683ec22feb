"""Digits, folders of images, TensorFlow Datasets: what is read, in which order, and what is refused."""

import urllib.error

import numpy as np
import pytest
import tensorflow as tf
from builders import PopupTestCompetition, PopupTestPhotos, PopupTestVaryingPhotos

from keras_popup import datasets
from keras_popup.datasets import dataset, sources


def write_images(root, sizes=((8, 8),), classes=("cat", "dog"), per_class=6, splits=("train", "test")):
    rng = np.random.default_rng(0)
    for split in splits:
        for label, name in enumerate(classes):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(per_class):
                size = sizes[i % len(sizes)]
                image = np.full((*size, 3), 40 + 100 * label, np.uint8) + rng.integers(0, 20, (*size, 3), np.uint8)
                encode, suffix = (tf.io.encode_png, "png") if i % 2 else (tf.io.encode_jpeg, "JPG")
                (folder / f"{i}.{suffix}").write_bytes(encode(image).numpy())
    return root


def prepared(builder_class, directory):
    builder_class(data_dir=directory).download_and_prepare()
    return str(directory)


def make_datasets(tmp_path):
    """One dataset of every kind of source."""
    folder = write_images(tmp_path / "same")
    mixed = write_images(tmp_path / "mixed", sizes=((8, 8), (20, 12)))
    stream = prepared(PopupTestVaryingPhotos, tmp_path / "tfds")
    return {
        sources.ArraySource: datasets.load("pets", data_dir=str(folder), validation=0.25),
        sources.FileSource: datasets.load("pets", data_dir=str(mixed), validation=0.25, image_size=8),
        sources.TfdsSource: datasets.load("popup_test_varying_photos", data_dir=stream, validation=0.25, image_size=8),
    }


@pytest.fixture(scope="module")
def every_source(tmp_path_factory):
    return make_datasets(tmp_path_factory.mktemp("data"))


KINDS = [sources.ArraySource, sources.FileSource, sources.TfdsSource]


def epochs_of(data, first_epoch, epochs, seed=5, batch_size=4):
    batches = data.training_batches(batch_size, seed=seed, epochs=epochs, first_epoch=first_epoch)
    return [(images.numpy(), labels.numpy()) for images, labels in batches]


def equal(a, b):
    return len(a) == len(b) and all(
        np.array_equal(x, y) for p, q in zip(a, b, strict=True) for x, y in zip(p, q, strict=True)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_an_epoch_depends_on_its_number_and_the_seed_alone(every_source, kind):
    data = every_source[kind]
    assert isinstance(data.train, kind)
    steps = -(-data.train.size // 4)
    three = epochs_of(data, 0, 3)
    assert len(three) == 3 * steps
    assert equal(three, epochs_of(data, 0, 3))
    assert equal(three[2 * steps :], epochs_of(data, 2, 3))
    assert not equal(three[:steps], three[steps : 2 * steps])
    assert not equal(three, epochs_of(data, 0, 3, seed=6))


@pytest.mark.parametrize("kind", KINDS)
def test_splits(every_source, kind):
    data = every_source[kind]
    assert data.classes == ("cat", "dog")
    assert data.image_shape == (8, 8, 3)
    total = data.train.size + data.validation.size
    assert data.validation.size == round(0.25 * total)
    for split in ("train", "validation", "test"):
        images, labels = zip(*data.evaluation_batches(split, 4), strict=True)
        assert sum(len(x) for x in images) == getattr(data, split).size == sum(len(y) for y in labels)
        assert images[0].shape[1:] == data.image_shape
        assert images[0].dtype == tf.float32
        np.testing.assert_array_equal(np.concatenate(labels).sum(axis=1), 1.0)
    # Every training image once an epoch.
    labels = np.concatenate([y for _, y in epochs_of(data, 0, 1)])
    in_order = np.concatenate([y.numpy() for _, y in data.evaluation_batches("train", 4)])
    np.testing.assert_array_equal(labels.sum(axis=0), in_order.sum(axis=0))


def test_digits():
    data = datasets.load("digits")
    assert (data.image_shape, len(data.classes), data.augment) == ((8, 8, 1), 10, "none")
    assert data.train.size + data.validation.size + data.test.size == 1797
    assert data.test.size == round(1797 / 5)
    other = datasets.load("digits", seed=2)
    np.testing.assert_array_equal(data.test.images, other.test.images)  # the test images are always the same
    images = np.concatenate([x for x, _ in data.evaluation_batches("train", 100)])
    assert abs(images.mean()) < 1e-4
    assert images.std() == pytest.approx(1.0, abs=1e-3)


def test_no_validation():
    data = datasets.load("digits", validation=0)
    assert data.validation is None
    assert data.train.size == 1438


def test_crop_and_flip():
    images = tf.random.stateless_uniform([50, 10, 12, 3], [1, 2], 1, 255, tf.int32)
    images = tf.cast(images, tf.uint8)
    augmented = dataset._augment(images, "crop_flip", tf.constant([3, 4], tf.int64)).numpy()
    padded = np.pad(images, [(0, 0), (4, 4), (4, 4), (0, 0)])
    seen = set()
    for i, image in enumerate(augmented):
        for top in range(9):
            for left in range(9):
                crop = padded[i, top : top + 10, left : left + 12]
                for flip in (False, True):
                    if np.array_equal(image, crop[:, ::-1] if flip else crop):
                        seen.add((i, top, left, flip))
    assert {i for i, *_ in seen} == set(range(50)), "every image is a crop of its padded self"
    assert len({(top, left) for _, top, left, _ in seen}) > 20
    assert 10 < sum(flip for *_, flip in seen) < 40


@pytest.mark.parametrize(
    ("name", "augment", "expected"),
    [("cifar10", None, "crop_flip"), ("pets", "none", "none"), ("pets", "crop_flip", "crop_flip")],
)
def test_preprocessing_of_folders(tmp_path, name, augment, expected):
    data = datasets.load(name, data_dir=str(write_images(tmp_path)), augment=augment, validation=0)
    assert data.augment == expected
    assert (data.mean == (0.491, 0.482, 0.447)) == (name == "cifar10")


def test_tfds_in_memory(tmp_path):
    data = datasets.load("popup_test_photos", data_dir=prepared(PopupTestPhotos, tmp_path), validation=0)
    assert isinstance(data.train, sources.ArraySource)
    assert (data.train.size, data.test.size, data.classes) == (20, 6, ("cat", "dog"))
    assert sorted(data.train.images[:, 0, 0, 0].tolist()) == list(range(0, 200, 10))


def test_not_prepared_and_no_network(tmp_path, monkeypatch):
    def unplugged(*args, **kwargs):
        raise urllib.error.URLError("no route")

    monkeypatch.setattr("urllib.request.urlopen", unplugged)
    with pytest.raises(FileNotFoundError, match=r"(?s)not prepared.*\(1\).*\(2\).*\(3\)"):
        datasets.load("cifar10", data_dir=str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_wrong_names_and_arguments(tmp_path):
    with pytest.raises(ValueError, match="Unknown dataset 'cifar11'.*did you mean cifar10"):
        datasets.load("cifar11")
    with pytest.raises(ValueError, match="not an image classification dataset"):
        datasets.load("popup_test_numbers", data_dir=str(tmp_path))
    with pytest.raises(FileNotFoundError, match="must be an existing directory"):
        datasets.load("pets", data_dir=str(tmp_path / "nowhere"))
    for arguments in ({"validation": 1.0}, {"validation": -0.1}, {"augment": "mixup"}, {"image_size": 0}):
        with pytest.raises(ValueError, match=next(iter(arguments))):
            datasets.load("digits", **arguments)
    with pytest.raises(ValueError, match="Unknown dataset 'pets'.*holds .*'popup_test"):
        datasets.load("pets", data_dir=prepared(PopupTestPhotos, tmp_path))
    with pytest.raises(ValueError, match="Unknown dataset 'cifar10:9.9.9'"):
        datasets.load("cifar10:9.9.9", data_dir=str(tmp_path))
    with pytest.raises(ValueError, match="leaves a part empty"):
        datasets.load("digits", validation=1e-6)


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
def test_broken_folders(tmp_path, how, message):
    root = write_images(tmp_path)
    break_folder(root, how)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        datasets.load("pets", data_dir=str(root))


def test_broken_file_in_a_streamed_folder(tmp_path):
    root = write_images(tmp_path)
    break_folder(root, "text")
    with pytest.raises(ValueError, match="Cannot decode the image '.*dog/3.png'"):
        datasets.load("pets", data_dir=str(root), image_size=8)


def test_truncated_file_in_a_streamed_folder(tmp_path):
    root = write_images(tmp_path)
    break_folder(root, "truncated")
    with pytest.raises(ValueError, match="Cannot decode the image '.*cat/2.JPG': not a complete"):
        datasets.load("pets", data_dir=str(root), image_size=8)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("size", [45_000, 60_000])
def test_orders_of_epochs_and_seeds_are_unrelated(seed, size):
    orders = [
        next(iter(sources._shuffle_index(size, s, tf.constant(epoch, tf.int64)).batch(size))).numpy()
        for s, epoch in ((seed, 0), (seed, 1), (seed, 2), (seed + 1, 0))
    ]
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(size))
    correlations = np.corrcoef([np.arange(size), *orders])
    assert np.abs(correlations - np.eye(5)).max() < 0.03


def test_streamed_tfds_does_not_depend_on_the_global_seed(every_source):
    data = every_source[sources.TfdsSource]
    orders = []
    for global_seed in (0, 5):
        tf.random.set_seed(global_seed)
        orders.append(epochs_of(data, 0, 2, seed=0))
    assert equal(*orders)


def test_data_in_memory_is_no_constant_of_the_graph():
    data = datasets.load("digits", validation=0)
    list(data.training_batches(64, seed=1, epochs=1))
    assert not any(tf.is_symbolic_tensor(tensor) for tensor in data.train._tensors)


def test_random_resized_crops(tmp_path):
    root = write_images(tmp_path, sizes=((40, 30),), per_class=2)
    data = datasets.load("pets", data_dir=str(root), image_size=16, validation=0)
    assert data.augment == "resized_crop"
    plain = np.concatenate([x for x, _ in data.evaluation_batches("train", 4)])
    seen = [np.concatenate([x for x, _ in batch]) for batch in zip(*[iter(epochs_of(data, 0, 8))] * 1, strict=True)]
    assert all(not any(np.array_equal(x, y) for y in plain) for x in np.concatenate(seen))


def test_one_grey_file_does_not_make_all_grey(tmp_path):
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


def test_an_unlabelled_test_split_is_left_alone(tmp_path):
    data = datasets.load("popup_test_competition", data_dir=prepared(PopupTestCompetition, tmp_path), validation=0)
    assert data.test.size == 8


def test_images_of_another_type(tmp_path):
    with pytest.raises(ValueError, match="must be uint8 of shape"):
        datasets.load("popup_test_deep_photos", data_dir=str(tmp_path))


def test_a_single_class(tmp_path):
    root = write_images(tmp_path, classes=("cat",))
    with pytest.raises(ValueError, match="two classes or more"):
        datasets.load("pets", data_dir=str(root))
