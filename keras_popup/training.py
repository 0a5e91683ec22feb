"""One training run, from a `RunConfig` to a run folder."""

import contextlib
import dataclasses
import functools
import importlib.metadata
import importlib.util
import logging
import math
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_popup import (
    __version__,
    _patterns,
    _replicated,
    conversion,
    datasets,
    distribution,
    draws,
    initializers,
    layers,
    models,
    reports,
    selectors,
    tickets,
)
from keras_popup.callbacks import SCHEDULES, KSchedule, MaskStatistics
from keras_popup.config import PLACES, RunConfig, defaults, layer_fractions
from keras_popup.distribution import Cluster, Placement
from keras_popup.records import History, RunFolder, write_atomically

_logger = logging.getLogger("keras_popup")

_STEPS_BETWEEN_LOSS_CHECKS = 50
_DRAWS = 10  # masks that a supermask is evaluated with, as in arXiv 1905.01067
_LONGEST_WAIT = 300.0  # seconds, for other workers


class DivergenceError(ArithmeticError):
    """The loss is no longer a finite number."""


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

    The test images are used once, after the last epoch. Killed at any moment and called again with
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
    folder = RunFolder(out)
    run = functools.partial(
        _train, config, overwrite=overwrite, test=test, until=until, ticket=ticket, callbacks=callbacks
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
    versions = _versions()
    arguments = {name: value for name, value in dataclasses.asdict(config).items() if name != "data_dir"}
    arguments |= {name: versions[name] for name in ("keras_popup", "tensorflow", "keras", "numpy")}
    if finished := cluster.meet(arguments, _LONGEST_WAIT):
        return finished
    placement = cluster.place()
    # Saving can need all workers, so all of them do it; what worker 0 writes is kept.
    elsewhere = tempfile.TemporaryDirectory() if cluster.worker else contextlib.nullcontext(folder.path)
    with elsewhere as path, distribution.loss_of_workers():
        summary = run(RunFolder(path), placement)
        _replicated.wait_for_all(placement.strategy)
    return summary


def place(config: RunConfig) -> Placement:
    """Chooses the devices of a run, on this machine. Raises what `distribution.place` does."""
    return distribution.place(config.strategy, config.devices, whole_step_by_xla=config.jit_compile == "true")


def _train(
    config: RunConfig,
    folder: RunFolder,
    placement: Placement,
    *,
    overwrite: bool,
    test: bool,
    until: int | None,
    ticket: bool,
    callbacks: Sequence[keras.callbacks.Callback],
) -> dict[str, Any]:
    batch_size, epochs, strategy = _given(config.batch_size), _given(config.epochs), placement.strategy
    last = min(until or epochs, epochs)
    if batch_size < placement.replicas:
        raise ValueError(
            f"`batch_size` must be at least the number of devices, {placement.replicas}. Received: {batch_size=}."
        )
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(config.seed)
    data = load_data(config)
    if placement.name == "multiworker":
        _replicated.check_same_everywhere(strategy, data.digest(), f"data. Here: {data}.")
    steps = math.ceil(data.train.size / batch_size)
    with strategy.scope() if strategy else contextlib.nullcontext():
        model = build_model(config, data.image_shape, len(data.classes))
        compile_model(model, config, steps)
        if strategy:
            _replicated.prepare(model, data.evaluation_batches("test", batch_size))
        model.optimizer.build(model.trainable_variables)
    folder.start(dataclasses.asdict(config), _versions(), overwrite=overwrite)
    # Outside of the scope, in which every variable that Keras makes on the way would be sent to the other workers.
    history, seconds = folder.load_checkpoint(model)
    if placement.name == "multiworker":
        notes = _replicated.take_from_worker_0(strategy, model, {"history": history, "seconds": seconds})
        history, seconds = notes["history"], notes["seconds"]
    _logger.info(_stated(placement, batch_size, _given(config.learning_rate)))
    if history:
        _logger.info("Going on after epoch %d of %s.", len(history), epochs)
    instruments = _instruments(config, folder, epochs * steps)
    recorder = _Recorder(folder, history, seconds, instruments)
    every = [*instruments, recorder, *callbacks]
    if len(history) < last:
        _fit(model, config, data, steps, every, placement, first_epoch=len(history), last_epoch=last)
    tested = None
    if test:
        batches, rest = data.evaluation_batches("test", batch_size), math.ceil(data.test.size / batch_size)
        tested = _evaluate(model, batches, rest, strategy)
    drawn = _evaluate_draws(model, config, data) if test and config.draws else None
    write_atomically(folder.model, model.save)
    if importlib.util.find_spec("matplotlib"):
        title = _title(config) + (f": test accuracy {tested['accuracy']:.2%}" if tested else "")
        reports.draw_learning_curves(history, title, folder.curves)
    else:
        _logger.warning("No learning curves were drawn: matplotlib is missing. Install the extra, '.[plots]'.")
    summary = _summary(config, data, model, history, tested, recorder.seconds, placement)
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
    batch_size = _given(config.batch_size)
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
    _replicated.fit(
        model,
        placement.strategy,
        batches,
        steps=steps,
        first_epoch=first_epoch,
        epochs=last_epoch,
        validation=(validation, validation_steps) if validation else None,
        callbacks=callbacks,
        steps_between_logs=_STEPS_BETWEEN_LOSS_CHECKS,
        verbose=verbose,
    )


def _evaluate(model: keras.Model, batches: tf.data.Dataset, steps: int, strategy: Any) -> dict[str, float]:
    if strategy:
        return _replicated.evaluator(model, strategy, batches, steps)()
    return model.evaluate(batches, return_dict=True, verbose=0)


def _evaluate_draws(model: keras.Model, config: RunConfig, data: datasets.Dataset) -> dict[str, float]:
    batches = data.evaluation_batches("test", _given(config.batch_size))
    found = draws.evaluate_draws(model, batches, _DRAWS, seed=config.seed)
    return {"draws": _DRAWS, **{name: float(values.mean()) for name, values in found.items()}}


def load_data(config: RunConfig) -> datasets.Dataset:
    """Loads the dataset of a configuration, cut and augmented as it says. Raises what `datasets.load` does."""
    return datasets.load(
        config.dataset,
        data_dir=config.data_dir,
        image_size=config.image_size,
        validation=config.validation,
        augment=config.augment,
        seed=config.seed,
    )


def build_model(config: RunConfig, image_shape: tuple[int, int, int], classes: int) -> keras.Model:
    """Builds the network of a configuration: masked, or with learned weights for the method "dense".

    Args:
        config: the run's arguments.
        image_shape: (height, width, channels).
        classes: int, the number of classes.

    Returns:
        A `keras.Model` in the configuration's precision, not compiled.
    """
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(config.precision)
    try:
        model = models.get(config.model)(input_shape=image_shape, classes=classes, width=config.width)
        # Weight decay as the reference has it: coupled, of the scores or of the learned kernels.
        l2 = keras.regularizers.L2(_given(config.l2) / 2) if config.l2 else None
        if config.method == "dense":
            return _regularized(model, l2)
        initializer = initializers.get(config.kernel_initializer)
        if config.scaled:
            if not isinstance(initializer, initializers.FrozenInitializer):
                raise ValueError(
                    "`scaled` needs one of this library's kernel initializers. "
                    f"Received: kernel_initializer={config.kernel_initializer!r}."
                )
            initializer.scaled = True
        return conversion.mask_model(
            model,
            k=_fractions(config, model),
            selector=selectors.Bernoulli(config.rescale) if config.draws else config.selector or "top_k",
            kernel_initializer=initializer,
            scores_regularizer=l2,
            seed=config.seed,
        )
    finally:
        keras.config.set_dtype_policy(policy)


def _fractions(config: RunConfig, model: keras.Model) -> float | dict[str, float]:
    """Returns `k` as `mask_model` takes it."""
    fractions = layer_fractions(config.layer_k)
    if not fractions:
        return config.k
    maskable = [(layer.name, layer) for layer in model.layers if type(layer) in layers.MASKED_LAYERS]
    return {**fractions, "*": config.k} if _patterns.unmatched(maskable, fractions) else fractions


def _regularized(model: keras.Model, regularizer: Any) -> keras.Model:
    """Returns a copy of a model with a regularizer of its kernels."""

    def with_regularizer(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        if "kernel_regularizer" in config:
            config["kernel_regularizer"] = keras.regularizers.serialize(regularizer)
        return type(layer).from_config(config)

    return keras.models.clone_model(model, clone_function=with_regularizer)


def compile_model(model: keras.Model, config: RunConfig, steps: int) -> None:
    """Compiles a model with the optimizer, schedule and loss of a configuration.

    Args:
        model: of `build_model`.
        config: the run's arguments, with the protocol's values.
        steps: int, steps an epoch.
    """
    warmup = round(_given(config.warmup_epochs) * steps)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0 if warmup else config.learning_rate,
        decay_steps=max(1, _given(config.epochs) * steps - warmup),
        alpha=1.0 if config.schedule == "constant" else 0.0,
        warmup_target=config.learning_rate if warmup else None,
        warmup_steps=warmup,
    )
    if config.optimizer == "sgd":
        optimizer = keras.optimizers.SGD(schedule, momentum=config.momentum)
    else:
        optimizer = keras.optimizers.Adam(schedule)
    model.compile(
        optimizer=optimizer,
        loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=config.label_smoothing),
        metrics=["accuracy"],
        jit_compile={"auto": "auto", "true": True, "false": False}[config.jit_compile],
    )


