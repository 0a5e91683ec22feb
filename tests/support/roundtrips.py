"""Checks that a conversion loses nothing, for any model: there and back, in files, in copies, in a step of training.

Each check takes a model that was called before, and a batch. It raises AssertionError with what is wrong, raises
`Skipped` where Keras alone cannot do the same with the plain model, and else returns notes of what it left out.

Run as a script, this file loads the models of a folder that `in_a_new_process` has written.
"""

import collections
import contextlib
import hashlib
import json
import pickle
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

MODES = ("keep", "random")


class Skipped(Exception):  # noqa: N818  nothing is wrong
    """Keras alone cannot do it with the plain model."""


class Odd(NamedTuple):
    """What a check may have to know of a model.

    Attributes:
        exclude: as in `mask_model`.
        tolerance: of outputs, relative to the largest value of an output.
        load: further arguments of `keras.models.load_model`.
        ticket: further arguments of `load_ticket`.
        merges: whether Keras, copying, makes one weight of several, so that they cannot be compared.
        still: a part of the model that no gradient reaches, so that scores of it may have none.
        refuses: what an error says that is to come instead, as a regular expression, by the check's name.
    """

    exclude: Any = ()
    tolerance: float = 1e-5
    load: dict[str, Any] = {}  # noqa: RUF012
    ticket: dict[str, Any] = {}  # noqa: RUF012
    merges: bool = False
    still: bool = False
    refuses: dict[str, str] = {}  # noqa: RUF012


# ------------------------------------------------------------------------------------------------ looking at models


def eagerly() -> contextlib.AbstractContextManager[Any]:
    """Has masks chosen without programs of XLA, which take longer to compile than all the rest takes."""
    if "keras_popup.layers" not in sys.modules:
        return contextlib.nullcontext()
    from keras_popup.selectors import programs

    return programs.without_compiling()


def masked_layers(model: Any) -> list[Any]:
    """All masked layers of a model, as Keras finds them."""
    from keras_popup import layers

    return [layer for layer in model._flatten_layers() if isinstance(layer, layers.MaskedLayer)]


def own_variables(layer: Any) -> list[Any]:
    """The variables of a layer without those of the layers that it holds."""
    others = {id(v) for part in layer._flatten_layers(include_self=False) for v in part.variables}
    return [v for v in layer.variables if id(v) not in others]


def stem(variable: Any) -> str:
    """The name of a variable without the number that Keras gives to names of its own making."""
    return re.sub(r"(_\d+)+$", "", variable.name)


def is_scores(variable: Any) -> bool:
    return "scores" in variable.name


def masked_kernels(model: Any) -> list[Any]:
    """All masked kernels of a model: frozen `kernel`, `scores`, and `k`."""
    return [kernel for layer in masked_layers(model) for kernel in layer.masked_kernels.values()]


def _masks(model: Any) -> dict[int, str]:
    """What masked layers have besides the variables of the plain layer, by id."""
    found = {id(kernel.scores): "scores" for kernel in masked_kernels(model)}
    for layer in masked_layers(model):
        names = {id(v): v.name for v in own_variables(layer) if re.fullmatch(r"(.*_)?(k|draws)", v.name)}
        found |= names
    return found


def trainables(model: Any) -> list[tuple[str, tuple[int, ...]]]:
    """Names and shapes of all trainable variables, sorted."""
    return sorted((stem(v), tuple(v.shape)) for v in model.trainable_variables)


def value(variable: Any) -> np.ndarray:
    """The value of a variable; half types as float32."""
    if variable.dtype == "bfloat16":
        return np.asarray(keras.ops.cast(variable.value, "float32"))
    return np.asarray(variable.value)


def randomise(model: Any, seed: int, kernels: bool = True) -> Any:
    """Gives each float variable values of its own; without `kernels` not those of masked layers.

    `k` and the counts of draws of masked layers stay, as do integers.
    """
    random = np.random.default_rng(seed)
    masks = _masks(model)
    stay = {key for key, name in masks.items() if "scores" not in name}
    if not kernels:
        stay |= {id(kernel.kernel) for kernel in masked_kernels(model)}
    for variable in model.variables:
        if id(variable) in stay or "float" not in str(variable.dtype):
            continue
        shape = tuple(variable.shape)
        if "variance" in variable.name:
            new = random.uniform(0.5, 1.5, shape)
        else:
            size = np.prod(shape[:-1]) if len(shape) > 1 and id(variable) not in masks else 1
            new = random.normal(size=shape) / np.sqrt(size) + 0.1 * random.uniform(0.1, 1, shape)
        variable.assign(new)
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.Normalization) and layer.built and layer.input_mean is None:
            layer.finalize_state()  # it computes with what it has made of its variables
    return model


