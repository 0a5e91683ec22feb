"""The masked layers of core.py with all their arguments, as of Keras 3.15.1.

Written by tests/support/make_stubs.py.
"""

from typing import Any

import keras

from keras_popup.layers.constructed import Constructed

class MaskedDense(Constructed, keras.layers.Dense):
    def __init__(
        self,
        units: int,
        activation: Any = None,
        use_bias: bool = False,
        kernel_initializer: Any = "signed_constant",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        lora_rank: int | None = None,
        lora_alpha: float | None = None,
        quantization_config: Any = None,
        *,
        k: float | dict[str, float] = 0.5,
        selector: Any = "top_k",
        scores_initializer: Any = None,
        scores_regularizer: Any = None,
        train_bias: bool = True,
        train_scores: bool = True,
        train_kernel: bool = False,
        seed: int | dict[str, int] | None = None,
        **kwargs: Any,
    ) -> None: ...

class MaskedEinsumDense(Constructed, keras.layers.EinsumDense):
    def __init__(
        self,
        equation: str,
        output_shape: int | tuple[int | None, ...],
        activation: Any = None,
        bias_axes: str | None = None,
        kernel_initializer: Any = "signed_constant",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        lora_rank: int | None = None,
        lora_alpha: float | None = None,
        gptq_unpacked_column_size: Any = None,
        quantization_config: Any = None,
        *,
        k: float | dict[str, float] = 0.5,
        selector: Any = "top_k",
        scores_initializer: Any = None,
        scores_regularizer: Any = None,
        train_bias: bool = True,
        train_scores: bool = True,
        train_kernel: bool = False,
        seed: int | dict[str, int] | None = None,
        **kwargs: Any,
    ) -> None: ...

class MaskedEmbedding(Constructed, keras.layers.Embedding):
    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        embeddings_initializer: Any = "signed_constant",
        embeddings_regularizer: Any = None,
        embeddings_constraint: Any = None,
        mask_zero: bool = False,
        weights: Any = None,
        lora_rank: int | None = None,
        lora_alpha: float | None = None,
        quantization_config: Any = None,
        *,
        k: float | dict[str, float] = 0.5,
        selector: Any = "top_k",
        scores_initializer: Any = None,
        scores_regularizer: Any = None,
        train_bias: bool = True,
        train_scores: bool = True,
        train_kernel: bool = False,
        seed: int | dict[str, int] | None = None,
        **kwargs: Any,
    ) -> None: ...

class MaskedReversibleEmbedding(Constructed, keras.layers.ReversibleEmbedding):
    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        tie_weights: bool = True,
        embeddings_initializer: Any = "signed_constant",
        embeddings_regularizer: Any = None,
        embeddings_constraint: Any = None,
        mask_zero: bool = False,
        reverse_dtype: Any = None,
        logit_soft_cap: float | None = None,
        *,
        k: float | dict[str, float] = 0.5,
        selector: Any = "top_k",
        scores_initializer: Any = None,
        scores_regularizer: Any = None,
        train_bias: bool = True,
        train_scores: bool = True,
        train_kernel: bool = False,
        seed: int | dict[str, int] | None = None,
        **kwargs: Any,
    ) -> None: ...
