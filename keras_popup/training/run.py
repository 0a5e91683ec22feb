"""One training run, from a `RunConfig` to a run folder."""

import contextlib
import dataclasses
import importlib.util
import logging
import math
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from keras_popup import _keras, conversion, datasets, distribution, draws, records, tickets
from keras_popup._files import write_atomically
from keras_popup._processor import emulates
from keras_popup.callbacks import SCHEDULES, IterativeRandomization, KSchedule, MaskStatistics, Recycle
from keras_popup.distribution import Cluster, Placement
from keras_popup.records import RunFolder
from keras_popup.training import experiment
from keras_popup.training.config import PLACES, ResolvedRunConfig, RunConfig, read_arguments
from keras_popup.training.mask_records import describe_masks
from keras_popup.training.memory import check_memory
from keras_popup.training.pictures import draw_pictures, find_missing
from keras_popup.training.recorder import STEPS_BETWEEN_LOSS_CHECKS, Recorder, find_versions, summarize
from keras_popup.training.times import Times

_logger = logging.getLogger("keras_popup")

_DRAWS = 10  # masks that a supermask is evaluated with, as in arXiv 1905.01067
_LONGEST_WAIT = 300.0  # seconds, for other workers


def train(
    config: RunConfig,
    out: str | os.PathLike[str],
    *,
    resume: bool = False,
    overwrite: bool = False,
    test: bool = True,
    until: int | None = None,
    ticket: bool = False,
    pictures: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    data: datasets.Dataset | None = None,
) -> dict[str, Any]:
    """Trains a network and leaves a run folder.

    The test images are used once, after the last epoch or that of `until`. A run that was killed at any moment
    continues after its last finished epoch when it is called again with `resume`. It ends with the history that it
    would have had without the kill.

    The function sets the random seeds of the process. With `config.deterministic`, it also switches TensorFlow to
    deterministic operations. Both stay on.

    Args:
        config: the run's arguments.
        out: path of the run folder; `keras_popup.records` lists its files.
        resume: whether to continue the run in `out`. A run that has not begun is begun.
        overwrite: whether to remove the run in `out` first.
        test: whether to use the test images at all.
        until: the epoch to stop after. The schedules are those of all `config.epochs`, and the run is not finished.
        ticket: whether to save the network as a ticket too.
        pictures: whether to draw masks.png, scores.png and flow.png, and to write the page report.html, once the run
            is finished. Needs the extra `plots`.
        callbacks: Keras callbacks of the training.
        data: what `training.load_data(config)` returned earlier, so that it is not read again. None reads it.

    Returns:
        The content of summary.json: metrics, kept and total counts, time, versions.

    Raises:
        ValueError, FileNotFoundError, FileExistsError, ImportError: for arguments, data, a folder or an
            installation that cannot be used. Nothing is written before.
        DamagedError: a ValueError, if a file of the run in `out` is not what was written, and cannot be made again.
        ConnectionError, TimeoutError: if another worker is lost, or does not come in time.
        DivergenceError: if the loss becomes NaN or infinite. The checkpoint of the last good epoch stays.
    """
    _keras.require_tensorflow("Training masks")
    resolved = config.with_protocol()
    experiment.find_base(resolved)
    experiment.kernel_initializer(resolved)  # a wrong name is an error before data are read, or made
    options = _Options(resume, overwrite, test, until, ticket, pictures, callbacks, data)
    folder = RunFolder(out)
    if pictures and (missing := find_missing()):
        raise ImportError(f"Pictures need {missing}. Install the extra: pip install 'keras-popup[plots]'.")
    if resolved.strategy == "multiworker":
        return _train_by_workers(resolved, options, folder)
    finished = _check_folder(resolved, options, folder)
    return finished or _Run(resolved, options, folder, place(resolved)).train()


def place(config: RunConfig) -> Placement:
    """Chooses the devices of a run, on this machine. Raises the errors of `distribution.place`."""
    return distribution.place(config.strategy, config.devices, whole_step_by_xla=config.jit_compile == "true")


