"""KerasHub and keras.applications: masked, trained, saved, stripped, packed.

`python tests/support/hub_checks.py [names...] [--json FILE]` prints a table of all of them: "." is passed, "K" is what
Keras itself cannot do with the plain model either.
"""

import argparse
import contextlib
import copy
import gc
import json
import os
import pathlib
import pickle
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import hub_models
import keras
import numpy as np
import tensorflow as tf

import keras_popup

OK, KERAS_CANNOT = "ok", "Keras cannot"


# Made of position embeddings as a file is read. Of changes to them, KerasHub stores those whose sum is positive.
DERIVED = ("interpolated_position_embeddings", "tiled_position_embeddings")


# --- Weights and outputs ---


def is_float(variable: Any) -> bool:
    return "float" in str(variable.dtype)


def randomise(variables: list, seed: int) -> None:
    """Sets variables at random, of about the size that keeps outputs in range. Scales and variances are positive."""
    random = np.random.default_rng(seed)
    skipped = {*DERIVED, "position_embeddings"} if any(each.name in DERIVED for each in variables) else ()
    for variable in filter(is_float, variables):
        shape, name = tuple(variable.shape), variable.name
        if name in skipped:
            continue
        if "variance" in name or (len(shape) < 2 and any(word in name for word in ("gamma", "scale"))):
            values = random.uniform(0.5, 1.5, shape)
        elif len(shape) < 2:
            values = 0.1 * random.standard_normal(shape)
        else:
            fan = np.prod(shape[:-2] if shape[-1] == 1 else shape[:-1])  # of a depthwise kernel: its area
            values = random.standard_normal(shape) * np.sqrt(2 / max(1, fan))
        variable.assign(values)


def finish_normalizations(model: Any) -> None:
    """Has each Normalization of a model compute by its statistics as they are now, as it does after `adapt`."""
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()


def outputs(model: Any, x: Any) -> list[np.ndarray]:
    return [np.asarray(each) for each in keras.tree.flatten(model(x, training=False)) if each is not None]


def assert_close(received: list[np.ndarray], expected: list[np.ndarray], tolerance: float = 1e-5) -> None:
    """Compares outputs; the tolerance is a part of the largest one."""
    assert len(received) == len(expected)
    for one, other in zip(received, expected, strict=True):
        if other.dtype.kind != "f":
            np.testing.assert_array_equal(one, other)
            continue
        assert np.isfinite(other).all()
        largest = np.abs(other).max(initial=0.0)
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance * largest)


def masked_layers(model: keras.Model) -> list:
    return [layer for layer in model._flatten_layers() if isinstance(layer, keras_popup.layers.MaskedLayer)]


def frozen(model: keras.Model) -> list:
    """The frozen kernels of masked layers, and each `k`."""
    return [
        variable
        for layer in masked_layers(model)
        for variable in (*layer._trainable_variables, *layer._non_trainable_variables)
        if not variable.trainable and variable.name != "bias"
    ]


def trainable(model: keras.Model) -> list:
    """Names, without the numbers that Keras makes up, and shapes."""
    return [(re.sub(r"_\d+$", "", each.name), tuple(each.shape)) for each in model.trainable_variables]


def assert_same_trainable(received: keras.Model, expected: keras.Model) -> None:
    new, old = trainable(received), trainable(expected)
    differences = [pair for pair in zip(new, old, strict=False) if pair[0] != pair[1]]
    assert len(new) == len(old), f"{len(new)} trainable variables, not {len(old)}: {differences[:3]}"
    assert not differences, f"other trainable variables: {differences[:3]}"


def gradients(model: keras.Model, x: Any, variables: list) -> list:
    with tf.GradientTape() as tape:
        results = [each for each in keras.tree.flatten(model(x, training=False)) if each is not None]
        loss = sum(tf.reduce_mean(tf.square(tf.cast(each, "float32"))) for each in results if each.dtype.is_floating)
    return tape.gradient(loss, [variable.value for variable in variables])


# --- The checks ---


@contextlib.contextmanager
def recorded(record: dict[str, str], name: str, keras_can: Callable[[], bool] = lambda: True) -> Iterator[None]:
    """Records how a check ends. Where it fails, `keras_can` tells whether Keras alone can do that."""
    try:
        yield
    except Exception as error:
        text = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        record[name] = text if keras_can() else KERAS_CANNOT
    else:
        record[name] = OK


def keras_saves(model: keras.Model, x: Any, folder: pathlib.Path) -> bool:
    """Whether Keras saves and loads a plain model."""
    try:
        model.save(folder / "plain.keras")
        loaded = keras.models.load_model(folder / "plain.keras")
        assert_close(outputs(loaded, x), outputs(model, x))
        assert_same_trainable(loaded, model)
    except Exception:
        return False
    return True


