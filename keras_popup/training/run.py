"""One training run, from a `RunConfig` to a run folder."""

import contextlib
import dataclasses
import functools
import importlib.util
import logging
import math
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_popup import datasets, distribution, draws, records, tickets
from keras_popup._files import write_atomically
from keras_popup.callbacks import SCHEDULES, KSchedule, MaskStatistics
from keras_popup.distribution import Cluster, Placement
from keras_popup.records import RunFolder
from keras_popup.training import experiment
from keras_popup.training.config import PLACES, RunConfig, defaults, given
from keras_popup.training.recorder import STEPS_BETWEEN_LOSS_CHECKS, Recorder, find_versions, summarize

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
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> dict[str, Any]:
    """Trains a network and leaves a run folder.

    The test images are used once, after the last epoch or that of `until`. Killed at any moment and called again with
    `resume`, a run goes on after the last finished epoch and ends with the history it would have had.

    It sets the random seeds of the process, and with `config.deterministic` TensorFlow's deterministic
    operations, which stay on.

    Args:
        config: the run's arguments.
        out: path of the run folder; `keras_popup.records` says what it holds.
        resume: whether to go on with the run in `out`; one that has not begun is begun.
        overwrite: whether to remove the run in `out` first.
        test: whether to use the test images at all.
        until: the epoch to stop after, with the schedules of all `config.epochs`. The run is not finished then.
        ticket: whether to save the network as a ticket too.
        callbacks: Keras callbacks of the training.

    Returns:
        The content of summary.json: metrics, kept and total counts, time, versions.

    Raises:
        ValueError, FileNotFoundError, FileExistsError, ImportError: for arguments, data, a folder or an
            installation that cannot be used, before anything is written.
        ConnectionError, TimeoutError: if another worker is lost, or not there in time.
        DivergenceError: if the loss becomes NaN or infinite. The checkpoint of the last good epoch stays.
    """
    config = config.with_protocol()
    experiment.kernel_initializer(config)  # a wrong name is an error before data are read, or made
    folder = RunFolder(out)
    run = functools.partial(
        _train, config, resume=resume, overwrite=overwrite, test=test, until=until, ticket=ticket, callbacks=callbacks
    )
    if config.strategy == "multiworker":
        return _train_by_workers(config, folder, run, resume=resume, overwrite=overwrite)
    summary = _begin(config, folder, resume=resume, overwrite=overwrite)
    return summary or run(folder, place(config))


def _begin(config: RunConfig, folder: RunFolder, *, resume: bool, overwrite: bool) -> dict[str, Any] | None:
    """Checks that the folder can be used. Returns the summary of a finished run."""
    arguments = dataclasses.asdict(config)
    folder.check(arguments, resume=resume, overwrite=overwrite, but=PLACES, defaults=defaults())
    summary = folder.summary() if resume else None
    if summary:
        _logger.info("The run in '%s' is finished.", folder.path)
    return summary


def _train_by_workers(
    config: RunConfig,
    folder: RunFolder,
    run: Callable[[RunFolder, Placement], dict[str, Any]],
    *,
    resume: bool,
    overwrite: bool,
) -> dict[str, Any]:
    cluster = Cluster.from_environment()
    if cluster.worker == 0:
        try:
            finished = _begin(config, folder, resume=resume, overwrite=overwrite)
        except (OSError, ValueError) as error:
            cluster.dismiss(refusal=f"Worker 0: {error}")
            raise
        if finished:
            cluster.dismiss(finished=finished)
            return finished
    versions = find_versions()
    arguments = {name: value for name, value in dataclasses.asdict(config).items() if name != "data_dir"}
    arguments |= {name: versions[name] for name in ("keras_popup", "tensorflow", "keras", "numpy")}
    if finished := cluster.meet(arguments, _LONGEST_WAIT):
        return finished
    placement = cluster.place()
    # Saving can need all workers, so all of them do it; what worker 0 writes is kept.
    elsewhere = tempfile.TemporaryDirectory() if cluster.worker else contextlib.nullcontext(folder.path)
    with elsewhere as path, distribution.loss_of_workers():
        summary = run(RunFolder(path), placement)
        distribution.wait_for_all(placement.strategy)
    return summary


def place(config: RunConfig) -> Placement:
    """Chooses the devices of a run, on this machine. Raises what `distribution.place` does."""
    return distribution.place(config.strategy, config.devices, whole_step_by_xla=config.jit_compile == "true")