def outputs(model: Any, x: Any) -> list[np.ndarray]:
    """What a model says to a batch, eagerly and not in training, as a flat list of arrays."""
    for layer in model._flatten_layers():
        if getattr(layer, "stateful", False) and layer.built and hasattr(layer, "reset_state"):
            layer.reset_state()
    with eagerly():
        found = keras.tree.flatten(model(x, training=False))
    return [
        np.asarray(tf.cast(each, "float64") if each.dtype.is_floating else each)
        for each in (tf.convert_to_tensor(each) for each in found if each is not None)
    ]


def _difference(a: list[np.ndarray], b: list[np.ndarray]) -> str | float:
    if [x.shape for x in a] != [x.shape for x in b]:
        return f"shapes {[x.shape for x in a]} and {[x.shape for x in b]}"
    worst = 0.0
    for x, y in zip(a, b, strict=True):
        if x.dtype.kind != "f":
            worst = max(worst, float(np.any(x != y)))
        elif not np.array_equal(np.isfinite(x), np.isfinite(y)):
            return "some are not finite"
        else:
            finite = np.isfinite(x)
            scale = np.abs(x[finite]).max(initial=0) or 1
            worst = max(worst, float(np.abs(x[finite] - y[finite]).max(initial=0) / scale))
    return worst


def assert_same(a: list[np.ndarray], b: list[np.ndarray], tolerance: float = 0.0, what: str = "outputs") -> None:
    """Compares flat lists of arrays, each relative to its largest value."""
    found = _difference(a, b)
    assert not isinstance(found, str), f"{what}: {found}"
    assert found <= tolerance, f"{what} differ by {found:.3g} of the largest value, more than {tolerance:g}"


def arrays(model: Any, masks: bool = True) -> collections.Counter:
    """The multiset of a model's weights by value; without `masks`, without scores, `k` and counts of draws."""
    left_out = {} if masks else _masks(model)
    return collections.Counter(_digest(v) for v in model.weights if id(v) not in left_out)


def _digest(variable: Any) -> str:
    array = value(variable)
    text = hashlib.sha1(f"{array.shape}{array.dtype}".encode() + np.ascontiguousarray(array).tobytes()).hexdigest()
    return f"{stem(variable)}{list(array.shape)} {text[:12]}"


def _assert_equal_arrays(a: collections.Counter, b: collections.Counter, what: str) -> None:
    # Names count for nothing: a stock layer may call a weight otherwise in a copy.
    values = [collections.Counter(key.rpartition(" ")[2] for key in each.elements()) for each in (a, b)]
    missing, new = (
        sorted(key.rpartition(" ")[0] for key in each if key.rpartition(" ")[2] in difference)
        for each, difference in ((a, values[0] - values[1]), (b, values[1] - values[0]))
    )
    assert values[0] == values[1], f"{what}: lost {missing}, new {new}"


def _assert_equal_trainables(model: Any, expected: list[tuple[str, tuple[int, ...]]], what: str) -> None:
    found, wanted = collections.Counter(trainables(model)), collections.Counter(expected)
    assert found == wanted, f"{what}: no longer trainable {sorted(wanted - found)}, newly so {sorted(found - wanted)}"


# ------------------------------------------------------------------------------------------------ conversions


def masked_copy(model: Any, mode: str, odd: Odd, k: float = 0.5, **arguments: Any) -> Any:
    """`mask_model`, as all checks call it."""
    import keras_popup

    return keras_popup.mask_model(model, k=k, weights=mode, exclude=odd.exclude, seed=1, **arguments)


def _randomised(model: Any, mode: str, odd: Odd, kernels: bool = True) -> Any:
    return randomise(masked_copy(model, mode, odd), 23, kernels)


def _kept(size: int, k: float) -> int:
    return min(size, int(np.floor(k * size + 0.5)))