@dataclasses.dataclass(frozen=True)
class _Options:
    """The arguments of `train` beside the configuration."""

    resume: bool
    overwrite: bool
    test: bool
    until: int | None
    ticket: bool
    pictures: bool
    callbacks: Sequence[keras.callbacks.Callback]
    data: datasets.Dataset | None


def _check_folder(config: ResolvedRunConfig, options: _Options, folder: RunFolder) -> dict[str, Any] | None:
    """Checks that the folder can be used. Returns the summary of a finished run."""
    folder.check(config.to_json(), resume=options.resume, overwrite=options.overwrite, but=PLACES, read=read_arguments)
    summary = folder.summary() if options.resume else None
    if summary:
        folder.check_finished()
        folder.say_if_unchecked()
        _logger.info("The run in '%s' is finished.", folder.path)
    return summary


def _train_by_workers(config: ResolvedRunConfig, options: _Options, folder: RunFolder) -> dict[str, Any]:
    cluster = Cluster.from_environment()
    if cluster.worker == 0:
        try:
            finished = _check_folder(config, options, folder)
        except (OSError, ValueError) as error:
            cluster.dismiss(refusal=f"Worker 0: {error}")
            raise
        if finished:
            cluster.dismiss(finished=finished)
            return finished
    versions = find_versions()
    arguments = {name: value for name, value in config.to_json().items() if name != "data_dir"}
    arguments |= {name: versions[name] for name in ("keras_popup", "tensorflow", "keras", "numpy")}
    if finished := cluster.meet(arguments, _LONGEST_WAIT):
        return finished
    placement = cluster.place()
    # Saving can need all workers, so all of them save. The files of worker 0 are kept.
    elsewhere = tempfile.TemporaryDirectory() if cluster.worker else contextlib.nullcontext(folder.path)
    with elsewhere as path, distribution.loss_of_workers():
        summary = _Run(config, options, RunFolder(path), placement).train()
        distribution.wait_for_all(placement.strategy)
    return summary


