"""Tickets under Keras's other backends: the same outputs, and clear errors for what needs TensorFlow."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_popup
from keras_popup import RunConfig, SearchConfig, TaskMasks, layers, pretrained

GOLDEN = Path(__file__).parents[1] / "golden"
TICKETS = [GOLDEN / "digits-v1.ticket", GOLDEN / "kinds-v1.ticket", *map(pretrained.find_ticket, ("digits/fc",))]

# Runs in a process of its own: a backend is chosen when Keras is imported.
PROCESS = """
import sys, keras, keras_popup, numpy as np
from pathlib import Path
out, *tickets = sys.argv[1:]
assert keras.backend.backend() != "tensorflow"
outputs = {}
for number, path in enumerate(tickets):
    model = keras_popup.load_ticket(path)
    images = np.random.default_rng(1).uniform(0, 1, (8, *model.input_shape[1:])).astype("float32")
    outputs[str(number)] = np.asarray(model.predict(images, verbose=0))
np.savez(out, **outputs)
try:
    keras_popup.layers.MaskedDense(3, k=0.5)
except RuntimeError as error:
    print(error)
assert keras_popup.ticket_info(tickets[0]).bytes == Path(tickets[0]).stat().st_size
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_load_ticket_gives_the_same_outputs_under(backend, tmp_path):
    if not importlib.util.find_spec(backend):
        assert not os.environ.get("KERAS_POPUP_NEEDS_BACKENDS"), f"{backend} is missing"
        pytest.skip(f"needs {backend}: make test-backends installs it")
    script, out = tmp_path / "load.py", tmp_path / "outputs.npz"
    script.write_text(PROCESS)
    command = [sys.executable, script, out, *TICKETS]
    environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    assert f"A masked layer needs Keras's TensorFlow backend. Received: '{backend}'" in result.stdout
    with np.load(out) as outputs:
        for number, path in enumerate(TICKETS):
            model = keras_popup.load_ticket(path)
            images = np.random.default_rng(1).uniform(0, 1, (8, *model.input_shape[1:])).astype("float32")
            expected = model.predict(images, verbose=0)
            np.testing.assert_allclose(outputs[str(number)], expected, rtol=1e-5, atol=1e-5, err_msg=path.name)


def make_plain():
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])


@pytest.mark.parametrize(
    "call",
    [
        lambda: layers.MaskedDense(3, k=0.5),
        lambda: keras_popup.mask_model(make_plain(), k=0.5, seed=1),
        lambda: keras_popup.load_ticket(TICKETS[0], masked=True),
        lambda: keras_popup.export(make_plain(), "model"),
        lambda: keras_popup.train(RunConfig(model="fc"), "run"),
        lambda: keras_popup.search.search(SearchConfig(run=RunConfig(model="fc"), space={"k": (0.3, 0.5)}), "search"),
        lambda: TaskMasks(make_plain()),
    ],
    ids=["layer", "mask_model", "load_ticket", "export", "train", "search", "TaskMasks"],
)
def test_what_needs_tensorflow_says_so(call, monkeypatch, tmp_path):
    # Another backend need not be installed: Keras is told that it is in use.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(
        RuntimeError, match=r"needs Keras's TensorFlow backend. Received: 'jax'.*KERAS_BACKEND=tensorflow"
    ):
        call()
    assert not list(tmp_path.iterdir())


def test_load_ticket_warns_of_nothing_new(recwarn):
    assert keras_popup.load_ticket(TICKETS[2]).output_shape == (None, 10)
    assert not recwarn.list
