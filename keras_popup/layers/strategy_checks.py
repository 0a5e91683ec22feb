"""Checks for what Keras and TensorFlow cannot train under a `tf.distribute` strategy, before the first step.

Without these checks they fail too, but with messages that do not name the cause.
"""

import inspect
from typing import Any

import keras
import tensorflow as tf


def check_strategy() -> None:
    """Raises ValueError for a strategy that cannot train. Called when a layer is built."""
    strategy = tf.distribute.get_strategy()
    if isinstance(strategy, tf.distribute.ParameterServerStrategy):
        raise ValueError(
            "Keras 3 cannot train with parameter servers. Use tf.distribute.MirroredStrategy on one machine, or "
            "keras-popup train --strategy multiworker on several. Received: ParameterServerStrategy."
        )
    if isinstance(strategy, tf.distribute.MirroredStrategy):
        existing = [device.name.rpartition("/device:")[2] for device in tf.config.list_logical_devices()]
        names = [device.rpartition("/device:")[2] for device in strategy.extended.worker_devices]
        if missing := [name for name in names if name not in existing]:
            raise ValueError(
                f"The strategy has devices that do not exist: {', '.join(missing)}. TensorFlow would wait for them "
                f"forever. Devices found: {', '.join(existing)}. To divide a CPU into several devices, call "
                "tf.config.set_logical_device_configuration before any other function of TensorFlow."
            )


def check_training_step() -> None:
    """Raises ValueError for a model whose `compile` arguments do not allow training on several devices.

    Called when a layer is called.
    """
    strategy = tf.distribute.get_strategy()
    if strategy.num_replicas_in_sync == 1:
        return
    model = _find_model_in_training()
    if model is None:
        return
    if model.jit_compile is True:
        raise ValueError(
            "Keras cannot compile a training step with XLA on several devices (keras issue 19005). Compile the model "
            "with jit_compile=False; selectors are compiled with XLA even so. Received: jit_compile=True."
        )
    accumulated = getattr(model.optimizer, "gradient_accumulation_steps", None)
    if accumulated is not None:
        raise ValueError(
            "Keras cannot accumulate gradients on several devices (keras issue 20582). Use larger batches "
            "instead, without gradient_accumulation_steps. "
            f"Received: gradient_accumulation_steps={accumulated}."
        )
    if isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer):
        raise ValueError(
            "Keras's dynamic loss scaling is not safe on several devices: if the gradients of the first replica are "
            "finite, it applies the gradients of all replicas, even those that have overflowed. Use mixed_bfloat16, "
            "or a fixed scale, compile(SGD(..., loss_scale_factor=1024), ..., auto_scale_loss=False), or keras-popup "
            "train --precision mixed_float16, where the replicas agree. Received: a LossScaleOptimizer."
        )
    reduction = getattr(strategy.extended, "_cross_device_ops", None)
    if model.steps_per_execution > 1 and not isinstance(reduction, tf.distribute.ReductionToOneDevice):
        raise ValueError(
            "On several devices, Keras can run several steps at once with one kind of reduction only (keras issue "
            "19246). Use steps_per_execution=1, or "
            "tf.distribute.MirroredStrategy(devices, cross_device_ops=tf.distribute.ReductionToOneDevice()). "
            f"Received: steps_per_execution={model.steps_per_execution}."
        )


def _find_model_in_training() -> Any:
    """Returns the model whose `train_step` is being traced, or None. Only the call stack tells a layer this."""
    frame = inspect.currentframe()
    while frame is not None:
        model = frame.f_locals.get("self")
        if frame.f_code.co_name == "train_step" and isinstance(model, keras.Model):
            return model
        frame = frame.f_back
    return None