class _Run:
    """A training run on its devices, in its folder.

    Making one loads the data and builds the network; it writes nothing.
    """

    def __init__(self, config: ResolvedRunConfig, options: _Options, folder: RunFolder, placement: Placement) -> None:
        if config.batch_size < placement.replicas:
            raise ValueError(
                f"`batch_size` must be at least the number of devices, {placement.replicas}. "
                f"Received: batch_size={config.batch_size}."
            )
        self._config = config
        self._options = options
        self._folder = folder
        self._placement = placement
        self._last_epoch = min(options.until or config.epochs, config.epochs)
        if config.deterministic:
            tf.config.experimental.enable_op_determinism()
        keras.utils.set_random_seed(config.seed)
        self._times = Times()
        if options.data is None:
            _logger.info("Reading the data: %s.", config.dataset)
        with self._times.measured("data"):
            self._data = experiment.load_data(config) if options.data is None else options.data
        if placement.name == "multiworker":
            distribution.check_same_everywhere(placement.strategy, self._data.digest(), f"data. Here: {self._data}.")
        self._on_gpu = any("GPU" in device for device in placement.devices)
        data = self._data
        check_memory(config, data.image_shape, len(data.classes), data.train.size, self._on_gpu)
        self._steps = math.ceil(self._data.train.size / config.batch_size)
        with self._times.measured("network"):
            self._model = self._build()
        self._instruments = self._make_instruments()

    def _build(self) -> keras.Model:
        config, strategy = self._config, self._placement.strategy
        with strategy.scope() if strategy else contextlib.nullcontext():
            data = self._data
            preprocessing = [data.preprocessing()]
            model = experiment.build_model(config, data.image_shape, len(data.classes), preprocessing)
            experiment.compile_model(model, config, self._steps)
            if strategy:
                distribution.prepare(model, self._data.evaluation_batches("test", config.batch_size))
            model.optimizer.build(model.trainable_variables)
        return model

    def _make_instruments(self) -> list[keras.callbacks.Callback]:
        config = self._config
        chosen: list[keras.callbacks.Callback] = []
        if config.k_schedule and not isinstance(config.k, dict):
            steps = max(1, round(config.k_schedule_end * config.epochs * self._steps))
            chosen.append(KSchedule(SCHEDULES[config.k_schedule](config.k, steps)))
        if config.redraw_every:
            redraw = Recycle if config.redraw_from == "best" else IterativeRandomization
            chosen.append(redraw(config.redraw_every, config.redraw_rate))
        if config.mask_statistics:
            to_tensorboard = config.mask_statistics == "tensorboard"
            chosen.append(MaskStatistics(self._folder.tensorboard if to_tensorboard else None))
        return chosen

    def train(self) -> dict[str, Any]:
        """Trains, tests and saves the network. Returns the summary."""
        with self._folder.locked():
            # Another process may have used the folder meanwhile.
            if finished := _check_folder(self._config, self._options, self._folder):
                return finished
            self._folder.start(self._config.to_json(), find_versions(), overwrite=self._options.overwrite)
            recorder = self._restore()
            _logger.info(_describe(self._placement, self._config))
            self._warn_of_slow_precision()
            if recorder.history:
                _logger.info("Going on after epoch %d of %s.", len(recorder.history), self._config.epochs)
            if len(recorder.history) < self._last_epoch:
                with self._times.measured("training"):
                    self._fit(recorder)
                self._times.split("training", "first step", recorder.first_step or 0.0)
            with self._times.measured("test"):
                test, test_draws = self._test() if self._options.test else (None, None)
            summary = self._save(recorder, test, test_draws)
        if self._options.pictures and self._last_epoch == self._config.epochs and not self._placement.worker:
            draw_pictures(self._model, self._folder)
        return summary

    def _warn_of_slow_precision(self) -> None:
        dtype = self._config.precision.removeprefix("mixed_")
        if not self._on_gpu and emulates(dtype):
            _logger.warning(
                "This processor has no instructions for %s. Convolutions take some ten times as long as in float32, "
                "which is the default `precision`.",
                dtype,
            )

    def _restore(self) -> Recorder:
        """Loads the checkpoint, if there is one, into the model. Returns the recorder of the training."""
        # Not in the strategy's scope: there, every variable that Keras makes would be sent to the other workers.
        history, seconds = self._folder.load_checkpoint(self._model)
        if self._placement.name == "multiworker":
            notes: dict[str, Any] = {"history": history, "seconds": seconds}
            notes = distribution.take_from_worker_0(self._placement.strategy, self._model, notes)
            history, seconds = notes["history"], notes["seconds"]
        return Recorder(self._folder, history, seconds, self._instruments)

    def _fit(self, recorder: Recorder) -> None:
        data, batch_size, first_epoch = self._data, self._config.batch_size, len(recorder.history)
        _logger.info("The first step takes longer than the others: TensorFlow prepares it.")
        callbacks = [*self._instruments, recorder, *self._options.callbacks]
        stream = {"seed": self._config.seed, "epochs": self._last_epoch, "first_epoch": first_epoch}
        verbose = 0 if self._placement.worker else 1 if sys.stdout.isatty() else 2
        if self._placement.strategy is None:
            self._model.fit(
                data.training_batches(batch_size, **stream),
                shuffle=False,  # the dataset is shuffled
                steps_per_epoch=self._steps,
                initial_epoch=first_epoch,
                epochs=self._last_epoch,
                validation_data=data.evaluation_batches("validation", batch_size) if data.validation else None,
                callbacks=callbacks,
                verbose=verbose,
            )
            return
        distribution.fit(
            self._model,
            self._placement.strategy,
            lambda *part: data.training_parts(batch_size, datasets.Part(*part), **stream),
            steps=self._steps,
            first_epoch=first_epoch,
            epochs=self._last_epoch,
            validation=self._make_parts("validation", data.validation.size) if data.validation else None,
            callbacks=callbacks,
            steps_between_logs=STEPS_BETWEEN_LOSS_CHECKS,
            verbose=verbose,
        )

    def _make_parts(self, split: str, size: int) -> tuple[Callable[[int, int, int], tf.data.Dataset], int]:
        """Returns the batches of a split as `distribution.evaluator` takes them, and their number."""
        batch_size = self._config.batch_size

        def make(*part: int) -> tf.data.Dataset:
            return self._data.evaluation_parts(split, batch_size, datasets.Part(*part))

        return make, math.ceil(size / batch_size)

    def _test(self) -> tuple[dict[str, float], dict[str, float] | None]:
        """Returns the metrics of the test images, and their means over masks that are drawn."""
        _logger.info("Testing on %s images.", f"{self._data.test.size:,}")
        evaluate = self._evaluator()
        test = evaluate()
        if not self._config.draws:
            return test, None
        drawn = draws.evaluate_each(self._model, evaluate, _DRAWS, self._config.seed)
        return test, {"draws": _DRAWS, **{name: float(values.mean()) for name, values in drawn.items()}}

    def _evaluator(self) -> Callable[[], dict[str, float]]:
        """Returns a function that evaluates the model on the test images."""
        model, batch_size, strategy = self._model, self._config.batch_size, self._placement.strategy
        if strategy:
            return distribution.evaluator(model, strategy, *self._make_parts("test", self._data.test.size))
        batches = self._data.evaluation_batches("test", batch_size)
        return lambda: model.evaluate(batches, return_dict=True, verbose=0)

    def _save(
        self, recorder: Recorder, test: dict[str, float] | None, test_draws: dict[str, float] | None
    ) -> dict[str, Any]:
        """Saves the model, its curves and its ticket. Returns the summary, which is written if the run is finished."""
        config, folder = self._config, self._folder
        origin = experiment.describe_origin(config, self._data)

        def write_model(path: Path) -> None:
            self._model.save(path)
            records.write_origin(path, origin)

        write_atomically(folder.model, write_model, records.measure_bytes(self._model))
        if importlib.util.find_spec("matplotlib"):
            title = config.title() + (f": test accuracy {test['accuracy']:.2%}" if test else "")
            records.draw_learning_curves(recorder.history, title, folder.curves)
        else:
            _logger.warning("No learning curves were drawn: matplotlib is missing. See 'keras-popup[plots]'.")
        if conversion.masked_layers(self._model):
            folder.write_masks(describe_masks(self._model))
        summary = summarize(config, self._data, self._model, recorder.history, test, recorder.seconds, self._placement)
        summary["times"] = {name: round(seconds, 2) for name, seconds in self._times.seconds.items()}
        if test_draws:
            summary["test_draws"] = test_draws
        if self._options.ticket:
            metrics = test or {f"val_{name}": value for name, value in (summary["validation"] or {}).items()}
            base = experiment.find_base(config)
            ticket = tickets.save_ticket(self._model, folder.ticket, base=base, metrics=metrics, **origin)
            summary["ticket_bytes"] = ticket.bytes
        if self._last_epoch == config.epochs:
            folder.finish(summary)
        return summary


def _describe(placement: Placement, config: ResolvedRunConfig) -> str:
    batch_size, learning_rate = config.batch_size, config.learning_rate
    if placement.strategy is None:
        return f"On one device, {placement.devices[0]}: batch {batch_size}, learning rate {learning_rate:g}."
    least, rest = divmod(batch_size, placement.replicas)
    part = f"{least} or {least + 1}" if rest else f"{least}"
    return (
        f"Strategy {placement.name}, {placement.replicas} replicas on {', '.join(placement.devices)}: global batch "
        f"{batch_size}, {part} a replica; learning rate {learning_rate:g}, as for one device."
    )
