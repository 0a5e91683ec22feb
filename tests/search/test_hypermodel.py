"""PopupHyperModel in Keras Tuner's own tuners."""

import keras
import keras_tuner
import pytest
from sklearn.datasets import load_digits
from tables import TUNERS

import keras_popup
from keras_popup.search import PopupHyperModel, Range

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(
    "tuner", [pytest.param(tuner, marks=() if tuner == "random" else pytest.mark.rare) for tuner in TUNERS]
)
def test_popup_hyper_model_in_every_tuner(tuner, tmp_path):
    digits = load_digits()
    images, labels = (digits.images / 16).astype("float32")[..., None], digits.target

    def build(width):
        return keras_popup.models.FullyConnected((8, 8, 1), width=width)

    hypermodel = PopupHyperModel(
        build,
        k={"dense*": Range(0.1, 0.9), "*": 0.5},
        width=[0.1, 0.2],
        learning_rate=Range(0.1, 1, "log"),
        l2=[0.0, 1e-4],
        kernel_initializer=["signed_constant", "kaiming_normal"],
        seed=0,
    )
    classes = {
        "random": keras_tuner.RandomSearch,
        "grid": keras_tuner.GridSearch,
        "bayesian": keras_tuner.BayesianOptimization,
        "hyperband": keras_tuner.Hyperband,
    }
    more = {"max_epochs": 2, "factor": 2} if tuner == "hyperband" else {"max_trials": 2}
    tuner = classes[tuner](hypermodel, objective="val_accuracy", seed=1, directory=tmp_path, **more)
    tuner.search(images[:1000], labels[:1000], epochs=2, validation_data=(images[1000:], labels[1000:]), verbose=0)
    best = tuner.get_best_hyperparameters()[0].values
    assert {"k[dense*]", "width", "learning_rate", "l2", "kernel_initializer"} <= set(best)
    model = tuner.get_best_models()[0]
    layer = model.get_layer("dense1")
    assert layer.k == pytest.approx(best["k[dense*]"])
    assert layer.units == int(300 * best["width"])
    assert model.get_layer("classes").k == 0.5
    assert float(model.optimizer.learning_rate) == pytest.approx(best["learning_rate"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": Range(0.0, 0.5)}, "`k` must be in (0, 1]"),
        ({"k": {"a": [0.5, 2.0]}}, "`k[a]` must be in (0, 1]"),
        ({"k": "half"}, "`k` must be in (0, 1]"),
        ({"k": (0.1, 0.9)}, "`k` must be a list of values, or Range(low, high)"),
        ({"k": ["0.5", "0.6"]}, "`k` must be in (0, 1]"),
        ({"width": "0.5"}, "`width` must be more than 0"),
        ({"learning_rate": "high"}, "`learning_rate` must be a number >= 0"),
        ({"learning_rate": float("inf")}, "`learning_rate` must be a number >= 0"),
        ({"kernel_initializer": [keras.initializers.HeNormal(1), "signed_constant"]}, "Expected different values"),
        ({"optimizer": keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, 9))}, "must have a number"),
        ({"k": []}, "`k`: Expected different values"),
        ({"width": [0.0, 1.0]}, "`width` must be more than 0"),
        ({"learning_rate": -1.0}, "`learning_rate` must be a number >= 0"),
        ({"kernel_initializer": ["signed_constant", "odd"]}, "odd"),
        ({"selector": "best"}, "Unknown selector"),
        ({"selector": "bernoulli", "k": Range(0.1, 0.9)}, "'bernoulli' learns how many weights are kept"),
        ({"selector": ["top_k", "bernoulli"], "k": {"*": 0.3}}, "'bernoulli' learns how many weights are kept"),
        ({"seed": -1}, "`seed` must be an integer"),
    ],
)
def test_popup_hyper_model_refuses_bad_arguments(arguments, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        PopupHyperModel(keras_popup.models.FullyConnected, **arguments)
    assert message in str(caught.value)


@pytest.mark.parametrize(("selector", "rate", "l2"), [("top_k", 0.1, 1e-4), ("bernoulli", 50.0, 0.0)])
def test_popup_hyper_model_has_defaults_for_each_selector(selector, rate, l2):
    hypermodel = PopupHyperModel(keras_popup.models.FullyConnected, selector=["top_k", "bernoulli"])
    hp = keras_tuner.HyperParameters()
    hp.Fixed("selector", selector)
    model = hypermodel.build(hp)
    assert float(model.optimizer.learning_rate) == pytest.approx(rate)
    regularizer = model.get_layer("dense1").scores_regularizer
    assert 2 * float(regularizer.l2 if regularizer else 0) == pytest.approx(l2)
