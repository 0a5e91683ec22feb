"""Training on several replicas, with the result of one device.

`tf.distribute` keeps the replicas equal: they start from the same frozen kernels and scores, and the gradients of
the scores are summed over all of them, so that every replica chooses the same masks.
"""

import functools
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf


def prepare(model: keras.Model, batches: tf.data.Dataset) -> None:
    """Makes a compiled model ready for several replicas. Called in the strategy's scope.

    Every BatchNormalization takes the moments of the whole batch, not of a replica's part. The variables of the
    metrics are made, which cannot be done in the first step.

    Args:
        model: compiled, with no layers inside of others.
        batches: of (inputs, targets).
    """
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = True
    model._symbolic_build(data_batch=batches.element_spec)  # by no public name; `model.fit` does the same


def parts(strategy: Any, batches: tf.data.Dataset) -> Iterator[Any]:
    """Divides batches among the replicas.

    Args:
        strategy: a `tf.distribute.Strategy` of R replicas.
        batches: of (inputs, targets), the same in every worker.

    Returns:
        An endless distributed iterator. A replica gets (inputs, targets, share): of each batch of n a part of p, in
        order, as near n / R as can be, perhaps empty, and share = R * p / n as a float32 scalar.
    """
    replicas = strategy.num_replicas_in_sync

    def of_worker(context: tf.distribute.InputContext) -> tf.data.Dataset:
        own = replicas // context.num_input_pipelines
        first = context.input_pipeline_id * own

        def divide(inputs: tf.Tensor, targets: tf.Tensor) -> tf.data.Dataset:
            size = tf.shape(inputs)[0]

            def part(replica: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
                start, end = replica * size // replicas, (replica + 1) * size // replicas
                return inputs[start:end], targets[start:end], tf.cast(replicas * (end - start) / size, tf.float32)

            return tf.data.Dataset.range(first, first + own, output_type=tf.int32).map(part)

        return batches.repeat().flat_map(divide).prefetch(2 * own)

    return iter(strategy.distribute_datasets_from_function(of_worker))


def fit(
    model: keras.Model,
    strategy: Any,
    batches: tf.data.Dataset,
    *,
    steps: int,
    first_epoch: int,
    epochs: int,
    validation: tuple[tf.data.Dataset, int] | None,
    callbacks: Sequence[keras.callbacks.Callback],
    steps_between_logs: int,
    verbose: int,
) -> None:
    """Trains a model as `model.fit` does on one device, also by several workers and where batches do not divide.

    `model.fit` weighs the replicas alike, however many images each has of the last batch of an epoch, and fails with
    several workers.

    Args:
        model: compiled, made in the strategy's scope.
        strategy: a `tf.distribute.Strategy`.
        batches: of (inputs, targets), all of those from `first_epoch` on, the same in every worker.
        steps: int, batches an epoch.
        first_epoch: int, the first to train, counted from 0.
        epochs: int, how many there are in all.
        validation: (batches, their number), or None.
        callbacks: as for `model.fit`. They get logs every `steps_between_logs` steps, and at the end of an epoch.
        steps_between_logs: int. To know the metrics, the replicas have to wait for each other.
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
            all_callbacks.on_train_batch_end(number, {} if number % steps_between_logs else _metrics(model))
        logs = _metrics(model)
        if evaluate:
            all_callbacks.on_test_begin()
            found = evaluate()
            all_callbacks.on_test_end(found)
            logs |= {f"val_{name}": value for name, value in found.items()}
        all_callbacks.on_epoch_end(epoch, logs)
        if model.stop_training:
            break
    all_callbacks.on_train_end(logs)


def trainer(model: keras.Model, strategy: Any, batches: tf.data.Dataset) -> Callable[[], None]:
    """Returns a function that trains a model on the next batch. Takes what `fit` does."""
    replicas = strategy.num_replicas_in_sync
    loss_tracker = _loss_tracker(model)

    def replica_step(inputs: tf.Tensor, targets: tf.Tensor, share: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            outputs = model(inputs, training=True)
            # Keras's loss is the replica's mean, divided by the number of replicas as gradients are summed. Times
            # the share it is the replica's part of the batch's mean. Shares sum to R, so penalties count once.
            loss = model.compute_loss(inputs, targets, outputs, training=True)
            scaled = model.optimizer.scale_loss(loss * tf.cast(share, loss.dtype))
        gradients = tape.gradient(scaled, model.trainable_weights)
        if isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer):
            gradients = _all_or_none_finite(gradients)
        model.optimizer.apply_gradients(zip(gradients, model.trainable_weights, strict=True))
        # The logged loss is the mean over images: not scaled, weighted by the images of this replica.
        loss_tracker.update_state(loss * replicas, sample_weight=tf.shape(inputs)[0])
        model.compute_metrics(inputs, targets, outputs)

    return _stepper(strategy, replica_step, batches)


def _all_or_none_finite(gradients: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Returns a replica's gradients, all NaN if those of any replica are not finite.

    Keras's LossScaleOptimizer decides by the first replica of each worker whether to skip a step.
    """
    own = tf.reduce_all([tf.reduce_all(tf.math.is_finite(gradient)) for gradient in gradients])
    context = tf.distribute.get_replica_context()
    overflows = context.all_reduce(tf.distribute.ReduceOp.SUM, tf.cast(~own, tf.float32))
    return [tf.where(overflows > 0, tf.cast(float("nan"), gradient.dtype), gradient) for gradient in gradients]


def evaluator(
    model: keras.Model, strategy: Any, batches: tf.data.Dataset, steps: int
) -> Callable[[], dict[str, float]]:
    """Returns a function that evaluates a model, as `model.evaluate` does, also by several workers.

    Args:
        model: compiled, made in the strategy's scope.
        strategy: a `tf.distribute.Strategy`.
        batches: of (inputs, targets), the same in every worker.
        steps: int, how many there are.
    """
    replicas = strategy.num_replicas_in_sync
    loss_tracker = _loss_tracker(model)

    def replica_step(inputs: tf.Tensor, targets: tf.Tensor, share: tf.Tensor) -> None:
        outputs = model(inputs, training=False)
        loss = model.compute_loss(inputs, targets, outputs, training=False)
        loss_tracker.update_state(loss * replicas, sample_weight=tf.shape(inputs)[0])
        model.compute_metrics(inputs, targets, outputs)

    step = _stepper(strategy, replica_step, batches)

    def evaluate() -> dict[str, float]:
        model.reset_metrics()
        for _ in range(steps):
            step()
        return _metrics(model)

    return evaluate


def _stepper(strategy: Any, replica_step: Callable[..., None], batches: tf.data.Dataset) -> Callable[[], None]:
    iterator = parts(strategy, batches)

    @tf.function
    def step(iterator: Any) -> None:
        strategy.run(replica_step, args=next(iterator))

    return functools.partial(step, iterator)


def _loss_tracker(model: keras.Model) -> Any:
    return next(metric for metric in model.metrics if metric.name == "loss")


def _metrics(model: keras.Model) -> dict[str, float]:
    return {name: float(value) for name, value in model.get_metrics_result().items()}


def take_from_worker_0(strategy: Any, model: keras.Model, notes: dict[str, Any]) -> dict[str, Any]:
    """Gives all workers what worker 0 has: the state of a model and its optimizer, and notes.

    Args:
        strategy: a `tf.distribute.Strategy`.
        model: compiled, with its optimizer built.
        notes: of JSON.

    Returns:
        Worker 0's notes.
    """
    text = np.frombuffer(json.dumps(notes).encode(), np.uint8)
    variables = [*model.variables, *model.optimizer.variables]
    values = [variable.numpy() for variable in variables]
    length, *shared = _of_worker_0(strategy, [np.array(text.size), *values])
    for variable, own, value in zip(variables, values, shared, strict=True):
        variable.assign(value.astype(own.dtype))
    padded = np.zeros(int(length), np.uint8)
    padded[: text.size] = text[: padded.size]
    return json.loads(_of_worker_0(strategy, [padded])[0].astype(np.uint8).tobytes())


def wait_for_all(strategy: Any) -> None:
    """Returns when all workers have come here."""
    _of_worker_0(strategy, [np.array(0)])


def _of_worker_0(strategy: Any, arrays: Sequence[Any]) -> list[Any]:
    """Returns the arrays that worker 0 has, as float64: exact for all other types, and for integers below 2**53."""
    tensors = [tf.constant(array, tf.float64) for array in arrays]

    def send() -> list[tf.Tensor]:
        context = tf.distribute.get_replica_context()
        first = tf.equal(context.replica_id_in_sync_group, 0)
        sent = [tf.where(first, tensor, tf.zeros_like(tensor)) for tensor in tensors]
        return context.all_reduce(tf.distribute.ReduceOp.SUM, sent)

    received = tf.function(lambda: strategy.run(send))()
    return [strategy.experimental_local_results(tensor)[0].numpy() for tensor in received]


def check_same_everywhere(strategy: Any, digest: str, what: str) -> None:
    """Raises ValueError, in every worker, if they do not all have the same hexadecimal digest of something."""
    own = np.array([int(digest[i : i + 8], 16) for i in range(0, len(digest), 8)], np.float64)

    def total() -> tf.Tensor:
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, tf.constant(own))

    totals = tf.function(lambda: strategy.run(total))()
    if not np.array_equal(strategy.experimental_local_results(totals)[0], own * strategy.num_replicas_in_sync):
        raise ValueError(f"All workers need the same {what}")