class _Recorder(keras.callbacks.Callback):
    """Keeps the history and a checkpoint after every epoch; stops a run that diverges."""

    def __init__(
        self, folder: RunFolder, history: History, seconds: float, instruments: Sequence[keras.callbacks.Callback]
    ) -> None:
        super().__init__()
        self._statistics = [each for each in instruments if isinstance(each, MaskStatistics)]
        self.seconds = seconds
        self._folder = folder
        self._history = history

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch
        self._started = time.perf_counter()

    # Validation is not training time.
    def on_test_begin(self, logs: Any = None) -> None:
        self.seconds += time.perf_counter() - self._started

    def on_test_end(self, logs: Any = None) -> None:
        self._started = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if batch % _STEPS_BETWEEN_LOSS_CHECKS == 0:  # reading the loss waits for the device
            self._check_loss(float(logs["loss"]), f"step {batch + 1} of ")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._check_loss(logs["loss"], "")
        self.seconds += time.perf_counter() - self._started
        learning_rate = float(self.model.optimizer.learning_rate)
        self._history.append({"epoch": epoch + 1, "learning_rate": learning_rate, **logs})
        for statistics in self._statistics:
            self._history[-1] |= statistics.latest
        self._folder.save_checkpoint(self.model, self._history, self.seconds)

    def _check_loss(self, loss: float, step: str) -> None:
        if math.isfinite(loss):
            return
        variables = [v.path for v in self.model.variables if not bool(tf.reduce_all(tf.math.is_finite(v.value)))]
        cause = f"not finite: {', '.join(variables)}" if variables else "all weights are finite, the logits overflow"
        kept = (
            f"The checkpoint of epoch {len(self._history)} is kept in '{self._folder.path}'."
            if self._history
            else "No epoch was finished."
        )
        raise DivergenceError(
            f"The loss became {loss} at {step}epoch {self._epoch + 1}, at a learning rate of "
            f"{float(self.model.optimizer.learning_rate):.3g}; {cause}. {kept} Start again in another folder with a "
            "lower learning rate" + (" or in float32." if self.model.dtype_policy.name != "float32" else ".")
        )


