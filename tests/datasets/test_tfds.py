"""TensorFlow Datasets: prepared, missing, unlabelled."""

import urllib.error

import pytest
from builders import PopupTestCompetition, PopupTestPhotos
from small_datasets import prepared

from keras_popup import datasets
from keras_popup.datasets import sources


def test_load_tfds_into_memory(tmp_path):
    data = datasets.load("popup_test_photos", data_dir=prepared(PopupTestPhotos, tmp_path), validation=0)
    assert isinstance(data.train, sources.ArraySource)
    assert (data.train.size, data.test.size, data.classes) == (20, 6, ("cat", "dog"))
    assert sorted(data.train.images[:, 0, 0, 0].tolist()) == list(range(0, 200, 10))


def test_load_tfds_that_is_not_prepared_without_a_network(tmp_path, monkeypatch):
    def unplugged(*args, **kwargs):
        raise urllib.error.URLError("no route")

    monkeypatch.setattr("urllib.request.urlopen", unplugged)
    with pytest.raises(FileNotFoundError, match=r"(?s)not prepared.*\(1\).*\(2\).*\(3\)"):
        datasets.load("cifar10", data_dir=str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_load_tfds_leaves_an_unlabelled_split_alone(tmp_path):
    data = datasets.load("popup_test_competition", data_dir=prepared(PopupTestCompetition, tmp_path), validation=0)
    assert data.test.size == 8


def test_load_tfds_refuses_images_of_another_type(tmp_path):
    with pytest.raises(ValueError, match="must be uint8 of shape"):
        datasets.load("popup_test_deep_photos", data_dir=str(tmp_path))
