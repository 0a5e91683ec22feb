"""Datasets as a whole: epochs, splits, augmentation, refusals."""

import numpy as np
import pytest
import tensorflow as tf
from builders import PopupTestPhotos
from small_datasets import epochs_of, equal, prepared

from keras_popup import datasets
from keras_popup.datasets import Part, dataset, sources

KINDS = [sources.ArraySource, sources.FileSource, sources.TfdsSource]


@pytest.mark.parametrize("kind", KINDS)
def test_training_batches_depend_on_the_epoch_and_the_seed_alone(every_source, kind):
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
def test_evaluation_batches_are_of_the_splits(every_source, kind):
    data = every_source[kind]
    assert data.classes == ("cat", "dog")
    assert data.image_shape == (8, 8, 3)
    total = data.train.size + data.validation.size
    assert data.validation.size == round(0.25 * total)
    for split in ("train", "validation", "test"):
        images, labels = zip(*data.evaluation_batches(split, 4), strict=True)
        assert sum(len(x) for x in images) == getattr(data, split).size == sum(len(y) for y in labels)
        assert images[0].shape[1:] == data.image_shape
        assert images[0].dtype == tf.uint8
        np.testing.assert_array_equal(np.concatenate(labels).sum(axis=1), 1.0)
    # Every training image once an epoch.
    labels = np.concatenate([y for _, y in epochs_of(data, 0, 1)])
    in_order = np.concatenate([y.numpy() for _, y in data.evaluation_batches("train", 4)])
    np.testing.assert_array_equal(labels.sum(axis=0), in_order.sum(axis=0))


def test_load_of_the_digits():
    data = datasets.load("digits")
    assert (data.image_shape, len(data.classes), data.augment) == ((8, 8, 1), 10, "none")
    assert data.train.size + data.validation.size + data.test.size == 1797
    assert data.test.size == round(1797 / 5)
    other = datasets.load("digits", seed=2)
    np.testing.assert_array_equal(data.test.images, other.test.images)  # the test images are always the same
    assert data.version is None


@pytest.mark.parametrize("kind", KINDS)
def test_preprocessing_is_of_the_moments(every_source, kind):
    data = every_source[kind]
    layer = data.preprocessing()
    images = np.concatenate([x for x, _ in data.evaluation_batches("train", 100)])
    expected = (images / 255 - np.array(data.mean)) / np.array(data.std)
    np.testing.assert_allclose(layer(images), expected, atol=1e-5)
    if kind is sources.ArraySource:  # the moments of the training images themselves
        np.testing.assert_allclose(np.mean(layer(images), (0, 1, 2)), 0, atol=1e-4)
        np.testing.assert_allclose(np.std(layer(images), (0, 1, 2)), 1, atol=1e-3)
    again = type(layer).from_config(layer.get_config())
    np.testing.assert_array_equal(again(images), layer(images))
    assert (data.version is None) == (kind is not sources.TfdsSource)


def test_load_without_validation():
    data = datasets.load("digits", validation=0)
    assert data.validation is None
    assert data.train.size == 1438


def test_augment_crops_and_flips():
    images = tf.random.stateless_uniform([50, 10, 12, 3], [1, 2], 1, 255, tf.int32)
    images = tf.cast(images, tf.uint8)
    augmented = dataset._augment(images, "crop_flip", tf.constant([3, 4], tf.int64), len(images), Part(0, 1, 1)).numpy()
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


def test_load_refuses_wrong_names_and_arguments(tmp_path):
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
