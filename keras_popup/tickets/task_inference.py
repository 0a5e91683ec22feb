"""Finds out which task a batch belongs to, by the gradient of the outputs' entropy (SupSup, arXiv 2006.14769)."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_popup.tickets.task_network import TaskNetwork


def score_by_gradient(
    network: TaskNetwork, tasks: Sequence[Callable[[], list[Any]]], x: Any, from_logits: bool
) -> list[float]:
    """Returns -dH/dalpha_i for each task, where the network has the weights `sum_i alpha_i w_i` and alpha_i = 1/T.

    Args:
        network: the network that the tasks share.
        tasks: functions that return the weights of a task. They are called twice, so that the weights of one task at a
            time take memory.
        x: a batch of inputs.
        from_logits: bool, whether the network returns logits instead of probabilities.

    Raises:
        ValueError: if weights that are not floats differ between tasks, or if the network has several outputs.
    """
    mean, differ = _average(tasks)
    inputs = _convert(x)
    watched = [value for value, different in zip(mean, differ, strict=True) if different]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(watched)
        entropy = _compute_entropy(network.run(mean, inputs), from_logits)
    gradients = iter(tape.gradient(entropy, watched, unconnected_gradients="zero"))
    slopes = [next(gradients) if different else None for different in differ]
    return [-_sum_products(slopes, read()) for read in tasks]


def score_each(
    network: TaskNetwork, tasks: Sequence[Callable[[], list[Any]]], x: Any, from_logits: bool
) -> list[float]:
    """Returns -H of the outputs of each task. The arguments are those of `score_by_gradient`."""
    inputs = _convert(x)
    return [-float(_compute_entropy(network.run(read(), inputs), from_logits)) for read in tasks]


def _convert(x: Any) -> Any:
    inputs = keras.tree.map_structure(tf.convert_to_tensor, x)
    if any(each.shape.num_elements() == 0 for each in keras.tree.flatten(inputs)):
        raise ValueError("There is nothing to tell tasks apart by: the batch is empty.")
    return inputs


def score_by_halving(
    network: TaskNetwork, tasks: Sequence[Callable[[], list[Any]]], x: Any, from_logits: bool
) -> list[float]:
    """Returns in how many better halves each task was. The arguments are those of `score_by_gradient`."""
    survived, left = [0.0] * len(tasks), list(range(len(tasks)))
    while len(left) > 1:
        scores = score_by_gradient(network, [tasks[number] for number in left], x, from_logits)
        ranked = sorted(zip(scores, left, strict=True), reverse=True)
        left = [number for _, number in ranked[: len(left) // 2]]
        for number in left:
            survived[number] += 1
    return survived


RULES = {"gradient": score_by_gradient, "halving": score_by_halving, "each": score_each}


def _average(tasks: Sequence[Callable[[], list[Any]]]) -> tuple[list[Any], list[bool]]:
    """Returns the mean of the tasks' weights, and which of them differ."""
    first = tasks[0]()
    total, differ = list(first), [False] * len(first)
    for number, read in enumerate(tasks[1:], 2):
        for place, value in enumerate(read()):
            if value is None or (not differ[place] and value is total[place]):
                continue
            if not value.dtype.is_floating:
                if not bool(tf.reduce_all(value == total[place])):
                    raise ValueError(f"The tasks have other weights of dtype {value.dtype.name}: no mean of them.")
                continue
            # A running mean: `total` is that of the tasks so far.
            differ[place] = True
            total[place] += (value - total[place]) / tf.cast(number, value.dtype)
    return total, differ


def _compute_entropy(outputs: Any, from_logits: bool) -> tf.Tensor:
    """Returns the mean entropy of a batch of outputs. Raises ValueError if the network has several outputs."""
    if not tf.is_tensor(outputs):
        raise ValueError("Tasks can be told apart by one output. These models have several.")
    outputs = tf.cast(outputs, tf.float32)
    if outputs.shape[-1] == 1:  # one output for two classes
        pair = [tf.zeros_like(outputs), outputs] if from_logits else [1 - outputs, outputs]
        outputs = tf.concat(pair, -1)
    if from_logits:
        logarithms = tf.nn.log_softmax(outputs)
        return tf.reduce_mean(-tf.reduce_sum(tf.exp(logarithms) * logarithms, -1))
    return tf.reduce_mean(-tf.reduce_sum(tf.math.xlogy(outputs, outputs), -1))


def _sum_products(slopes: list[Any], weights: list[Any]) -> float:
    products = [
        tf.reduce_sum(tf.cast(slope, tf.float32) * tf.cast(weight, tf.float32))
        for slope, weight in zip(slopes, weights, strict=True)
        if slope is not None
    ]
    return float(tf.add_n(products)) if products else 0.0
