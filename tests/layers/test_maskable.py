"""Which layers can be masked: kernels of one's own, subclasses."""

import keras
import numpy as np
import pytest
from converted import random, spread

import keras_popup
from keras_popup import load_ticket, mask_model, mask_summary, save_ticket, strip_masks
from keras_popup.conversion import masked_kernels


@keras.saving.register_keras_serializable("tests")
class Experts(keras.layers.Layer):
    """Kernels without names, for each of two experts, and a bias and a scale that are none."""

    def build(self, shape):
        self.w = self.add_weight(shape=(2, shape[-1], 3))
        self.v = self.add_weight(shape=(shape[-1], 3))
        self.scale = self.add_weight(shape=(3,), initializer="ones")

    def call(self, x):
        return self.scale * (keras.ops.max(keras.ops.einsum("bi,eio->beo", x, self.w), axis=1) + x @ self.v)


@pytest.fixture
def _experts():
    from keras_popup.layers import maskable

    keras_popup.register_maskable(Experts, kernels=("w", "v"), fans=lambda name, shape: (shape[-2], shape[-1]))
    yield
    maskable._MASKABLE.pop(Experts)


@pytest.mark.usefixtures("_experts")
@pytest.mark.parametrize("weights", ["random", "keep"])
def test_register_maskable_kernels_of_ones_own(weights, tmp_path):
    inputs = keras.Input((4,))
    plain = spread(keras.Model(inputs, keras.layers.Dense(2)(Experts(name="experts")(inputs))))
    x = random(3, 4)
    model = spread(mask_model(plain, k=0.5, weights=weights, seed=1))
    assert {path for path, _ in masked_kernels(model)} == {"experts/w", "experts/v", "dense"}
    names = sorted(v.path.split("/")[-1] for v in model.trainable_variables)
    assert names.count("scores") == 3
    assert len(names) == (3 if weights == "keep" else 4)  # `scale` is trained unless all is kept
    model.save(tmp_path / "model.keras")
    save_ticket(model, tmp_path / "model.ticket")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    again = load_ticket(tmp_path / "model.ticket", masked=True)
    for other in (loaded, strip_masks(model), load_ticket(tmp_path / "model.ticket"), again):
        np.testing.assert_array_equal(other(x), model(x))
    for other in (loaded, again):
        assert len(other.trainable_variables) == len(model.trainable_variables)


@pytest.mark.parametrize(
    ("arguments", "kind", "what"),
    [
        ((Experts(), ("w",)), TypeError, "must be a subclass"),
        ((dict, ("w",)), TypeError, "must be a subclass"),
        ((Experts, ()), ValueError, "names of attributes"),
        ((Experts, (1,)), ValueError, "names of attributes"),
    ],
)
def test_register_maskable_refuses_what_has_no_kernels(arguments, kind, what):
    with pytest.raises(kind, match=what):
        keras_popup.register_maskable(*arguments)


@keras.saving.register_keras_serializable("tests")
class Renamed(keras.layers.Dense):
    """Overrides nothing."""


@keras.saving.register_keras_serializable("tests")
class Doubled(keras.layers.Dense):
    """Has a `call` of its own."""

    def call(self, inputs, training=None):
        return 2 * super().call(inputs)


def test_overridden_code_keeps_a_subclass_without_a_mask(tmp_path):
    inputs = keras.Input((4,))
    plain = spread(keras.Model(inputs, Doubled(3, name="doubled")(Renamed(5, name="renamed")(inputs))))
    model = spread(mask_model(plain, k=0.5, weights="keep", seed=1))
    rows = {row.path: row.not_masked for row in mask_summary(model, print_fn=len).layers}
    assert rows == {"renamed": "", "doubled": "a subclass of Dense with its own code"}
    x = random(3, 4)
    model.save(tmp_path / "model.keras")
    stripped = strip_masks(model)
    assert [type(layer) for layer in stripped.layers[1:]] == [Renamed, Doubled]
    for other in (keras.models.load_model(tmp_path / "model.keras"), stripped):
        np.testing.assert_array_equal(other(x), model(x))
