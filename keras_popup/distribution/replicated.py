"""Training on several replicas, with the same result as on one device.

`tf.distribute` keeps the replicas equal: they start from the same frozen kernels and scores, and the gradients of the
scores are summed over all replicas. So every replica chooses the same masks.
"""

import functools
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_popup import _keras


def prepare(model: keras.Model, batches: tf.data.Dataset) -> None:
    """Prepares a compiled model for several replicas. Call it in the strategy's scope.

    It makes every BatchNormalization use the moments of the whole batch instead of the replica's part. It also creates
    the variables of the metrics, which is not possible in the first step.

    Args:
        model: compiled `keras.Model` without nested layers.
        batches: dataset of (inputs, targets).
    """
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = True
    _keras.build_metrics(model, batches.element_spec)


MakeParts = Callable[[int, int, int], tf.data.Dataset]
"""Takes (first, end, R), which stand for the replicas first to end - 1 of R, and returns a dataset of (inputs, targets,
size): their part of each batch, from first * size // R to end * size // R, and the size of the whole batch."""


def parts(strategy: Any, batches: tf.data.Dataset | MakeParts) -> Iterator[Any]:
    """Divides batches among the replicas.

    Args:
        strategy: a `tf.distribute.Strategy` with R replicas.
        batches: function that makes the part of some replicas, so that a worker need not read what others train on; or
            a dataset of whole batches (inputs, targets), the same in every worker.

    Returns:
        A distributed iterator that never ends. From each batch of n examples, a replica gets (inputs, targets, share):
        p examples, in order, with p as near to n / R as possible (0 is possible), and share = R * p / n as a
        float32 scalar.
    """
    replicas = strategy.num_replicas_in_sync
    make_parts = functools.partial(_cut, batches) if isinstance(batches, tf.data.Dataset) else batches

    def make_dataset(context: tf.distribute.InputContext) -> tf.data.Dataset:
        local_replicas = replicas // context.num_input_pipelines
        first = context.input_pipeline_id * local_replicas

        def divide(inputs: tf.Tensor, targets: tf.Tensor, size: tf.Tensor) -> tf.data.Dataset:
            begin = first * size // replicas

            def part(replica: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
                start, end = replica * size // replicas - begin, (replica + 1) * size // replicas - begin
                return inputs[start:end], targets[start:end], tf.cast(replicas * (end - start) / size, tf.float32)

            return tf.data.Dataset.range(first, first + local_replicas, output_type=tf.int32).map(part)

        of_worker = make_parts(first, first + local_replicas, replicas)
        return of_worker.repeat().flat_map(divide).prefetch(2 * local_replicas)

    return iter(strategy.distribute_datasets_from_function(make_dataset))


def _cut(batches: tf.data.Dataset, first: int, end: int, replicas: int) -> tf.data.Dataset:
    """As a `MakeParts`: cuts the part out of whole batches."""

    def cut(inputs: tf.Tensor, targets: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        size = tf.shape(inputs)[0]
        bounds = slice(first * size // replicas, end * size // replicas)
        return inputs[bounds], targets[bounds], size

    return batches.map(cut)


def fit(
    model: keras.Model,
    strategy: Any,
    batches: tf.data.Dataset | MakeParts,
    *,
    steps: int,
    first_epoch: int,
    epochs: int,
    validation: tuple[tf.data.Dataset | MakeParts, int] | None,
    callbacks: Sequence[keras.callbacks.Callback],
    steps_between_logs: int,
    verbose: int,
) -> None:
    """Trains a model on several replicas, with the result that `model.fit` has on one device.

    `model.fit` gives all replicas the same weight, even if they have different numbers of images of the last batch of
    an epoch. It also fails with several workers. This function does neither.

    Args:
        model: compiled `keras.Model`, made in the strategy's scope.
        strategy: a `tf.distribute.Strategy`.
        batches: all batches from `first_epoch` on, as for `parts`.
        steps: int, the number of batches in an epoch.
        first_epoch: int, the first epoch to train, counted from 0.
        epochs: int, the number of all epochs, including those before `first_epoch`.
        validation: (batches as for `parts`, number of batches), or None.
        callbacks: as for `model.fit`. They get logs every `steps_between_logs` steps, and at the end of each epoch.
        steps_between_logs: int. The replicas must wait for each other whenever the metrics are read.
        verbose: 0, 1 or 2, as for `model.fit`.
    """
    evaluate = evaluator(model, strategy, *validation) if validation else None
    all_callbacks = keras.callbacks.CallbackList(
        list(callbacks), add_progbar=verbose > 0, model=model, verbose=verbose, epochs=epochs, steps=steps
    )
    model.stop_training = False
    all_callbacks.on_train_begin()
    step = trainer(model, strategy, batches)
    logs: dict[str, Any] = {}
    for epoch in range(first_epoch, epochs):
        model.reset_metrics()
        all_callbacks.on_epoch_begin(epoch)
        for number in range(steps):
            all_callbacks.on_train_batch_begin(number)
            step()
            all_callbacks.on_train_batch_end(number, {} if number % steps_between_logs else _read_metrics(model))
        logs = _read_metrics(model)
        if evaluate:
            all_callbacks.on_test_begin()
            results = evaluate()
            all_callbacks.on_test_end(results)
            logs |= {f"val_{name}": value for name, value in results.items()}
        all_callbacks.on_epoch_end(epoch, logs)
        if model.stop_training:
            break
    all_callbacks.on_train_end(logs)


def trainer(model: keras.Model, strategy: Any, batches: tf.data.Dataset | MakeParts) -> Callable[[], None]:
    """Returns a function that trains a model on the next batch. The arguments are those of `fit`."""
    replicas = strategy.num_replicas_in_sync
    loss_tracker = _find_loss_tracker(model)

    def replica_step(inputs: tf.Tensor, targets: tf.Tensor, share: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            outputs = model(inputs, training=True)
            # Keras's loss is the mean over the replica's examples, divided by the number of replicas R, because
            # gradients are summed. Times the share, it is the replica's part of the mean over the batch. The shares
            # sum to R, so penalties count once.
            loss = model.compute_loss(inputs, targets, outputs, training=True)
            scaled = model.optimizer.scale_loss(loss * tf.cast(share, loss.dtype))
        gradients = tape.gradient(scaled, model.trainable_weights)
        if isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer):
            gradients = _share_overflow(gradients)
        model.optimizer.apply_gradients(zip(gradients, model.trainable_weights, strict=True))
        # The logged loss is the mean over images: without the scale, weighted by the number of images of this replica.
        loss_tracker.update_state(loss * replicas, sample_weight=tf.shape(inputs)[0])
        model.compute_metrics(inputs, targets, outputs)

    return _make_step(strategy, replica_step, batches)


def _share_overflow(gradients: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Returns the gradients of a replica, or NaN for all of them if a gradient of any replica is not finite.

    Keras's LossScaleOptimizer looks only at the first replica of each worker to decide whether to skip a step.
    """
    is_finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(gradient)) for gradient in gradients])
    context = tf.distribute.get_replica_context()
    overflows = context.all_reduce(tf.distribute.ReduceOp.SUM, tf.cast(~is_finite, tf.float32))
    return [tf.where(overflows > 0, tf.cast(float("nan"), gradient.dtype), gradient) for gradient in gradients]


def evaluator(
    model: keras.Model, strategy: Any, batches: tf.data.Dataset | MakeParts, steps: int
) -> Callable[[], dict[str, float]]:
    """Returns a function that evaluates a model as `model.evaluate` does, but also works with several workers.

    Args:
        model: compiled `keras.Model`, made in the strategy's scope.
        strategy: a `tf.distribute.Strategy`.
        batches: as for `parts`.
        steps: int, the number of batches.
    """
    replicas = strategy.num_replicas_in_sync
    loss_tracker = _find_loss_tracker(model)

    def replica_step(inputs: tf.Tensor, targets: tf.Tensor, share: tf.Tensor) -> None:
        outputs = model(inputs, training=False)
        loss = model.compute_loss(inputs, targets, outputs, training=False)
        loss_tracker.update_state(loss * replicas, sample_weight=tf.shape(inputs)[0])
        model.compute_metrics(inputs, targets, outputs)

    step = _make_step(strategy, replica_step, batches)

    def evaluate() -> dict[str, float]:
        model.reset_metrics()
        for _ in range(steps):
            step()
        return _read_metrics(model)

    return evaluate


def _make_step(
    strategy: Any, replica_step: Callable[..., None], batches: tf.data.Dataset | MakeParts
) -> Callable[[], None]:
    iterator = parts(strategy, batches)

    @tf.function
    def step(iterator: Any) -> None:
        strategy.run(replica_step, args=next(iterator))

    return functools.partial(step, iterator)


def _find_loss_tracker(model: keras.Model) -> Any:
    return next(metric for metric in model.metrics if metric.name == "loss")


def _read_metrics(model: keras.Model) -> dict[str, float]:
    return {name: float(value) for name, value in model.get_metrics_result().items()}


def take_from_worker_0(strategy: Any, model: keras.Model, notes: dict[str, Any]) -> dict[str, Any]:
    """Copies the state of a model and its optimizer, and notes, from worker 0 to all workers.

    Args:
        strategy: a `tf.distribute.Strategy`.
        model: compiled `keras.Model` whose optimizer is built.
        notes: JSON-serializable dict.

    Returns:
        Worker 0's notes.
    """
    text = np.frombuffer(json.dumps(notes).encode(), np.uint8)
    variables = [*model.variables, *model.optimizer.variables]
    values = [variable.numpy() for variable in variables]
    length, *received = _broadcast(strategy, [np.array(text.size), *values])
    for variable, old, new in zip(variables, values, received, strict=True):
        variable.assign(new.astype(old.dtype))
    padded = np.zeros(int(length), np.uint8)
    padded[: text.size] = text[: padded.size]
    received_notes: dict[str, Any] = json.loads(_broadcast(strategy, [padded])[0].astype(np.uint8).tobytes())
    return received_notes


def wait_for_all(strategy: Any) -> None:
    """Returns when all workers have called this function."""
    _broadcast(strategy, [np.array(0)])


def _broadcast(strategy: Any, arrays: Sequence[Any]) -> list[Any]:
    """Returns the arrays of worker 0 as float64, which is exact for smaller float dtypes and integers below 2**53."""
    tensors = [tf.constant(array, tf.float64) for array in arrays]

    def send() -> Any:
        context = tf.distribute.get_replica_context()
        first = tf.equal(context.replica_id_in_sync_group, 0)
        sent = [tf.where(first, tensor, tf.zeros_like(tensor)) for tensor in tensors]
        return context.all_reduce(tf.distribute.ReduceOp.SUM, sent)

    received = tf.function(lambda: strategy.run(send))()
    return [strategy.experimental_local_results(tensor)[0].numpy() for tensor in received]


def check_same_everywhere(strategy: Any, digest: str, what: str) -> None:
    """Raises ValueError in every worker if not all workers have the same hexadecimal digest of something."""
    parts = np.array([int(digest[i : i + 8], 16) for i in range(0, len(digest), 8)], np.float64)

    def total() -> tf.Tensor:
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, tf.constant(parts))

    totals = tf.function(lambda: strategy.run(total))()
    if not np.array_equal(strategy.experimental_local_results(totals)[0], parts * strategy.num_replicas_in_sync):
        raise ValueError(f"All workers need the same {what}")
