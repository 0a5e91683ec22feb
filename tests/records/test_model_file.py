"""The origin of a model in its .keras file."""

import keras
import numpy as np
import pytest

from keras_popup import records

ORIGIN = {"classes": ["cat", "dog"], "dataset": "pets:1.0.0", "arguments": {"seed": 1, "k": {"*": 0.5}}}


def test_write_origin_leaves_a_model_that_keras_reads(tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.save(tmp_path / "a.keras")
    assert records.read_origin(tmp_path / "a.keras") == {}
    records.write_origin(tmp_path / "a.keras", ORIGIN)
    assert records.read_origin(tmp_path / "a.keras") == ORIGIN
    again = keras.models.load_model(tmp_path / "a.keras")
    np.testing.assert_array_equal(again(np.ones((1, 3))), model(np.ones((1, 3))))


def test_read_origin_takes_what_it_knows_only(tmp_path):
    for text in ("no archive", ""):
        (tmp_path / "text.keras").write_text(text)
        with pytest.raises(ValueError, match="cannot be read as a Keras model: it is empty, cut off or no .keras file"):
            records.read_origin(tmp_path / "text.keras")
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save(tmp_path / "a.keras")
    records.write_origin(tmp_path / "a.keras", {**ORIGIN, "filepath": "/somewhere"})
    assert records.read_origin(tmp_path / "a.keras") == ORIGIN
    with pytest.raises(OSError, match="nowhere"):
        records.read_origin(tmp_path / "nowhere.keras")


def test_read_origin_finds_every_damaged_byte_of_weights(tmp_path):
    file = tmp_path / "a.keras"
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save(file)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"a.keras' is damaged: .*Use another copy of it, or train it again"):
        records.read_origin(file)
