"""The devices that train a network: one device, several devices of one machine, or several machines."""

import contextlib
import dataclasses
import logging
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf

from keras_popup.distribution import rendezvous

_logger = logging.getLogger("keras_popup")

_TENSORFLOW_START = 120.0  # the seconds that TensorFlow may take to start, after all workers have met


@dataclasses.dataclass(frozen=True)
class Placement:
    """The devices that train a network.

    Attributes:
        name: "none", "mirrored" or "multiworker".
        strategy: a `tf.distribute.Strategy`, or None for one device.
        devices: tuple of the names of the devices, such as "GPU:0", or of the addresses of several workers.
        worker: int, the index of the worker that this process is. Worker 0 writes the records.
    """

    name: str
    strategy: Any
    devices: tuple[str, ...]
    worker: int = 0

    @property
    def replicas(self) -> int:
        """The number of replicas."""
        return self.strategy.num_replicas_in_sync if self.strategy else 1


def place(strategy: str, devices: str | None, *, whole_step_by_xla: bool = False) -> Placement:
    """Chooses the devices of this machine.

    Args:
        strategy: "none" for one device; "mirrored" for one replica on each of `devices`, or on each GPU; "auto" for
            "mirrored" if `devices` are given or there are two or more GPUs, else "none".
        devices: comma-separated names, such as "GPU:0,GPU:1", or None. "CPU:0,CPU:1" divides the CPU into two
            devices.
        whole_step_by_xla: bool, whether XLA compiles whole training steps. Keras can do this on one device only, so
            "auto" then does not choose "mirrored" because of several GPUs.

    Raises:
        ValueError: if a device does not exist, or if it is too late to divide the CPU.
    """
    if os.environ.get("TF_CONFIG"):
        _logger.warning(
            "TF_CONFIG is set, but this process trains alone. To train with other workers, use --strategy multiworker."
        )
    names = [name.strip() for name in devices.split(",")] if devices else []
    gpus = tf.config.list_physical_devices("GPU")
    if strategy == "auto":
        strategy = "mirrored" if names or (len(gpus) > 1 and not whole_step_by_xla) else "none"
    if strategy == "mirrored":
        names = names or [f"GPU:{i}" for i in range(len(gpus))]
        if not names:
            raise ValueError(
                "strategy='mirrored' needs GPUs, but TensorFlow finds none. To try it without GPUs, divide the CPU: "
                "--devices CPU:0,CPU:1."
            )
        _check_devices(names)
        return Placement("mirrored", tf.distribute.MirroredStrategy(names), tuple(names))
    return Placement("none", None, ("GPU:0" if gpus else "CPU:0",))


