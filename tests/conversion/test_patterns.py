"""Which kernels `k` and `exclude` mean."""

import keras
import numpy as np
import pytest
from converted import masked_layers
from tables import plain_model

from keras_popup import layers, mask_model, models
from keras_popup.layers import tree


def test_find_fractions_by_pattern_and_by_function():
    plain = plain_model("block_of_blocks")
    model = mask_model(plain, k={"query": 0.25, "encoder/feed_forward": 0.75, "*": 0.5}, seed=1)
    ks = {path: layer.k for path, layer in tree.walk(model) if isinstance(layer, layers.MaskedLayer)}
    assert ks == {
        "encoder/attention/query": 0.25,
        "encoder/attention/key": 0.5,
        "encoder/attention/value": 0.5,
        "encoder/attention/attention_output": 0.5,
        "encoder/feed_forward/blocks/0": 0.75,
        "encoder/feed_forward/blocks/1": 0.75,
    }
    model = mask_model(plain, k=lambda layer: 0.25 if isinstance(layer, keras.layers.Dense) else 1.0, seed=1)
    assert sorted(layer.k for layer in masked_layers(model)) == [0.25] * 2 + [1.0] * 4


@pytest.mark.parametrize(
    "exclude", ["classes", ["class*"], lambda layer: layer.name == "classes"], ids=["name", "pattern", "function"]
)
@pytest.mark.parametrize("weights", ["random", "keep"])
def test_find_excluded_by_name_pattern_and_function(exclude, weights):
    plain = models.FullyConnected((4, 4, 1), width=0.1)
    model = mask_model(plain, k=0.5, weights=weights, exclude=exclude, seed=1)
    head = model.get_layer("classes")
    assert type(head) is keras.layers.Dense
    np.testing.assert_array_equal(head.kernel, plain.get_layer("classes").kernel)
    assert [v.path for v in head.trainable_variables] == [head.kernel.path]
    # The others have the seeds that they have without it.
    whole = mask_model(plain, k=0.5, weights=weights, seed=1)
    assert [layer.seed for layer in masked_layers(model)] == [layer.seed for layer in masked_layers(whole)][:2]


def test_find_excluded_covers_what_a_layer_holds():
    plain = plain_model("transformer")
    model = mask_model(plain, k=0.5, exclude="attention1", seed=1)
    assert type(model.get_layer("attention1")) is keras.layers.MultiHeadAttention
    assert len(masked_layers(model)) == 1 + 4 + 5


@pytest.mark.parametrize("exclude", [None, 3, [3]])
def test_find_excluded_refuses_a_wrong_type(exclude):
    plain = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    with pytest.raises(TypeError, match="`exclude` must be a pattern"):
        mask_model(plain, k=0.5, exclude=exclude, seed=1)
    with pytest.raises(ValueError, match="must have layers of the model only"):
        mask_model(plain, k=0.5, exclude=[keras.layers.Dense(3)], seed=1)
