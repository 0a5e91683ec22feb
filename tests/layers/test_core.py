"""Masked tables of embeddings."""

import keras
import numpy as np
from converted import spread

from keras_popup import mask_model, strip_masks


def test_masked_reversible_embedding_untied_has_two_tables(tmp_path):
    inputs = keras.Input((5,), dtype="int32")
    embedding = keras.layers.ReversibleEmbedding(9, 6, tie_weights=False, name="tokens")
    plain = spread(keras.Model(inputs, embedding(keras.layers.Dense(6)(embedding(inputs)), reverse=True)))
    x = np.random.default_rng(0).integers(0, 9, (2, 5))
    model = spread(mask_model(plain, k={"tokens/reverse_embeddings": 0.25, "*": 0.5}, weights="keep", seed=1))
    assert model.get_layer("tokens").k == {"embeddings": 0.5, "reverse_embeddings": 0.25}
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.get_layer("tokens").k == {"embeddings": 0.5, "reverse_embeddings": 0.25}
    for other in (loaded, strip_masks(loaded)):
        np.testing.assert_array_equal(other(x), model(x))
