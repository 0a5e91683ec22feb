"""Where a network is trained: on one device, several of a machine, or several machines."""

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

_TENSORFLOW_START = 120.0  # seconds; all workers are known to be there


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where a network is trained.

    Attributes:
        name: "none", "mirrored" or "multiworker".
        strategy: a `tf.distribute.Strategy`, None for one device.
        devices: their names, such as "GPU:0"; the addresses of several workers.
        worker: which worker this process is. Worker 0 keeps the records.
    """

    name: str
    strategy: Any
    devices: tuple[str, ...]
    worker: int = 0

    @property
    def replicas(self) -> int:
        return self.strategy.num_replicas_in_sync if self.strategy else 1


def place(strategy: str, devices: str | None, *, whole_step_by_xla: bool = False) -> Placement:
    """Chooses devices of this machine.

    Args:
        strategy: "none" for one device; "mirrored" for a replica on each of `devices`, or each GPU; "auto" for
            "mirrored" where there are `devices`, or two or more GPUs, and "none" elsewhere.
        devices: names joined by commas, such as "GPU:0,GPU:1". "CPU:0,CPU:1" divides the CPU into two devices.
        whole_step_by_xla: bool, whether "auto" is to choose one device, as Keras requires.

    Raises:
        ValueError: for devices that are not there or cannot be had any more.
    """
    if os.environ.get("TF_CONFIG"):
        _logger.warning(
            "TF_CONFIG is set, but this process trains alone: to train with others, --strategy multiworker."
        )
    names = [name.strip() for name in devices.split(",")] if devices else []
    gpus = tf.config.list_physical_devices("GPU")
    if strategy == "auto":
        strategy = "mirrored" if names or (len(gpus) > 1 and not whole_step_by_xla) else "none"
    if strategy == "mirrored":
        names = names or [f"GPU:{i}" for i in range(len(gpus))]
        if not names:
            raise ValueError(
                "strategy='mirrored' needs GPUs, of which TensorFlow finds none. To try it without, name parts of "
                "the CPU: --devices CPU:0,CPU:1."
            )
        _find(names)
        return Placement("mirrored", tf.distribute.MirroredStrategy(names), tuple(names))
    return Placement("none", None, ("GPU:0" if gpus else "CPU:0",))


def _find(names: Sequence[str]) -> None:
    """Checks that devices are there; divides the CPU if there are to be several of it."""
    cpus = 1 + max((int(name[4:]) for name in names if name.startswith("CPU")), default=0)
    if cpus > 1:
        parts = [tf.config.LogicalDeviceConfiguration()] * cpus
        with contextlib.suppress(RuntimeError):  # TensorFlow has started; perhaps with them
            tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], parts)
    there = [device.name.removeprefix("/device:") for device in tf.config.list_logical_devices()]
    if missing := [name for name in names if name not in there]:
        late = " The CPU can be divided before TensorFlow starts only: use a new process." if cpus > 1 else ""
        raise ValueError(f"There is no device {', '.join(missing)}. Devices found: {', '.join(there)}.{late}")


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The workers of TF_CONFIG.

    Attributes:
        addresses: "host:port" of each.
        worker: which of them is this process. Worker 0 keeps the run folder.
    """

    addresses: tuple[str, ...]
    worker: int

    @classmethod
    def from_environment(cls) -> "Cluster":
        """Returns the cluster of TF_CONFIG. Raises ValueError if that is missing or wrong."""
        addresses, worker = rendezvous.cluster_from_environment()
        return cls(tuple(addresses), worker)

    def dismiss(self, *, refusal: str = "", finished: dict[str, Any] | None = None) -> None:
        """Tells the other workers, as worker 0, why there is nothing to do."""
        rendezvous.dismiss(self.addresses, {"refusal": refusal, "finished": finished})

    def meet(self, arguments: dict[str, Any], limit: float) -> dict[str, Any] | None:
        """Waits until all workers are there.

        Args:
            arguments: what must be the same in all workers, of JSON.
            limit: float, seconds to wait.

        Returns:
            None, or the summary that worker 0 has of a finished run.

        Raises:
            ValueError: if arguments differ, or worker 0 refuses.
            TimeoutError: if some worker is not there in time.
            OSError: if this worker cannot have its port.
        """
        arguments = {**arguments, "gpus": len(tf.config.list_physical_devices("GPU"))}
        if self.worker:
            return rendezvous.call(self.addresses, self.worker, arguments, limit)
        rendezvous.receive(self.addresses, arguments, limit)
        return None

    def place(self) -> Placement:
        """Starts TensorFlow's part of all workers, which have met. None of its operations may have run before.

        Raises:
            OSError: if its server cannot start.
        """
        too_late = (
            f"keras-popup: TensorFlow did not reach all workers within {_TENSORFLOW_START:.0f} s of their meeting. "
            "See whether they are still there, and whether all ports of TF_CONFIG are open between them."
        )
        handler = signal.getsignal(signal.SIGTERM)
        try:
            with _time_limit(_TENSORFLOW_START, too_late):
                strategy = tf.distribute.MultiWorkerMirroredStrategy()
        except tf.errors.OpError as error:
            raise OSError(f"TensorFlow cannot start on {self.addresses[self.worker]}: {error.message}") from None
        # TensorFlow has taken the signal for a notice that nobody reads here, and the process would live on.
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
    """Ends this process with a message if it takes longer.

    TensorFlow waits in C++ without an end and holds Python's lock, so that no thread of Python could break it off.
    """
    watchdog = subprocess.Popen(
        [sys.executable, "-c", _WATCHDOG, str(os.getpid()), str(seconds), message],
        stdout=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C, which waits for TensorFlow, would end it
    )
    try:
        yield
    finally:
        watchdog.kill()
        watchdog.wait()


@contextlib.contextmanager
def loss_of_workers() -> Iterator[None]:
    """Raises ConnectionError where TensorFlow says in its own ways that another worker is gone."""
    try:
        yield
    except tf.errors.OpError as error:
        found = re.search(r"aborted by:\s*(.*?)(\. |\n\n|\nAdditional|\nThe |$)", error.message, re.DOTALL)
        if found is None and not isinstance(error, tf.errors.UnavailableError):
            raise
        reason = " ".join((found[1] if found else error.message).split())
        raise ConnectionError(
            "Another worker is gone. Look at what the others say, and start all of them again with --resume: they go "
            f"on after the last finished epoch. TensorFlow says: {reason}."
        ) from error


def find_devices() -> list[str]:
    """Returns the types of the devices that TensorFlow finds, such as "CPU" and "GPU"."""
    return [device.device_type for device in tf.config.list_physical_devices()]
