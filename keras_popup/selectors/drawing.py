"""What `selectors.Bernoulli` computes, forwards and backwards: kernels times masks, drawn or cut at p = 1/2."""

from typing import Any

import tensorflow as tf

from keras_popup.selectors import programs


def mask_kernel(
    rescale: bool, dtype: str, kernel: tf.Tensor, scores: tf.Tensor, seed: tuple[tf.Tensor, ...]
) -> tf.Tensor:
    """Returns a kernel times its mask in `dtype`, with the gradients of `selectors.Bernoulli`.

    Args:
        rescale: whether the weights kept are multiplied by n / sum(m).
        dtype: of what is returned.
        kernel: tensor of the shape of `scores`.
        scores: float32 tensor.
        seed: an int64 tensor of shape (2,) to draw by; empty for the mask of p >= 1/2.
    """
    # Flat, as kernels of one size share a program then. The numbers drawn are the same.
    shape, kernel, scores = kernel.shape, tf.reshape(kernel, [-1]), tf.reshape(scores, [-1])
    # Drawn by XLA always: its random numbers are others than TensorFlow's, of the same generator and seed.
    traced = programs.compile_always if seed else programs.trace_once
    forward, backward = (_rescaled_kernel, _rescaled_gradient) if rescale else (_masked_kernel, _draw_gradient)

    @tf.custom_gradient
    def product(*inputs: tf.Tensor) -> Any:
        def gradient(upstream: tf.Tensor) -> tuple[Any, ...]:
            # The mask is drawn again, rather than kept from the forward pass.
            return None, traced(backward)(upstream, *inputs), *[None] * len(seed)

        return traced(forward, dtype)(*inputs), gradient

    return tf.reshape(product(kernel, scores, *seed), shape)


def _mask(scores: tf.Tensor, *seed: tf.Tensor) -> tf.Tensor:
    if not seed:
        return scores >= 0.0
    return tf.random.stateless_uniform(scores.shape, seed[0], alg="philox") < tf.sigmoid(scores)


def _masked_kernel(dtype: str, kernel: tf.Tensor, scores: tf.Tensor, *seed: tf.Tensor) -> tf.Tensor:
    return tf.cast(kernel * tf.cast(_mask(scores, *seed), kernel.dtype), dtype)


def _rescaled_kernel(dtype: str, kernel: tf.Tensor, scores: tf.Tensor, *seed: tf.Tensor) -> tf.Tensor:
    mask = _mask(scores, *seed)
    return tf.cast(kernel * tf.cast(mask, kernel.dtype) * tf.cast(_rescaling(mask), kernel.dtype), dtype)


def _rescaling(mask: tf.Tensor) -> tf.Tensor:
    """Returns n / sum(m), 1 if none is kept: the same as `Bernoulli.factor`."""
    count, size = _count(mask), tf.cast(tf.size(mask), tf.float32)
    return tf.where(count > 0, size / tf.maximum(count, 1.0), 1.0)


def _count(mask: tf.Tensor) -> tf.Tensor:
    """Returns how many are kept: an exact sum, rounded to a float32 scalar."""
    return tf.cast(tf.reduce_sum(tf.cast(mask, tf.int32)), tf.float32)


def _draw_gradient(upstream: tf.Tensor, kernel: tf.Tensor, scores: tf.Tensor, *seed: tf.Tensor) -> tf.Tensor:
    share = tf.sigmoid(scores)
    return tf.cast(tf.cast(upstream, kernel.dtype) * kernel, scores.dtype) * share * (1.0 - share)


def _rescaled_gradient(upstream: tf.Tensor, kernel: tf.Tensor, scores: tf.Tensor, *seed: tf.Tensor) -> tf.Tensor:
    mask = _mask(scores, *seed)
    of_product = tf.cast(tf.cast(upstream, kernel.dtype) * kernel, scores.dtype)
    through_factor = tf.reduce_sum(of_product * tf.cast(mask, scores.dtype)) / tf.maximum(_count(mask), 1.0)
    share = tf.sigmoid(scores)
    return (of_product - through_factor) * _rescaling(mask) * share * (1.0 - share)