def _summary(
    config: RunConfig,
    data: datasets.Dataset,
    model: keras.Model,
    history: History,
    test: dict[str, float] | None,
    seconds: float,
    placement: Placement,
) -> dict[str, Any]:
    last = history[-1]
    records = [_layer_record(layer) for layer in model.layers if _kernel(layer) is not None]
    return {
        "train": {name: last[name] for name in ("loss", "accuracy")},
        "validation": {name: last[f"val_{name}"] for name in ("loss", "accuracy")} if data.validation else None,
        "test": test,
        "weights": sum(record["weights"] for record in records),
        "kept": sum(record["kept"] for record in records),
        "layers": records,
        "epochs": len(history),
        "seconds": round(seconds, 1),
        "images_per_second": round(len(history) * data.train.size / seconds, 1),
        "data": {
            "name": data.name,
            "image_shape": data.image_shape,
            "classes": len(data.classes),
            "train": data.train.size,
            "validation": data.validation.size if data.validation else 0,
            "test": data.test.size,
            "augment": data.augment,
            "mean": data.mean,
            "std": data.std,
        },
        "devices": {"strategy": placement.name, "names": placement.devices, "replicas": placement.replicas},
        "config": dataclasses.asdict(config),
        "versions": _versions(),
    }


def _kernel(layer: keras.layers.Layer) -> Any:
    return getattr(layer, "_kernel", None) if isinstance(layer, layers.MaskedLayer) else getattr(layer, "kernel", None)


def _layer_record(layer: keras.layers.Layer) -> dict[str, Any]:
    weights = math.prod(_kernel(layer).shape)
    if isinstance(layer, layers.MaskedLayer):
        return {"name": layer.name, "weights": weights, "kept": layer.kept, "k": layer.k, "seed": layer.seed}
    return {"name": layer.name, "weights": weights, "kept": weights}


def _title(config: RunConfig) -> str:
    return f"{config.model}, width {config.width:g}, {config.dataset}, {_chosen(config)}"


def _chosen(config: RunConfig) -> str:
    if config.method == "dense":
        return "learned weights"
    if config.draws:
        return "supermask, rescaled" if config.rescale else "supermask"
    fractions = f"k = {config.k:g}" + (f", {config.layer_k}" if config.layer_k else "")
    return f"{fractions}, at random" if config.method == "random" else fractions


def find_devices() -> list[str]:
    """Returns the types of the devices that TensorFlow finds, such as "CPU" and "GPU"."""
    return [device.device_type for device in tf.config.list_physical_devices()]


def _versions() -> dict[str, str]:
    packages = ("tensorflow", "keras", "numpy")
    return {
        "keras_popup": __version__,
        **{package: importlib.metadata.version(package) for package in packages},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "devices": ", ".join(find_devices()),
        "cpus": str(os.cpu_count()),
    }


def _given(value: Any) -> Any:
    """Returns a value that `with_protocol` has filled in."""
    assert value is not None
    return value