def _check_devices(names: Sequence[str]) -> None:
    """Checks that devices exist. Divides the CPU if the names contain several CPUs."""
    cpus = 1 + max((int(name[4:]) for name in names if name.startswith("CPU")), default=0)
    if cpus > 1:
        parts = [tf.config.LogicalDeviceConfiguration()] * cpus
        with contextlib.suppress(RuntimeError):  # TensorFlow has started already, perhaps with these devices
            tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], parts)
    existing = [device.name.removeprefix("/device:") for device in tf.config.list_logical_devices()]
    if missing := [name for name in names if name not in existing]:
        advice = " The CPU can be divided only before TensorFlow starts: use a new process." if cpus > 1 else ""
        raise ValueError(f"There is no device {', '.join(missing)}. Devices found: {', '.join(existing)}.{advice}")


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The workers of TF_CONFIG.

    Attributes:
        addresses: tuple of "host:port" for each worker.
        worker: int, the index of the worker that this process is. Worker 0 writes the run folder.
    """

    addresses: tuple[str, ...]
    worker: int

    @classmethod
    def from_environment(cls) -> "Cluster":
        """Returns the cluster of TF_CONFIG. Raises ValueError if TF_CONFIG is missing or not valid."""
        addresses, worker = rendezvous.cluster_from_environment()
        return cls(tuple(addresses), worker)

    def dismiss(self, *, refusal: str = "", finished: dict[str, Any] | None = None) -> None:
        """As worker 0, tells the other workers that there is nothing to do.

        Args:
            refusal: str, the reason why worker 0 refuses to train, or "".
            finished: the summary of a finished run, or None.
        """
        rendezvous.dismiss(self.addresses, {"refusal": refusal, "finished": finished})

    def meet(self, arguments: dict[str, Any], limit: float) -> dict[str, Any] | None:
        """Waits until all workers have started.

        Args:
            arguments: JSON-serializable dict that must be the same in all workers.
            limit: float, the number of seconds to wait.

        Returns:
            None, or worker 0's summary of a run that is finished.

        Raises:
            ValueError: if the arguments differ, or if worker 0 refuses to train.
            TimeoutError: if a worker has not started in time.
            OSError: if this worker cannot use its port.
        """
        arguments = {**arguments, "gpus": len(tf.config.list_physical_devices("GPU"))}
        if self.worker:
            return rendezvous.call(self.addresses, self.worker, arguments, limit)
        rendezvous.receive(self.addresses, arguments, limit)
        return None

    def place(self) -> Placement:
        """Starts TensorFlow in all workers, after `meet`. No operation of TensorFlow may have run before.

        Returns:
            A `Placement`.

        Raises:
            OSError: if TensorFlow's server cannot start.
        """
        too_late = (
            f"keras-popup: TensorFlow did not reach all workers within {_TENSORFLOW_START:.0f} s after they had met. "
            "Check that all workers are still running, and that they can reach each other on all ports of TF_CONFIG."
        )
        handler = signal.getsignal(signal.SIGTERM)
        try:
            with _time_limit(_TENSORFLOW_START, too_late):
                strategy = tf.distribute.MultiWorkerMirroredStrategy()
        except tf.errors.OpError as error:
            raise OSError(f"TensorFlow cannot start on {self.addresses[self.worker]}: {error.message}") from None
        # TensorFlow has replaced the handler by one that does not end the process. Restore it.
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)
        return Placement("multiworker", strategy, self.addresses, self.worker)


_WATCHDOG = """
import os, sys, time
parent, seconds, message = sys.argv[1:]
end = time.monotonic() + float(seconds)
while os.getppid() == int(parent):
    if time.monotonic() > end:
        print(message, file=sys.stderr, flush=True)
        os.kill(int(parent), 9)
    time.sleep(0.2)
"""


@contextlib.contextmanager
def _time_limit(seconds: float, message: str) -> Iterator[None]:
    """Ends this process with a message if the code inside takes longer than `seconds`.

    TensorFlow waits forever in C++ and holds Python's global lock, so no Python thread could interrupt it. Another
    process does.
    """
    watchdog = subprocess.Popen(
        [sys.executable, "-c", _WATCHDOG, str(os.getpid()), str(seconds), message],
        stdout=subprocess.DEVNULL,
        start_new_session=True,  # otherwise Ctrl-C would end it, but not this process, which waits in TensorFlow
    )
    try:
        yield
    finally:
        watchdog.kill()
        watchdog.wait()


@contextlib.contextmanager
def loss_of_workers() -> Iterator[None]:
    """Raises ConnectionError if an error of TensorFlow inside means that another worker is lost."""
    try:
        yield
    except tf.errors.OpError as error:
        match = re.search(r"aborted by:\s*(.*?)(\. |\n\n|\nAdditional|\nThe |$)", error.message, re.DOTALL)
        if match is None and not isinstance(error, tf.errors.UnavailableError):
            raise
        reason = " ".join((match[1] if match else error.message).split())
        raise ConnectionError(
            "Another worker is lost. Read the messages of the other workers. Then start all workers again with "
            f"--resume: they continue after the last finished epoch. TensorFlow says: {reason}."
        ) from error


def find_devices() -> list[str]:
    """Returns the types of the devices that TensorFlow finds, such as "CPU" and "GPU"."""
    return [device.device_type for device in tf.config.list_physical_devices()]
