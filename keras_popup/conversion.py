"""Conversion of models: `mask_model`."""

import itertools
import logging
from typing import Any

import keras

from keras_popup import initializers, layers, selectors

_logger = logging.getLogger("keras_popup")


def mask_model(
    model: keras.Model,
    k: float = 0.5,
    *,
    selector: Any = "top_k",
    kernel_initializer: Any = "signed_constant",
    scores_initializer: Any = "score_uniform",
    scores_regularizer: Any = None,
    seed: int,
) -> keras.Model:
    """Returns a masked copy of a model: frozen random kernels and trainable scores.

    Dense, EinsumDense and the convolutions become their masked layers, without biases. BatchNormalization
    loses gamma and beta and keeps its moving statistics. Other layers are copied; a layer that keeps
    trainable weights of its own is named, with the reason, in one log line. The given model is not
    changed, its weights are not used.

    Args:
        model: Sequential or Functional `keras.Model`, nested ones included.
        k: float in (0, 1], the fraction of each layer's weights that is kept.
        selector: a name, object or config as in `keras_popup.selectors.get`.
        kernel_initializer: of the frozen kernels, as in `keras_popup.initializers.get`, without a seed.
        scores_initializer: of the scores, likewise.
        scores_regularizer: Keras regularizer of the scores.
        seed: integer in [0, 2**64). Every layer's own seed is derived from it and from the layer's place
            among the masked ones, so the same model and seed give the same kernels.

    Returns:
        A new `keras.Model` of the same topology and layer names, not compiled.

    Raises:
        TypeError: if the model is neither Sequential nor Functional.
        ValueError: if it has no layer that can be masked, if `k` keeps no weight of a layer, or if an
            initializer has a seed of its own, which would give layers of one shape the same kernel.

    Example:

    >>> import keras_popup
    >>> model = keras_popup.mask_model(keras_popup.models.FullyConnected(), k=0.3, seed=1)
    >>> [layer.kept for layer in model.layers if hasattr(layer, "kept")]
    [70560, 9000, 300]
    """
    if type(model) is not keras.Sequential and not _is_functional(model):
        raise TypeError(
            "mask_model takes a Sequential or Functional keras.Model. Received: "
            f"{type(model).__name__}. In a subclassed model, use the layers of keras_popup.layers directly."
        )
    for name, initializer in (("kernel_initializer", kernel_initializer), ("scores_initializer", scores_initializer)):
        config: dict[str, Any] = getattr(initializers.get(initializer), "get_config", dict)()
        if config.get("seed") is not None:
            raise ValueError(
                f"`{name}` must have no seed of its own, or layers of one shape would share their values. "
                f"Received: seed={config['seed']}. Leave it out: mask_model(seed=...) gives each layer its own."
            )
    masked_arguments = {
        "k": selectors.check_k(k),
        "selector": selectors.serialize(selectors.get(selector)),
        "scores_initializer": scores_initializer,
        "scores_regularizer": keras.regularizers.serialize(keras.regularizers.get(scores_regularizer)),
    }
    seed = initializers.check_seed(seed)
    places = itertools.count()
    unmasked: list[str] = []

    def convert(layer: Any) -> Any:
        if not isinstance(layer, keras.layers.Layer):
            return layer  # an operation without weights, such as keras.ops.relu
        if isinstance(layer, layers.MaskedLayer):
            raise ValueError(
                f"Model '{model.name}' is masked already: layer '{layer.name}' is a {type(layer).__name__}."
            )
        masked_class = layers.MASKED_LAYERS.get(type(layer))
        if masked_class is not None:
            config = {**layer.get_config(), **masked_arguments}
            config |= {
                "seed": initializers.derive_seed(seed, next(places)),
                masked_class.kernel_argument + "_initializer": kernel_initializer,
            }
            config |= {"bias_axes": None} if "bias_axes" in config else {"use_bias": False}
            return masked_class.from_config(config)
        if type(layer) is keras.layers.BatchNormalization:
            return type(layer).from_config({**layer.get_config(), "center": False, "scale": False})
        if layer.trainable_weights:
            unmasked.append(f"{layer.name} ({type(layer).__name__})")
        return type(layer).from_config(layer.get_config())

    masked = keras.models.clone_model(model, clone_function=convert, recursive=True)
    if next(places) == 0:
        raise ValueError(
            f"Model '{model.name}' has no layer that can be masked. Expected at least one of "
            f"{sorted(stock.__name__ for stock in layers.MASKED_LAYERS)}. "
            f"Received: {[type(layer).__name__ for layer in model.layers]}."
        )
    if unmasked:
        _logger.warning("Copied without a mask, as no masked layer of their kind exists: %s.", ", ".join(unmasked))
    return masked


def _is_functional(model: Any) -> bool:
    """Tells whether a model is made of a graph of layers, and is no subclass with code of its own."""
    return type(model) is keras.Model or type(model).__name__ == "Functional"
