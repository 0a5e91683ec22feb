"""The networks of the papers: weight counts, shapes, errors."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_popup
from keras_popup import models
from keras_popup.training import config

# Of the reference page: weights on CIFAR-10, and millions kept on ImageNet at k = 0.3.
CIFAR_WEIGHTS = {"conv2": 4_300_992, "conv4": 2_425_024, "conv6": 2_261_184, "conv8": 5_275_840}
IMAGENET_KEPT = {"resnet50": 7.7, "resnet101": 13.3, "wide_resnet50": 20.6}


def kernels(model):
    return [v for v in model.trainable_variables if v.name == "kernel"]


def weights(model):
    return sum(math.prod(v.shape) for v in kernels(model))


@pytest.mark.parametrize("name", CIFAR_WEIGHTS)
def test_models_have_the_papers_weights_on_cifar(name):
    assert weights(models.get(name)()) == CIFAR_WEIGHTS[name]


@pytest.mark.integration
@pytest.mark.parametrize("name", IMAGENET_KEPT)
def test_models_have_the_papers_weights_on_imagenet(name):
    assert round(0.3 * weights(models.get(name)()) / 1e6, 1) == IMAGENET_KEPT[name]


def test_models_of_other_papers_have_their_weights():
    assert weights(models.FullyConnected()) == 784 * 300 + 300 * 100 + 100 * 10
    assert round(weights(models.ResNet34()) / 1e6, 1) == 21.8
    assert weights(models.ResNet18()) == 11_164_352
    assert weights(models.MobileNet()) == 4_209_088  # with gamma, beta and the biases of the last layer: 4,231,976
    imagenet = models.ResNet18(input_shape=(224, 224, 3), classes=1000)
    assert weights(imagenet) == 11_678_912  # torchvision's 11,689,512 less norms and the bias of the last layer


@pytest.mark.parametrize("name", models._MODELS)
def test_models_are_built_and_built_again(name):
    assert {*models._MODELS, "base"} == set(config.PROTOCOLS)
    model = models.get(name)(input_shape=(32, 32, 3), classes=7, width=0.05)
    assert model.name == name
    assert model.output_shape == (None, 7)
    assert model(np.zeros((1, 32, 32, 3), np.float32)).dtype == "float32"
    assert not [v for v in model.trainable_variables if v.name == "bias"]
    again = type(model).from_config(model.get_config())
    assert [v.shape for v in again.variables] == [v.shape for v in model.variables]


@pytest.mark.parametrize("name", models._MODELS)
def test_models_scale_every_layer_but_the_last(name):
    narrow, wide = (kernels(models.get(name)((32, 32, 3), 10, width=width)) for width in (0.1, 0.2))
    assert narrow[-1].shape[-1] == wide[-1].shape[-1] == 10
    for a, b in zip(narrow[:-1], wide[:-1], strict=True):
        axis = -2 if "depthwise" in a.path else -1
        assert b.shape[axis] - 2 * a.shape[axis] in range(5)  # int() rounds down, four times as far in a bottleneck


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_models_have_the_stem_for_their_images(name):
    build = models.get(name)
    sizes = {
        stem: build((64, 64, 3), 10, 0.1, stem=stem).get_layer("stem").kernel_size for stem in ("cifar", "imagenet")
    }
    assert sizes == {"cifar": (3, 3), "imagenet": (7, 7)}
    assert build((64, 64, 3), 10, 0.1).get_layer("stem").kernel_size == (3, 3)
    assert build((65, 65, 3), 10, 0.1).get_layer("stem").kernel_size == (7, 7)


@pytest.mark.parametrize("name", models._MODELS)
def test_models_take_an_activation(name):
    build = models.get(name)
    plain, binary, gelu = (build((32, 32, 3), 10, 0.1, activation=kind) for kind in ("relu", "binary", "gelu"))
    for model, function in ((plain, keras.activations.relu), (binary, models.binarize), (gelu, keras.activations.gelu)):
        used = {layer.activation for layer in model.layers if hasattr(layer, "activation")}
        assert used == {function, keras.activations.linear}
    assert [v.shape for v in binary.variables] == [v.shape for v in plain.variables]
    x = np.random.default_rng(1).normal(size=(2, 32, 32, 3)).astype(np.float32)
    assert np.abs(binary(x) - plain(x)).max() > 0


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_binarize_gives_signs_and_the_gradient_of_clip(dtype):
    x = tf.constant([-np.inf, -1.5, -1, -0.5, -0.0, 0.0, 1e-6, 0.5, 1, 1.5, np.inf], dtype)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = models.binarize(x)
    assert y.dtype == dtype
    np.testing.assert_array_equal(tf.cast(y, "float32"), [-1, -1, -1, -1, 1, 1, 1, 1, 1, 1, 1])
    np.testing.assert_array_equal(tf.cast(tape.gradient(y, x), "float32"), [0, 0, 1, 1, 1, 1, 1, 1, 1, 0, 0])


def test_networks_of_binary_activations_are_saved_shipped_and_stripped(tmp_path):
    masked = keras_popup.mask_model(models.ResNet8((16, 16, 3), 10, 0.25, activation="binary"), k=0.5, seed=1)
    x = np.random.default_rng(1).normal(size=(4, 16, 16, 3)).astype(np.float32)
    masked.save(tmp_path / "a.keras")
    keras_popup.save_ticket(masked, tmp_path / "a.ticket")
    copies = (
        keras.models.load_model(tmp_path / "a.keras"),
        keras_popup.load_ticket(tmp_path / "a.ticket"),
        keras_popup.strip_masks(masked),
    )
    for copy in copies:
        np.testing.assert_array_equal(copy(x), masked(x))


def test_models_give_float32_in_mixed_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = models.Conv2(width=0.1)
    assert model.get_layer("conv1a").compute_dtype == "bfloat16"
    assert model(np.zeros((1, 32, 32, 3), np.float32)).dtype == "float32"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_shape": (32, 32)}, "must be .height, width, channels."),
        ({"input_shape": (0, 32, 3)}, "positive integers"),
        ({"classes": 0}, "`classes` must be a positive integer"),
        ({"width": 0.0}, "`width` must be a positive number"),
        ({"width": float("nan")}, "`width` must be a positive number"),
        ({"width": 0.01}, "leaves no channel of 64"),
        ({"input_shape": (1, 1, 3)}, "needs at least 2x2 pixels"),
    ],
)
def test_models_refuse_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        models.Conv2(**arguments)


def test_get_refuses_unknown_names():
    with pytest.raises(ValueError, match="Unknown model. Expected one of"):
        models.get("conv5")
    with pytest.raises(ValueError, match="`stem` must be"):
        models.ResNet18(stem="mnist")