def keras_clones(model: keras.Model, x: Any) -> bool:
    """Whether Keras clones a plain model, made from its config as the masked one is."""
    try:
        clone = keras.models.clone_model(type(model).from_config(model.get_config()))
        clone.set_weights(model.get_weights())
        assert_close(outputs(clone, x), outputs(model, x))
    except Exception:
        return False
    return True


def keras_traces(model: keras.Model, x: Any) -> bool:
    """Whether a plain model runs in a graph."""
    try:
        assert_close(outputs(tf.function(model), x), outputs(model, x), 1e-4)
    except Exception:
        return False
    return True


IN_NEW_PROCESS = """
import pickle, re, sys
import keras, numpy as np
import keras_hub, keras_popup.layers
with open(sys.argv[2], "rb") as file:
    x = pickle.load(file)
model = keras.models.load_model(sys.argv[1])
outputs = [np.asarray(each) for each in keras.tree.flatten(model(x, training=False)) if each is not None]
trainable = [(re.sub(r"_\\d+$", "", each.name), tuple(each.shape)) for each in model.trainable_variables]
with open(sys.argv[3], "wb") as file:
    pickle.dump((outputs, trainable), file)
"""


def in_new_process(script: str, *arguments: Any, x: Any, folder: pathlib.Path) -> Any:
    """Runs a script on a path and inputs, and returns what it writes."""
    (folder / "x.pickle").write_bytes(pickle.dumps(x))
    command = [sys.executable, "-c", script, *map(str, arguments), folder / "x.pickle", folder / "result.pickle"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(result.stderr[-500:])
    return pickle.loads((folder / "result.pickle").read_bytes())


def check(model: keras.Model, x: Any, new_process: bool = False) -> dict[str, str]:
    """Masks a model and follows it through training, files, clones and back.

    Returns:
        For each check "ok", "Keras cannot" or the error.
    """
    with tempfile.TemporaryDirectory() as folder:
        return _check(model, x, pathlib.Path(folder), new_process)


def _check(model: keras.Model, x: Any, folder: pathlib.Path, new_process: bool) -> dict[str, str]:
    record: dict[str, str] = {}
    randomise(model.variables, 1)
    finish_normalizations(model)
    weights = model.get_weights()
    plain = outputs(model, x)

    def saves() -> bool:
        return keras_saves(model, x, folder)

    with recorded(record, "keep", saves):
        m = keras_popup.mask_model(model, weights="keep", k=1.0, seed=1)
        assert masked_layers(m), "nothing is masked"
        assert_close(outputs(m, x), plain)
    m = None

    with recorded(record, "mask", saves):
        m = keras_popup.mask_model(model, k=0.6, seed=2)
        assert masked_layers(m), "nothing is masked"
        kernels = {id(variable) for variable in frozen(m)}
        randomise([variable for variable in m.variables if id(variable) not in kernels], 2)
        finish_normalizations(m)
    with recorded(record, "given"):
        assert not masked_layers(model), "the given model is masked"
        for before, after in zip(weights, model.get_weights(), strict=True):
            np.testing.assert_array_equal(after, before)
        assert_close(outputs(model, x), plain, 0)
    del weights
    if m is None:
        _check_in_place(record, model, x)
        return record

    with recorded(record, "train"):
        _check_step(model, m, x)
    expected = outputs(m, x)

    with recorded(record, "graph", lambda: keras_traces(model, x)):
        assert_close(outputs(tf.function(m), x), expected, 1e-4)
        assert_close(outputs(m, x), expected, 0)

    with recorded(record, "save", saves):
        m.save(folder / "model.keras")
        loaded = keras.models.load_model(folder / "model.keras")
        assert_close(outputs(loaded, x), expected)
        assert_same_trainable(loaded, m)
        del loaded
    if new_process:
        with recorded(record, "process", saves):
            received, names = in_new_process(IN_NEW_PROCESS, folder / "model.keras", x=x, folder=folder)
            assert_close(received, expected)
            assert names == trainable(m)
    with recorded(record, "strip"):
        stripped = keras_popup.strip_masks(m)
        assert not masked_layers(stripped), "a masked layer is left"
        assert_close(outputs(stripped, x), expected)
        assert_close(outputs(m, x), expected, 0)
        del stripped
    with recorded(record, "ticket", saves):
        keras_popup.save_ticket(m, folder / "model.ticket")
        loaded = keras_popup.load_ticket(folder / "model.ticket", trust=("keras_hub",), max_bytes=8 << 30)
        assert not masked_layers(loaded), "a masked layer is left"
        assert_close(outputs(loaded, x), expected)
        del loaded
    if isinstance(model, keras.Sequential) or hasattr(model, "_nodes_by_depth"):
        with recorded(record, "clone", lambda: keras_clones(model, x)):
            clone = keras.models.clone_model(m)
            clone.set_weights(m.get_weights())
            assert_close(outputs(clone, x), expected)
    return record


def _check_in_place(record: dict[str, str], model: keras.Model, x: Any) -> None:
    """Masks a model itself, of which Keras makes no copy, and strips it again."""
    plain = outputs(model, x)
    with recorded(record, "in place"):
        assert keras_popup.mask_model(model, weights="keep", k=1.0, seed=1, copy=False) is model
        assert masked_layers(model), "nothing is masked"
        assert_close(outputs(model, x), plain)
        keras_popup.strip_masks(model, copy=False)
        assert not masked_layers(model), "a masked layer is left"
        assert_close(outputs(model, x), plain)


def _check_step(model: keras.Model, m: keras.Model, x: Any) -> None:
    """One step moves trainable variables alone; scores have gradients where the plain model's weights have."""
    scores = [variable for variable in m.trainable_variables if "scores" in variable.name]
    assert scores
    without = sum(each is None for each in gradients(m, x, scores))
    kernels = [variable for variable in model.trainable_variables if len(variable.shape) > 1]
    of_kernels = gradients(model, x, kernels)
    assert without <= sum(each is None for each in of_kernels), f"{without} without gradient"

    variables = m.trainable_variables
    before = [np.array(variable) for variable in m.variables]
    pairs = zip(gradients(m, x, variables), variables, strict=True)
    keras.optimizers.SGD(0.1).apply_gradients([(each, variable) for each, variable in pairs if each is not None])
    moved = {
        id(variable)
        for variable, old in zip(m.variables, before, strict=True)
        if not np.array_equal(np.array(variable), old)
    }
    # With weights at random a deep network may saturate its softmax, and the plain one does not learn either.
    learns = any(np.any(np.asarray(gradient)) for gradient in of_kernels if gradient is not None)
    assert moved & {id(variable) for variable in scores} or not learns, "no score has moved"
    assert moved <= {id(variable) for variable in variables}, "a frozen variable has moved"
    assert all(np.isfinite(np.array(variable)).all() for variable in variables)
    for variable, old in zip(m.variables, before, strict=True):
        if variable.name in DERIVED:
            variable.assign(old)


# --- The table ---

CHECKS = ("keep", "mask", "in place", "given", "train", "graph", "save", "process", "strip", "ticket", "clone")
SIGNS = {OK: ".", KERAS_CANNOT: "K", None: " "}


def main() -> None:
    """Checks models, and prints a line for each."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("names", nargs="*", help="default: all but the slowest; `slow` for those")
    parser.add_argument("--json", metavar="FILE", help="where to write what the table says, and the errors whole")
    parser.add_argument("--process", action="store_true", help="load in a new process too")
    flags = parser.parse_args()
    import keras_hub

    names = flags.names or [name for name in hub_models.ALL if name not in hub_models.SLOW]
    if names == ["slow"]:
        names = list(hub_models.SLOW)
    header = {
        "date": time.strftime("%Y-%m-%d"),
        "versions": {
            "keras_popup": keras_popup.__version__,
            "keras": keras.__version__,
            "keras_hub": keras_hub.__version__,
            "tensorflow": tf.__version__,
        },
    }
    print(header["date"], *(f"{name} {version}" for name, version in header["versions"].items()))
    print(f"{'':32}", *CHECKS)
    models = {}
    for name in names:
        start = time.perf_counter()
        try:
            record = check(*hub_models.ALL[name](), new_process=flags.process)
        except Exception as error:
            record = {"build": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
        models[name] = {"seconds": round(time.perf_counter() - start, 1), "checks": copy.copy(record)}
        signs = (SIGNS.get(record.get(each), "F").center(len(each)) for each in CHECKS)
        print(f"{name:32}", *signs, f"{models[name]['seconds']:6.1f} s", flush=True)
        for each, result in record.items():
            if result not in (OK, KERAS_CANNOT):
                print(f"    {each}: {result}", flush=True)
        keras.backend.clear_session(free_memory=False)
        gc.collect()
        if flags.json:
            pathlib.Path(flags.json).write_text(json.dumps(header | {"models": models}, indent=1) + "\n")
    passed = sum(all(each in (OK, KERAS_CANNOT) for each in model["checks"].values()) for model in models.values())
    print(f"{passed} of {len(models)} pass")


if __name__ == "__main__":
    main()
