"""Settings of every test process."""

import gc
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["KERAS_BACKEND"] = "tensorflow"

import pytest
import tensorflow as tf
from tensorflow.python.framework import config as framework_config

# Two test processes share the cores.
tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(1)


@pytest.fixture(autouse=True)
def _seeded():
    import keras

    keras.utils.set_random_seed(1)
    yield
    keras.config.set_dtype_policy("float32")
    framework_config.disable_op_determinism()  # a training run switches it on for its process
    keras.backend.clear_session(free_memory=False)


@pytest.fixture(autouse=True, scope="module")
def _garbage_collected():
    yield
    gc.collect()  # after each test it would take half of the time