def _assert_baked(masked: Any, stripped: Any) -> None:
    """Checks that the stripped model has each kernel, 0 where its mask is, with as many weights as `k` says."""
    there = [value(v) for v in stripped.weights]
    for kernel in masked_kernels(masked):
        array, name = value(kernel.kernel), kernel.kernel.path
        alike = [each for each in there if each.shape == array.shape]
        baked = [each for each in alike if np.array_equal(each, np.where(each != 0, array, 0))]
        kept = min(array.size, int(np.floor(kernel.k * array.size + 0.5)))
        assert any(np.count_nonzero(each) == kept for each in baked), (
            f"no kernel of the stripped model is {kept} of the {array.size} weights of {name}"
        )


def _others(masked: Any) -> collections.Counter:
    """The weights that are not of masks."""
    left_out = {*_masks(masked), *(id(kernel.kernel) for kernel in masked_kernels(masked))}
    return collections.Counter(_digest(v) for v in masked.weights if id(v) not in left_out)


def keeps(model: Any, x: Any, odd: Odd, masked: int | None = None) -> list[str]:
    """weights="keep" with k=1 is the given model, which is left as it was; only scores are trained."""
    before, held, trained = outputs(model, x), arrays(model), trainables(model)
    twin = masked_copy(model, "keep", odd, k=1.0)
    assert_same(before, outputs(twin, x), odd.tolerance, "outputs of k=1")
    if not odd.merges:
        _assert_equal_arrays(held, arrays(twin, masks=False), "weights of k=1")
    assert not twin.compiled, "the copy says that it is compiled"
    assert not masked_layers(model), "the given model got masks"
    _assert_equal_trainables(model, trained, "the given model")
    assert_same(before, outputs(model, x), 0, "outputs of the given model, before and after,")
    _assert_equal_arrays(held, arrays(model), "weights of the given model")
    count = len(masked_layers(twin))
    assert masked is None or count == masked, f"{count} layers are masked rather than {masked}: {_names(twin)}"
    others = collections.Counter(t for t in trainables(twin) if "scores" not in t[0])
    assert not others or odd.exclude, f"trainable besides scores: {sorted(others)}"
    assert not others - collections.Counter(trained), (
        f"newly trainable: {sorted(others - collections.Counter(trained))}"
    )
    return []


def _names(model: Any) -> list[str]:
    return [f"{layer.name} ({type(layer).__name__})" for layer in masked_layers(model)]


def strips(model: Any, x: Any, odd: Odd) -> list[str]:
    """With all variables random, `strip_masks` has the same outputs and weights."""
    import keras_popup

    for mode in MODES:
        masked = _randomised(model, mode, odd)
        before, held = outputs(masked, x), arrays(masked)
        plain = keras_popup.strip_masks(masked)
        assert not masked_layers(plain), f"{mode}: masks are left: {_names(plain)}"
        assert_same(before, outputs(plain, x), odd.tolerance, f"{mode}: outputs of the stripped model")
        _assert_baked(masked, plain)
        lost = _others(masked) - arrays(plain)
        assert not lost or odd.merges, f"{mode}: weights lost in stripping: {sorted(lost)}"
        _assert_equal_arrays(held, arrays(masked), f"{mode}: weights of the masked model")
        assert_same(before, outputs(masked, x), 0, f"{mode}: outputs of the masked model, before and after stripping,")
    return []


def strips_in_place(model: Any, x: Any, odd: Odd) -> list[str]:
    """`strip_masks(copy=False)` gives what a copy is, in the masked model itself."""
    import keras_popup

    for mode in MODES:
        masked = _randomised(model, mode, odd)
        before, wanted = outputs(masked, x), arrays(keras_popup.strip_masks(masked))
        given = keras_popup.strip_masks(masked, copy=False)
        assert given is masked, f"{mode}: strip_masks(copy=False) returns another model"
        assert not masked_layers(given), f"{mode}: masks are left: {_names(given)}"
        assert_same(before, outputs(given, x), odd.tolerance, f"{mode}: outputs")
        if not odd.merges:
            _assert_equal_arrays(wanted, arrays(given), f"{mode}: weights")
    return []


