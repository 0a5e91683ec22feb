"""Processes that fork: a model that is made after the fork predicts. Made before, TensorFlow would hang."""

import os
import subprocess
import sys

import pytest

CODE = """
import os
import numpy as np
import keras_popup

child = os.fork()
if child:
    os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
masked = keras_popup.mask_model(keras_popup.models.FullyConnected((8, 8, 1)), k=0.5, seed=1)
keras_popup.save_ticket(masked, "a.ticket", preprocess=[])
plain = keras_popup.load_ticket("a.ticket")
x = np.ones((2, 8, 8, 1), "float32")
np.testing.assert_array_equal(plain.predict(x, verbose=0), keras_popup.strip_masks(masked).predict(x, verbose=0))
os._exit(0)
"""


@pytest.mark.integration
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that forks")
def test_load_ticket_after_a_fork(tmp_path):
    done = subprocess.run([sys.executable, "-c", CODE], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