def _train(
    config: RunConfig,
    folder: RunFolder,
    placement: Placement,
    *,
    resume: bool,
    overwrite: bool,
    test: bool,
    until: int | None,
    ticket: bool,
    callbacks: Sequence[keras.callbacks.Callback],
) -> dict[str, Any]:
    batch_size, epochs, strategy = given(config.batch_size), given(config.epochs), placement.strategy
    last = min(until or epochs, epochs)
    if batch_size < placement.replicas:
        raise ValueError(
            f"`batch_size` must be at least the number of devices, {placement.replicas}. Received: {batch_size=}."
        )
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(config.seed)
    data = experiment.load_data(config)
    if placement.name == "multiworker":
        distribution.check_same_everywhere(strategy, data.digest(), f"data. Here: {data}.")
    steps = math.ceil(data.train.size / batch_size)
    with strategy.scope() if strategy else contextlib.nullcontext():
        model = experiment.build_model(config, data.image_shape, len(data.classes))
        experiment.compile_model(model, config, steps)
        if strategy:
            distribution.prepare(model, data.evaluation_batches("test", batch_size))
        model.optimizer.build(model.trainable_variables)
    instruments = _instruments(config, folder, epochs * steps)
    with folder.locked():
        # Another process may have come and gone meanwhile.
        if finished := _begin(config, folder, resume=resume, overwrite=overwrite):
            return finished
        folder.start(dataclasses.asdict(config), find_versions(), overwrite=overwrite)
        # Outside of the scope, in which every variable that Keras makes on the way would be sent to the other workers.
        history, seconds = folder.load_checkpoint(model)
        if placement.name == "multiworker":
            notes = distribution.take_from_worker_0(strategy, model, {"history": history, "seconds": seconds})
            history, seconds = notes["history"], notes["seconds"]
        _logger.info(_stated(placement, batch_size, given(config.learning_rate)))
        if history:
            _logger.info("Going on after epoch %d of %s.", len(history), epochs)
        recorder = Recorder(folder, history, seconds, instruments)
        every = [*instruments, recorder, *callbacks]
        if len(history) < last:
            _fit(model, config, data, steps, every, placement, first_epoch=len(history), last_epoch=last)
        tested = drawn = None
        if test:
            evaluate = _evaluator(model, data, batch_size, strategy)
            tested = evaluate()
            if config.draws:
                found = draws.evaluate_each(model, evaluate, _DRAWS, config.seed)
                drawn = {"draws": _DRAWS, **{name: float(values.mean()) for name, values in found.items()}}
        write_atomically(folder.model, model.save)
        if importlib.util.find_spec("matplotlib"):
            title = config.title() + (f": test accuracy {tested['accuracy']:.2%}" if tested else "")
            records.draw_learning_curves(history, title, folder.curves)
        else:
            _logger.warning("No learning curves were drawn: matplotlib is missing. Install the extra, '.[plots]'.")
        summary = summarize(config, data, model, history, tested, recorder.seconds, placement)
        if drawn:
            summary["test_draws"] = drawn
        if ticket:
            metrics = tested or {f"val_{name}": value for name, value in (summary["validation"] or {}).items()}
            summary["ticket_bytes"] = tickets.save_ticket(
                model, folder.ticket, dataset=config.dataset, metrics=metrics
            ).bytes
        if last == epochs:
            folder.finish(summary)
        return summary


def _instruments(config: RunConfig, folder: RunFolder, steps: int) -> list[keras.callbacks.Callback]:
    chosen: list[keras.callbacks.Callback] = []
    if config.k_schedule:
        schedule = SCHEDULES[config.k_schedule](config.k, max(1, round(config.k_schedule_end * steps)))
        chosen.append(KSchedule(schedule))
    if config.mask_statistics:
        chosen.append(MaskStatistics(folder.tensorboard if config.mask_statistics == "tensorboard" else None))
    return chosen


def _stated(placement: Placement, batch_size: int, learning_rate: float) -> str:
    if placement.strategy is None:
        return f"On one device, {placement.devices[0]}: batch {batch_size}, learning rate {learning_rate:g}."
    least, rest = divmod(batch_size, placement.replicas)
    part = f"{least} or {least + 1}" if rest else f"{least}"
    return (
        f"Strategy {placement.name}, {placement.replicas} replicas on {', '.join(placement.devices)}: global batch "
        f"{batch_size}, {part} a replica; learning rate {learning_rate:g}, as for one device."
    )


def _fit(
    model: keras.Model,
    config: RunConfig,
    data: datasets.Dataset,
    steps: int,
    callbacks: Sequence[keras.callbacks.Callback],
    placement: Placement,
    first_epoch: int,
    last_epoch: int,
) -> None:
    batch_size = given(config.batch_size)
    batches = data.training_batches(batch_size, seed=config.seed, epochs=last_epoch, first_epoch=first_epoch)
    validation = data.evaluation_batches("validation", batch_size) if data.validation else None
    verbose = 0 if placement.worker else 1 if sys.stdout.isatty() else 2
    if placement.strategy is None:
        model.fit(
            batches,
            shuffle=False,  # the dataset is shuffled
            steps_per_epoch=steps,
            initial_epoch=first_epoch,
            epochs=last_epoch,
            validation_data=validation,
            callbacks=callbacks,
            verbose=verbose,
        )
        return
    validation_steps = math.ceil(data.validation.size / batch_size) if data.validation else 0
    distribution.fit(
        model,
        placement.strategy,
        batches,
        steps=steps,
        first_epoch=first_epoch,
        epochs=last_epoch,
        validation=(validation, validation_steps) if validation else None,
        callbacks=callbacks,
        steps_between_logs=STEPS_BETWEEN_LOSS_CHECKS,
        verbose=verbose,
    )


def _evaluator(
    model: keras.Model, data: datasets.Dataset, batch_size: int, strategy: Any
) -> Callable[[], dict[str, float]]:
    """Returns a function that evaluates a model on the test images."""
    batches = data.evaluation_batches("test", batch_size)
    if strategy:
        return distribution.evaluator(model, strategy, batches, math.ceil(data.test.size / batch_size))
    return lambda: model.evaluate(batches, return_dict=True, verbose=0)
