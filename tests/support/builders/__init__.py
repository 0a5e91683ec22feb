"""Datasets of TensorFlow Datasets, made here; it asks for a package to define one."""

import numpy as np
import tensorflow_datasets as tfds


class PopupTestPhotos(tfds.core.GeneratorBasedBuilder):
    """Two classes of small images, made here."""

    VERSION = tfds.core.Version("1.0.0")
    SHAPE = (8, 8, 3)

    def _info(self):
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=self.SHAPE),
                    "label": tfds.features.ClassLabel(names=["cat", "dog"]),
                }
            ),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(20), "test": self._generate_examples(6)}

    def _generate_examples(self, count):
        for i in range(count):
            size = self.SHAPE[:2] if self.SHAPE[0] else (10 + i, 12)
            yield i, {"image": np.full((*size, 3), 10 * i, np.uint8), "label": i % 2}


class PopupTestVaryingPhotos(PopupTestPhotos):
    """The same, of several sizes."""

    SHAPE = (None, None, 3)


class PopupTestCompetition(PopupTestPhotos):
    """The labels of the test images are kept secret."""

    def _split_generators(self, dl_manager):
        secret = ((i, {**example, "label": -1}) for i, example in self._generate_examples(6))
        return {"train": self._generate_examples(20), "validation": self._generate_examples(8), "test": secret}


class PopupTestDeepPhotos(PopupTestPhotos):
    """Images of 16 bits."""

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(8, 8, 1), dtype=np.uint16, encoding_format="png"),
            "label": tfds.features.ClassLabel(num_classes=2),
        }
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features), supervised_keys=("image", "label")
        )


class PopupTestNumbers(tfds.core.GeneratorBasedBuilder):
    """No images."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict({"x": np.int64}))

    def _split_generators(self, dl_manager):
        return {"train": iter([(0, {"x": 1})])}

    def _generate_examples(self):
        raise AssertionError
