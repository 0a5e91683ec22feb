"""A hypermodel for any tuner of Keras Tuner. `keras_popup.search.search` does not use it."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import keras_tuner

from keras_popup import conversion, initializers, selectors
from keras_popup.search import ranges
from keras_popup.search.config import layer_k_name
from keras_popup.search.ranges import Range

__all__ = ["PopupHyperModel", "Range"]


# By whether masks are drawn. The protocols of the command line have the same values.
_DEFAULTS = {
    False: {"learning_rate": 0.1, "l2": 1e-4},
    True: {"learning_rate": 50.0, "l2": 0.0},
}


class PopupHyperModel(keras_tuner.HyperModel):
    """A masked network whose k, width and more are hyperparameters.

    Each of them is one value, which is fixed, a list of values, or a `Range`. Hyperparameters have the arguments'
    names; the fractions of single layers are called "k[PATTERN]".

    Args:
        build: function that returns the plain `keras.Model` to mask, such as `keras_popup.models.Conv4`. It is called
            as `build(width=...)` if `width` is given, else as `build()`.
        k: fraction of each layer's weights that is kept, in (0, 1], or a dict of them by patterns of layers'
            names, as in `keras_popup.mask_model`.
        width: the argument of `build`; None for none.
        learning_rate: float >= 0, at the start. None is the selector's: 0.1, and 50 for "bernoulli".
        l2: float >= 0, the coupled weight decay of the scores: l2 / 2 * sum(s**2) is added to the loss. None is
            the selector's: 1e-4, and 0 for "bernoulli".
        kernel_initializer: of the frozen kernels, as in `keras_popup.initializers.get`.
        selector: as in `keras_popup.selectors.get`: a name, or a list of names.
        optimizer: a Keras optimizer, or its config. Each trial has a copy of it with its own learning rate. None is
            SGD with a momentum of 0.9.
        loss, metrics: as in `keras.Model.compile`.
        seed: integer in [0, 2**32), of kernels and scores: the same in all trials. 0 is a seed.
        name: the name of the hypermodel.

    Raises:
        TypeError: if `build` is not a function.
        ValueError: if a value, or an end of a range, is out of its range, or if there is a `k` for "bernoulli",
            which has none.

    Reference:
        The formulas of edge-popup: Ramanujan et al., [arXiv 1911.13299](https://arxiv.org/abs/1911.13299),
        section 3.

    Example:

    >>> import keras_popup, keras_tuner
    >>> from keras_popup.search import PopupHyperModel, Range
    >>> hypermodel = PopupHyperModel(keras_popup.models.FullyConnected, k=Range(0.1, 0.9), width=[0.1, 0.2])
    >>> hp = keras_tuner.HyperParameters()
    >>> model = hypermodel.build(hp)
    >>> sorted(hp.values), model.get_layer("dense1").kept
    (['k', 'width'], 2352)
    """

    def __init__(
        self,
        build: Callable[..., keras.Model],
        *,
        k: Any = 0.5,
        width: Any = None,
        learning_rate: Any = None,
        l2: Any = None,
        kernel_initializer: Any = "signed_constant",
        selector: Any = "top_k",
        optimizer: Any = None,
        loss: Any = None,
        metrics: Sequence[Any] | None = ("accuracy",),
        seed: int = 1,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        if not callable(build) or isinstance(build, keras.Model):
            raise TypeError(f"`build` must be a function that returns a keras.Model. Received: {build!r}.")
        self._build_plain = build
        self._k = (
            {name: _space(layer_k_name(name), each) for name, each in k.items()} if isinstance(k, Mapping) else None
        )
        self._space = {
            "k": 0.5 if self._k is not None else _space("k", k),
            "width": _space("width", width),
            "learning_rate": _space("learning_rate", learning_rate),
            "l2": _space("l2", l2),
            "kernel_initializer": _space("kernel_initializer", kernel_initializer),
            "selector": _space("selector", selector),
        }
        for label, space in [
            ("k", self._space["k"]),
            *((layer_k_name(name), each) for name, each in (self._k or {}).items()),
        ]:
            _check(label, space, "in (0, 1], the fraction kept", _is_fraction)
        for label in ("learning_rate", "l2"):
            if self._space[label] is not None:
                _check(label, self._space[label], "a number >= 0", lambda value: value >= 0)
        if width is not None:
            _check("width", self._space["width"], "more than 0", lambda value: value > 0)
        for value in ranges.endpoints(self._space["kernel_initializer"]):
            initializers.get(value)
        for value in ranges.endpoints(self._space["selector"]):
            if selectors.get(value).draws and k != 0.5:
                raise ValueError(
                    f"{value!r} learns how many weights are kept. Leave `k` out, or use top_k. Received: {k=}."
                )
        if type(seed) is not int or not 0 <= seed < 2**32:
            raise ValueError(f"`seed` must be an integer in [0, 2**32). Received: {seed!r}.")
        chosen = keras.optimizers.SGD(momentum=0.9) if optimizer is None else keras.optimizers.get(optimizer)
        if isinstance(chosen._learning_rate, keras.optimizers.schedules.LearningRateSchedule):
            raise ValueError("`optimizer` must have a number as its learning rate, which `learning_rate` replaces.")
        self._optimizer = keras.optimizers.serialize(chosen)
        self._loss = loss or keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        self._metrics = list(metrics or ())
        self._seed = seed

    def build(self, hp: keras_tuner.HyperParameters) -> keras.Model:
        """Returns a trial's model, masked and compiled.

        Raises:
            ValueError: the errors of `mask_model`, such as for a k that keeps no weight of a layer.
        """
        chosen = {name: ranges.add_hyperparameter(hp, name, space) for name, space in self._space.items()}
        if self._k is not None:
            chosen["k"] = {
                name: ranges.add_hyperparameter(hp, layer_k_name(name), space) for name, space in self._k.items()
            }
        draws = selectors.get(chosen["selector"]).draws
        chosen |= {name: value for name, value in _DEFAULTS[draws].items() if chosen[name] is None}
        plain = self._build_plain() if chosen["width"] is None else self._build_plain(width=chosen["width"])
        model = conversion.mask_model(
            plain,
            k=chosen["k"],
            selector=chosen["selector"],
            kernel_initializer=chosen["kernel_initializer"],
            scores_regularizer=keras.regularizers.L2(chosen["l2"] / 2) if chosen["l2"] else None,
            seed=self._seed,
        )
        optimizer = keras.optimizers.deserialize(self._optimizer)
        optimizer.learning_rate = chosen["learning_rate"]
        model.compile(optimizer=optimizer, loss=self._loss, metrics=self._metrics)
        optimizer.build(model.trainable_variables)  # so that Hyperband's next round can load its state
        return model


def _space(name: str, given: Any) -> ranges.Space:
    if isinstance(given, tuple):
        raise ValueError(f"`{name}` must be a list of values, or Range(low, high). Received: {given!r}.")
    try:
        return ranges.normalise_values(given) if isinstance(given, list) else given
    except ValueError as error:
        raise ValueError(f"`{name}`: {error}") from None


def _is_fraction(k: Any) -> bool:
    try:
        selectors.check_k(k)
    except ValueError:
        return False
    return True


def _check(name: str, space: ranges.Space, expected: str, good: Callable[[Any], bool]) -> None:
    for value in ranges.endpoints(space):
        if type(value) not in (int, float) or not math.isfinite(value) or not good(value):
            raise ValueError(
                f"`{name}` must be {expected}, or a list of such numbers or a Range of them. Received: {value!r}."
            )
