"""MaskStatistics: what the masks are like after every epoch."""

import functools
import importlib.util
import logging
import os
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from keras_popup import conversion
from keras_popup.layers import MaskedKernel
from keras_popup.selectors import Bernoulli

_logger = logging.getLogger("keras_popup")


class MaskStatistics(keras.callbacks.Callback):
    """Records statistics of each mask after every epoch, and warns of layers that have collapsed.

    For a masked layer with the path `dense1` in the model:

    - `dense1/changed`: share of the mask's entries that have changed since the last epoch.
    - `dense1/threshold`: the smallest magnitude among the scores of kept weights; 0 if no weight is kept.
    - `dense1/kept`: share of the weights that are kept.
    - `dense1/dead_outputs`: number of output channels without a kept weight.
    - `dense1/kept_rows_min` and `_max`: for each input channel, the share of its weights that are kept: the smallest
      and the largest of these.
    - `dense1/kept_columns_min` and `_max`: the same for output channels.
    - `dense1/randomness`, of `Bernoulli` only: the mean of 4 p (1 - p) over the weights. It is 1 while every p is 1/2,
      and falls to 0 as the drawn masks become one mask.

    All statistics are floats. They are in the history that `model.fit` returns, but not in its progress line. The
    masks are those that the model uses outside of training. A layer has collapsed if half of its output channels or
    more have no kept weight. A warning in the log "keras_popup" names each such layer once.

    Args:
        log_dir: directory for TensorBoard files with the statistics, and with histograms of the shares of input and
            output channels. None writes no files.

    Attributes:
        latest: dict of the statistics of the last epoch, by the names above.

    Raises:
        ImportError: if `log_dir` is given and TensorBoard is not installed.
        ValueError: when training begins, if no layer of the model is masked, or if the model is not built.

    Example:

    >>> import keras_popup
    >>> statistics = keras_popup.callbacks.MaskStatistics()
    """

    def __init__(self, log_dir: str | os.PathLike[str] | None = None) -> None:
        super().__init__()
        if log_dir is not None and importlib.util.find_spec("tensorboard") is None:
            raise ImportError(
                "`log_dir` needs TensorBoard, which is not installed. Install the extra, '.[tuning]', or omit "
                "`log_dir`."
            )
        self.latest: dict[str, float] = {}
        self._log_dir = log_dir
        self._masks: dict[str, Any] = {}
        self._collapsed: set[str] = set()

    @functools.cached_property
    def _writer(self) -> Any:
        return tf.summary.create_file_writer(os.fspath(self._log_dir)) if self._log_dir is not None else None

    def on_train_begin(self, logs: Any = None) -> None:
        masked = conversion.masked_kernels(self.model)
        if not masked:
            raise ValueError(
                f"Model '{self.model.name}' has no masked layer, so there are no masks to record. Mask it with "
                "keras_popup.mask_model first."
            )
        if not all(kernel.scores is not None for _, kernel in masked):
            raise ValueError(
                f"Model '{self.model.name}' is not built, so it has no masks yet. Give it an Input, or call it on data "
                "first."
            )
        self._masks, self._collapsed = {}, set()

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if not self._masks:  # not in on_train_begin: only now has a KSchedule set k
            self._masks = {
                path: kernel.read_mask().astype(np.int8) for path, kernel in conversion.masked_kernels(self.model)
            }

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.latest = {}
        for path, kernel in conversion.masked_kernels(self.model):
            mask, before = kernel.read_mask().astype(np.int8), self._masks[path]
            self._masks[path] = mask
            kept = mask != 0
            shares = _compute_shares(kernel, kept)
            scores = np.abs(kernel.scores.numpy()[kept])
            statistics: dict[str, Any] = {
                "changed": (mask != before).mean(),
                "threshold": scores.min() if scores.size else 0.0,
                "kept": kept.mean(),
                "dead_outputs": np.count_nonzero(shares["columns"] == 0),
                **{
                    f"kept_{axis}_{limit.__name__}": limit(values)
                    for axis, values in shares.items()
                    for limit in (min, max)
                },
            }
            if isinstance(kernel.selector, Bernoulli):
                statistics["randomness"] = 1 - np.mean(np.tanh(kernel.scores.numpy() / 2) ** 2)  # 4 p (1 - p)
            self.latest |= {f"{path}/{name}": float(value) for name, value in statistics.items()}
            self._warn(path, int(statistics["dead_outputs"]), shares["columns"].size)
            self._write(path, statistics, shares, epoch)
        if self._writer is not None:
            self._writer.flush()  # else a killed run would lose this epoch, which a resumed run does not write again
        history: Any = getattr(self.model, "history", None)
        if history is not None:
            for name, value in self.latest.items():
                history.history.setdefault(name, []).append(value)

    def _warn(self, path: str, dead: int, outputs: int) -> None:
        if 2 * dead < outputs or path in self._collapsed:
            return
        self._collapsed.add(path)
        _logger.warning(
            "Layer '%s' has collapsed: %d of its %d output channels have no weight left. These may help: a lower "
            "learning rate, less weight decay of the scores, or a larger k (if the selector uses k).",
            path,
            dead,
            outputs,
        )

    def _write(self, path: str, statistics: dict[str, Any], shares: dict[str, Any], epoch: int) -> None:
        if self._writer is None:
            return
        with self._writer.as_default(step=epoch):
            for name, value in statistics.items():
                tf.summary.scalar(f"{path}/{name}", value)
            for axis, values in shares.items():
                tf.summary.histogram(f"{path}/kept_{axis}", values)


def _compute_shares(kernel: MaskedKernel, mask: NDArray[np.bool_]) -> dict[str, NDArray[np.float64]]:
    """Returns the share of kept weights for each input channel ("rows") and for each output channel ("columns")."""
    rows, columns = kernel.channel_axes()
    return {
        name: mask.mean(axis=tuple(set(range(mask.ndim)) - set(axes)), dtype=np.float64).ravel()
        for name, axes in (("rows", rows), ("columns", columns))
    }