def _move(model: Any, x: Any, train: bool) -> tuple[list[Any], int]:
    """One step of gradient descent, or without `train` a call in training: (variables that moved, without gradient)."""
    before = {id(v): value(v) for v in model.variables}
    with eagerly(), tf.GradientTape() as tape:
        found = (tf.convert_to_tensor(y) for y in keras.tree.flatten(model(x, training=True)) if y is not None)
        losses = [tf.reduce_mean(tf.square(tf.cast(y, "float32") - 0.3)) for y in found if y.dtype.is_floating]
        loss = tf.add_n(losses + [tf.cast(each, "float32") for each in model.losses])
    variables = model.trainable_variables if train else []
    gradients = [
        None if g is None else tf.convert_to_tensor(g) for g in tape.gradient(loss, [v.value for v in variables])
    ]
    for variable, gradient in zip(variables, gradients, strict=True):
        if gradient is not None:
            gradient = tf.cast(gradient, "float32")
            step = 0.3 * gradient / (tf.norm(gradient) + 1e-12)
            variable.assign(value(variable) - np.where(np.isfinite(step), step, 0))
    moved = [v for v in model.variables if not np.array_equal(before[id(v)], value(v))]
    return moved, sum(g is None for g in gradients)


def trains(model: Any, x: Any, odd: Odd) -> list[str]:
    """A step of gradient descent moves only what is trainable, and never a masked kernel."""
    values = [value(v) for v in model.variables]
    state = collections.Counter((stem(v), tuple(v.shape)) for v in _move(model, x, train=False)[0])
    _, without = _move(model, x, train=True)
    for variable, old in zip(model.variables, values, strict=True):
        variable.assign(old)
    for mode in MODES:
        masked = _randomised(model, mode, odd)
        _assert_kernels_frozen(masked, mode)
        trained = {id(v) for v in masked.trainable_variables}
        scores = [v for v in masked.trainable_variables if is_scores(v)]
        assert scores, f"{mode}: no scores are trainable"
        moved, gone = _move(masked, x, train=True)
        masks = _masks(masked)
        still = [v for v in moved if id(v) not in trained and "draws" not in masks.get(id(v), "")]
        wrong = [v.path for v in still if (stem(v), tuple(v.shape)) not in state]
        assert not wrong, f"{mode}: moved without being trainable: {wrong}"
        kernels = {id(kernel.kernel) for kernel in masked_kernels(masked)}
        wrong = [v.path for v in moved if id(v) in kernels]
        assert not wrong, f"{mode}: masked kernels moved: {wrong}"
        assert gone <= without or odd.still, f"{mode}: {gone} trainable variables have no gradient, {without} at first"
        assert any(is_scores(v) for v in moved), f"{mode}: no scores moved"
    return []


def _assert_kernels_frozen(model: Any, what: str) -> None:
    trained = {id(v) for v in model.trainable_variables}
    there = {id(v) for v in model.variables}
    for layer in masked_layers(model):
        assert layer.masked_kernels, f"{what}: masked layer {layer.path} has no masked kernel"
    for kernel in masked_kernels(model):
        assert id(kernel.kernel) not in trained, f"{what}: masked kernel {kernel.kernel.path} is trainable"
        for variable in (kernel.kernel, kernel.scores):
            assert id(variable) in there, f"{what}: {variable.path} is none of the model's variables"


def stays_frozen(model: Any, x: Any, odd: Odd) -> list[str]:
    """Setting `trainable` to False and True again thaws no kernel, on the model or on each layer."""
    for mode in MODES:
        masked = masked_copy(model, mode, odd)
        _assert_kernels_frozen(masked, mode)
        scores = [t for t in trainables(masked) if "scores" in t[0]]
        masked.trainable = False
        assert not masked.trainable_variables, f"{mode}: trainable in a frozen model: {trainables(masked)}"
        masked.trainable = True
        _assert_kernels_frozen(masked, f"{mode}, thawed")
        for layer in masked_layers(masked):
            layer.trainable = False
            layer.trainable = True
        _assert_kernels_frozen(masked, f"{mode}, each layer thawed")
        again = [t for t in trainables(masked) if "scores" in t[0]]
        assert again == scores, f"{mode}: scores thawed are {again}, not {scores}"
    return []


