"""Which devices are found and taken."""

import dataclasses
import signal
import subprocess
import sys

import pytest
import replicas
import tensorflow as tf

from keras_popup import distribution, training

pytestmark = pytest.mark.integration

RUN = dataclasses.replace(replicas.RUN, epochs=8)


def test_time_limit_of_what_cannot_be_interrupted():
    script = (
        "import os, signal, time\n"
        "from keras_popup.distribution.placement import _time_limit\n"
        "with _time_limit(60, 'never'): pass\n"
        "signal.signal(signal.SIGINT, lambda *_: None)  # as where Python's lock is held\n"
        "with _time_limit(1, 'too long'):\n"
        "    time.sleep(0.5)\n"
        "    os.killpg(0, signal.SIGINT)\n"
        "    time.sleep(60)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=50, start_new_session=True
    )
    assert done.returncode == -signal.SIGKILL
    assert done.stderr.splitlines()[-1] == "too long"


@pytest.mark.parametrize(
    ("strategy", "devices", "message"),
    [
        ("mirrored", None, "needs GPUs, but TensorFlow finds none.*--devices CPU:0,CPU:1"),
        ("mirrored", "GPU:7", r"no device GPU:7. Devices found: CPU:0"),
    ],
)
def test_place_refuses_devices_that_cannot_be_had(tmp_path, strategy, devices, message):
    if devices is None and tf.config.list_physical_devices("GPU"):
        pytest.skip("there are GPUs")
    with pytest.raises(ValueError, match=message):
        training.train(dataclasses.replace(RUN, strategy=strategy, devices=devices), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_place_divides_the_cpu_only_before_tensorflow_starts():
    tf.config.list_logical_devices()
    with pytest.raises(ValueError, match="use a new process"):
        distribution.place("mirrored", "CPU:0,CPU:63")


def test_place_tells_of_a_cluster_that_is_not_used(monkeypatch, caplog):
    monkeypatch.setenv("TF_CONFIG", "{}")
    assert distribution.place("auto", None).replicas == 1
    assert "TF_CONFIG is set, but this process trains alone" in caplog.text


def test_place_takes_two_gpus_by_default(monkeypatch):
    gpus = [tf.config.PhysicalDevice(f"/physical_device:GPU:{i}", "GPU") for i in range(2)]
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: gpus if kind == "GPU" else [])
    # What is found first is that they are not there.
    with pytest.raises(ValueError, match="no device GPU:0, GPU:1"):
        distribution.place("auto", None)
    assert distribution.place("auto", None, whole_step_by_xla=True).name == "none"
    assert distribution.place("none", None).devices == ("GPU:0",)
