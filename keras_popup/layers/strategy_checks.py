"""What Keras and TensorFlow cannot train under a strategy: said before the first step, with what to do.

They fail on it too, in ways that do not name the cause.
"""

import inspect
from typing import Any

import keras
import tensorflow as tf


def check_strategy() -> None:
    """Raises ValueError for a strategy that cannot train. Called where a layer is built."""
    strategy = tf.distribute.get_strategy()
    if isinstance(strategy, tf.distribute.ParameterServerStrategy):
        raise ValueError(
            "Keras 3 cannot train with parameter servers. Use tf.distribute.MirroredStrategy on one machine, or "
            "keras-popup train --strategy multiworker on several. Received: ParameterServerStrategy."
        )
    if isinstance(strategy, tf.distribute.MirroredStrategy):
        there = [device.name.rpartition("/device:")[2] for device in tf.config.list_logical_devices()]
        names = [device.rpartition("/device:")[2] for device in strategy.extended.worker_devices]
        if missing := [name for name in names if name not in there]:
            raise ValueError(
                f"The strategy has devices that are not there: {', '.join(missing)}. TensorFlow would wait for them "
                f"without an end. Devices found: {', '.join(there)}. To divide a CPU, call "
                "tf.config.set_logical_device_configuration first, before anything else of TensorFlow."
            )


def check_training_step() -> None:
    """Raises ValueError for a model that cannot be trained on several devices as it is compiled.

    Called where a layer is called.
    """
    strategy = tf.distribute.get_strategy()
    if strategy.num_replicas_in_sync == 1:
        return
    model = _model_in_training()
    if model is None:
        return
    if model.jit_compile is True:
        raise ValueError(
            "Keras cannot compile a step by XLA on several devices (keras issue 19005). Compile the model with "
            "jit_compile=False; the choice of the weights is compiled all the same. Received: jit_compile=True."
        )
    accumulated = getattr(model.optimizer, "gradient_accumulation_steps", None)
    if accumulated is not None:
        raise ValueError(
            "Keras cannot accumulate gradients on several devices (keras issue 20582). Use larger batches. "
            f"Received: gradient_accumulation_steps={accumulated}."
        )
    if isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer):
        raise ValueError(
            "Keras's dynamic loss scaling is not safe on several devices: where the gradients of one replica overflow, "
            "and those of the first do not, it applies them. Use mixed_bfloat16, or a fixed scale, "
            "compile(SGD(..., loss_scale_factor=1024), ..., auto_scale_loss=False); keras-popup train "
            "--precision mixed_float16 has the replicas agree. Received: a LossScaleOptimizer."
        )
    reduction = getattr(strategy.extended, "_cross_device_ops", None)
    if model.steps_per_execution > 1 and not isinstance(reduction, tf.distribute.ReductionToOneDevice):
        raise ValueError(
            "Keras runs several steps at once on several devices with one kind of reduction only (keras issue 19246): "
            "tf.distribute.MirroredStrategy(devices, cross_device_ops=tf.distribute.ReductionToOneDevice()). "
            f"Received: steps_per_execution={model.steps_per_execution}."
        )


def _model_in_training() -> Any:
    """Returns the model whose `train_step` is being traced: nothing but the call stack tells a layer."""
    frame = inspect.currentframe()
    while frame is not None:
        model = frame.f_locals.get("self")
        if frame.f_code.co_name == "train_step" and isinstance(model, keras.Model):
            return model
        frame = frame.f_back
    return None