# ------------------------------------------------------------------------------------------------ files and copies


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """What Keras warns of, with the plain model as with the masked one, is none of the library's business."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _file(model: Any, x: Any, odd: Odd, folder: Path) -> Any:
    model.save(folder / "model.keras")
    return keras.models.load_model(folder / "model.keras", **odd.load)


def _clone(model: Any, x: Any, odd: Odd, folder: Path) -> Any:
    twin = keras.models.clone_model(model)
    if not twin.built or len(twin.weights) != len(model.weights):
        outputs(twin, x)
    twin.set_weights(model.get_weights())
    return twin


def _weights_file(model: Any, x: Any, odd: Odd, folder: Path) -> Any:
    values = [np.asarray(v) for v in model.variables]
    model.save_weights(folder / "model.weights.h5")
    randomise(model, 5)
    try:
        model.load_weights(folder / "model.weights.h5")
    except Exception:
        for variable, old in zip(model.variables, values, strict=True):
            variable.assign(old)
        raise
    return model


def _alone(trip: Any, model: Any, x: Any, odd: Odd, folder: Path) -> list[str]:
    """Does a trip with the plain model, and returns what Keras alone loses. Raises `Skipped` if outputs change."""
    before, held, trained = outputs(model, x), arrays(model), trainables(model)
    try:
        with _without_warnings():
            twin = trip(model, x, odd, folder)
        after = outputs(twin, x)
    except Exception as error:
        raise Skipped(f"Keras alone: {type(error).__name__}: {str(error)[:200]}") from error
    difference = _difference(before, after)
    if isinstance(difference, str) or difference > odd.tolerance:
        raise Skipped(f"Keras alone: outputs differ: {difference}")
    lost = []
    if trainables(twin) != trained:
        lost.append("trainable")
    if arrays(twin) != held:
        lost.append("weights")
    return lost


def _there_and_back(trip: Any, model: Any, x: Any, odd: Odd, folder: Path) -> list[str]:
    import keras_popup

    lost = _alone(trip, model, x, odd, folder)
    for mode in MODES:
        masked = _randomised(model, mode, odd)
        before, held, trained = outputs(masked, x), arrays(masked), trainables(masked)
        with _without_warnings():
            twin = trip(masked, x, odd, folder)
        assert len(masked_layers(twin)) == len(masked_layers(masked)), (
            f"{mode}: masked were {_names(masked)}, now {_names(twin)}"
        )
        assert_same(before, outputs(twin, x), odd.tolerance, f"{mode}: outputs")
        if "trainable" not in lost:
            _assert_equal_trainables(twin, trained, mode)
        if "weights" not in lost:
            _assert_equal_arrays(held, arrays(twin), f"{mode}: weights")
        _assert_kernels_frozen(twin, mode)
        assert_same(before, outputs(masked, x), 0, f"{mode}: outputs of the masked model, before and after,")
        if trip is _file:
            plain = keras_popup.strip_masks(twin)
            assert_same(before, outputs(plain, x), odd.tolerance, f"{mode}: outputs of the loaded model stripped")
            stripped = keras_popup.strip_masks(masked)
            with _without_warnings():
                again = trip(stripped, x, odd, folder)
            assert not masked_layers(again), f"{mode}: masks in the stripped model's file: {_names(again)}"
            assert_same(before, outputs(again, x), odd.tolerance, f"{mode}: outputs of the stripped model's file")
    return [f"Keras alone loses: {each}" for each in lost]


def saves(model: Any, x: Any, odd: Odd, folder: Path) -> list[str]:
    """`.keras`, of the masked and of the stripped model, in this process."""
    return _there_and_back(_file, model, x, odd, folder)


def clones(model: Any, x: Any, odd: Odd, folder: Path) -> list[str]:
    """`clone_model` and `set_weights`."""
    return _there_and_back(_clone, model, x, odd, folder)


def saves_weights(model: Any, x: Any, odd: Odd, folder: Path) -> list[str]:
    """`.weights.h5`, read into a newly converted model."""
    lost = _alone(_weights_file, model, x, odd, folder)
    for mode in MODES:
        masked = _randomised(model, mode, odd)
        before = outputs(masked, x)
        twin = randomise(masked_copy(model, mode, odd), 31)
        with _without_warnings():
            masked.save_weights(folder / "masked.weights.h5")
            twin.load_weights(folder / "masked.weights.h5")
        assert_same(before, outputs(twin, x), odd.tolerance, f"{mode}: outputs")
        _assert_equal_trainables(twin, trainables(masked), mode)
        if "weights" not in lost:
            _assert_equal_arrays(arrays(masked), arrays(twin), f"{mode}: weights")
    return [f"Keras alone loses: {each}" for each in lost]


def tickets(model: Any, x: Any, odd: Odd, folder: Path) -> list[str]:
    """A ticket is the stripped model, and with masked=True the masked one. Kernels from a seed, or the model's own."""
    import keras_popup

    lost = _alone(_file, model, x, odd, folder)
    for mode in MODES:
        masked = _randomised(model, mode, odd, kernels=mode == "keep")
        before, trained = outputs(masked, x), trainables(masked)
        keras_popup.save_ticket(masked, folder / "model.ticket")
        assert_same(before, outputs(masked, x), 0, f"{mode}: outputs of the masked model, before and after,")
        plain = keras_popup.load_ticket(folder / "model.ticket", **odd.ticket)
        assert not masked_layers(plain), f"{mode}: masks in a ticket's plain model: {_names(plain)}"
        assert_same(before, outputs(plain, x), odd.tolerance, f"{mode}: outputs of the plain model")
        if "weights" not in lost:
            stripped = arrays(keras_popup.strip_masks(masked))
            _assert_equal_arrays(stripped, arrays(plain), f"{mode}: weights of the plain model")
        twin = keras_popup.load_ticket(folder / "model.ticket", masked=True, **odd.ticket)
        assert len(masked_layers(twin)) == len(masked_layers(masked)), (
            f"{mode}: masked were {_names(masked)}, now {_names(twin)}"
        )
        assert_same(before, outputs(twin, x), odd.tolerance, f"{mode}: outputs of the masked model")
        _assert_equal_trainables(twin, trained, f"{mode}, masked=True")
        _assert_kernels_frozen(twin, f"{mode}, masked=True")
    return [f"Keras alone loses: {each}" for each in lost]


def converts_again(model: Any, x: Any, odd: Odd) -> list[str]:
    """The stripped model is masked like any other."""
    import keras_popup

    for mode in MODES:
        masked = _randomised(model, mode, odd)
        plain = keras_popup.strip_masks(masked)
        again = masked_copy(plain, "keep", odd, k=1.0)
        assert_same(outputs(plain, x), outputs(again, x), odd.tolerance, f"{mode}: outputs of the second conversion")
        if not odd.merges:
            _assert_equal_arrays(arrays(plain), arrays(again, masks=False), f"{mode}: weights of the second conversion")
        assert len(masked_layers(again)) == len(masked_layers(masked)), (
            f"{mode}: masked were {_names(masked)}, now {_names(again)}"
        )
    return []


def converts_in_place(model: Any, x: Any, odd: Odd, mode: str) -> list[str]:
    """copy=False gives what a copy is, in the model that was given. The model is used up."""
    twin = masked_copy(model, mode, odd)
    masked = masked_copy(model, mode, odd, copy=False)
    assert masked is model, "mask_model(copy=False) returns another model"
    assert len(masked_layers(masked)) == len(masked_layers(twin)), f"a copy {_names(twin)}, else {_names(masked)}"
    assert_same(outputs(twin, x), outputs(masked, x), odd.tolerance, f"{mode}: outputs of a copy and of copy=False")
    _assert_equal_trainables(masked, trainables(twin), f"{mode}, copy=False")
    if not odd.merges:
        _assert_equal_arrays(arrays(twin), arrays(masked), f"{mode}: weights of a copy and of copy=False")
    return []


def converts_in_place_only(make: Any, odd: Odd, refused: str, masked: int | None = None) -> list[str]:
    """A model that cannot be copied: an error says to give copy=False, and with that all works but copies and files.

    Args:
        make: returns the model, new and called once, and a batch.
        refused: what the error says, as a regular expression.
        masked: how many layers are masked.
    """
    import keras_popup

    model, x = make()
    before, held = outputs(model, x), arrays(model)
    try:
        masked_copy(model, "keep", odd)
    except (TypeError, ValueError) as error:
        text = str(error)
    else:
        raise AssertionError("a model that cannot be copied was copied")
    assert re.search(refused, text), f"the error does not say {refused!r}: {text}"
    assert "copy=False" in text, f"the error does not name copy=False: {text}"
    assert not masked_layers(model), "masks are left of an attempt that failed"
    assert_same(before, outputs(model, x), 0, "outputs after an attempt that failed")
    _assert_equal_arrays(held, arrays(model), "weights after an attempt that failed")
    masked_copy(model, "keep", odd, k=1.0, copy=False)
    count = len(masked_layers(model))
    assert masked is None or count == masked, f"{count} layers are masked rather than {masked}: {_names(model)}"
    assert_same(before, outputs(model, x), odd.tolerance, "outputs of k=1")
    _assert_equal_arrays(held, arrays(model, masks=False), "weights of k=1")
    for mode in MODES:
        model, x = make()
        randomise(masked_copy(model, mode, odd, copy=False), 23)
        _assert_kernels_frozen(model, mode)
        trained = {id(v) for v in model.trainable_variables}
        moved, _ = _move(model, x, train=True)
        kernels = {id(kernel.kernel) for kernel in masked_kernels(model)}
        assert not [v.path for v in moved if id(v) in kernels], f"{mode}: masked kernels moved"
        assert [v for v in moved if id(v) in trained and is_scores(v)], f"{mode}: no scores moved"
        before = outputs(model, x)
        assert keras_popup.strip_masks(model, copy=False) is model
        assert not masked_layers(model), f"{mode}: masks are left: {_names(model)}"
        assert_same(before, outputs(model, x), odd.tolerance, f"{mode}: outputs of the stripped model")
    return []


# ------------------------------------------------------------------------------------------------ another process


def write(folder: Path, name: str, model: Any, x: Any, odd: Odd) -> None:
    """Saves a model for `in_a_new_process`, with a batch and what is to come of it."""
    path = folder / name
    with _without_warnings():
        model.save(f"{path}.keras")
    masked = len(masked_layers(model))
    batch = keras.tree.map_structure(lambda each: each.numpy() if isinstance(each, tf.Tensor) else each, x)
    record = (
        batch,
        outputs(model, x),
        trainables(model),
        masked,
        odd.tolerance,
        odd.load,
        keras.config.dtype_policy().name,
    )
    Path(f"{path}.pickle").write_bytes(pickle.dumps(record))


def in_a_new_process(folder: Path, modules: tuple[str, ...] = (), masked: bool = True) -> dict[str, str]:
    """Loads all models that `write` left in a folder, in one process that has seen none of them.

    Args:
        modules: to import there first, for the classes of the models. For masked ones, what they have of the name
            `register` is called.
        masked: whether to import the layers of keras_popup there. Stripped models must not need them.

    Returns:
        What is wrong, by name; "" where nothing is.
    """
    arguments = [str(folder), str(int(masked)), *modules]
    done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, f"the other process failed: {done.stderr[-2000:]}"
    return json.loads(done.stdout.splitlines()[-1])


def _strings_as_tensors(array: Any) -> Any:
    return tf.constant(array) if array is not None and array.dtype.kind in "OSU" else array


def _main(folder: str, masked: str, *modules: str) -> None:
    import importlib

    if masked == "1":
        importlib.import_module("keras_popup.layers")
    for module in map(importlib.import_module, modules):
        if masked == "1" and hasattr(module, "register"):
            module.register()
    found = {}
    for path in sorted(Path(folder).glob("*.pickle")):
        batch, expected, trained, count, tolerance, load, policy = pickle.loads(path.read_bytes())
        keras.config.set_dtype_policy(policy)
        x = keras.tree.map_structure(_strings_as_tensors, batch)
        try:
            model = keras.models.load_model(path.with_suffix(".keras"), **load)
            assert_same(expected, outputs(model, x), tolerance)
            if masked == "1":
                assert len(masked_layers(model)) == count, f"{len(masked_layers(model))} masked layers, not {count}"
                _assert_equal_trainables(model, trained, "loaded")
            else:
                assert "keras_popup.layers" not in sys.modules, "loading it has imported keras_popup"
            found[path.stem] = ""
        except Exception as error:
            found[path.stem] = f"{type(error).__name__}: {error}"
    print(json.dumps(found))


if __name__ == "__main__":
    _main(*sys.argv[1:])
