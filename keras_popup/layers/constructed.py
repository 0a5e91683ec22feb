"""Masked layers that users can construct by hand: their constructor and config."""

import inspect
from typing import Any

import keras
import tensorflow as tf

from keras_popup import _keras, initializers, selectors
from keras_popup.layers.in_place import check_rematerialization
from keras_popup.layers.maskable import define_maskable
from keras_popup.layers.masked_kernel import KernelArguments, KernelSpec, MaskedKernel
from keras_popup.layers.masked_layer import MaskArguments, MaskedLayer, stock_class
from keras_popup.layers.stock_configs import to_stock

_MASKED_ARGUMENTS = """

    All arguments of the stock layer keep their meaning. Two defaults differ: there is no bias, and the kernel
    initializer is "signed_constant". A kernel regularizer applies to the masked kernel. A kernel constraint has no
    effect on a frozen kernel; with `train_kernel`, it applies to the masked kernel. The other arguments are
    keyword-only:

    Args:
        k: float in (0, 1], the fraction of the kernel's weights that is kept.
        selector: a name, object or config as in `keras_popup.selectors.get`; or a dict of them by the names of the
            kernels.
        scores_initializer: initializer of the float32 scores, as in `keras_popup.initializers.get`. None uses the
            selector's: "score_uniform" for "top_k", "zeros" for "bernoulli". Scores of "top_k" that start at 0 have
            no gradient and stay 0.
        scores_regularizer: Keras regularizer of the scores. Weight decay `wd` of the reference is
            `keras.regularizers.L2(wd / 2)`.
        train_bias: bool. True trains the bias of a layer with `use_bias=True`; False freezes it like the kernel.
        train_scores: bool. True trains the scores, and so the mask. False fixes the mask.
        train_kernel: bool. True trains the kernel under its mask, as `keras_popup.finetune` does; False freezes it.
        seed: integer in [0, 2**64), the seed of the kernel and the scores, unless their initializers have a seed.
            None draws a seed. The config holds the seed, so a copy of the layer has the same kernel.

    Attributes:
        k: float, the fraction kept. A new value takes effect at the next step, also inside a compiled `fit`.
        kept: int, the number of weights kept: round-half-up(k * n) of n weights for "top_k".
        scores: float32 variable of the kernel's shape, the only trainable weight of a layer without bias.
        kernel: tensor in the compute dtype, the masked kernel that the layer uses.

    Raises:
        ValueError: if `k` is outside (0, 1] or keeps no weight, or for LoRA and quantized dtypes, which would bypass
            the mask.

    Reference:
        Ramanujan et al., [What's Hidden in a Randomly Weighted Neural
        Network?](https://arxiv.org/abs/1911.13299)
"""

KERNEL = KernelSpec("kernel", "_kernel", "kernel")
"""The kernel of most layers."""


def own_parameters() -> list[inspect.Parameter]:
    """Returns the arguments that masked layers have in addition to those of Keras's layers."""
    return [p for p in inspect.signature(Constructed.__init__).parameters.values() if p.kind == p.KEYWORD_ONLY]


def kernel_seed(seed: int, spec: KernelSpec, specs: tuple[KernelSpec, ...]) -> int:
    """Returns the seed of one kernel of a layer: the layer's seed for its first kernel, else one derived from it."""
    return seed if spec is specs[0] else initializers.derive_seed(seed, spec.name)


class Constructed(MaskedLayer):
    """Base of the masked layers that users can construct by hand: their constructor and config."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "kernel_specs" not in vars(cls):
            if "__init__" in vars(cls):  # a user's subclass with its own arguments
                _, *parameters = inspect.signature(cls.__init__).parameters.values()
                cls.__signature__ = inspect.Signature(parameters)
            return
        cls.__doc__ = (cls.__doc__ or "").rstrip() + _MASKED_ARGUMENTS
        # For help(): the arguments of the stock layer, then those of masked layers. Editors read the .pyi files.
        defaults: dict[str, Any] = {"use_bias": False}
        defaults |= {f"{spec.argument}_initializer": "signed_constant" for spec in cls.kernel_specs}
        *stock, others = inspect.signature(stock_class(cls)).parameters.values()
        parameters = [p.replace(default=defaults.get(p.name, p.default)) for p in stock]
        cls.__signature__ = inspect.Signature([*parameters, *own_parameters(), others])
        define_maskable(stock_class(cls), cls.kernel_specs, cls)

    def __init__(
        self,
        *args: Any,
        k: float | dict[str, float] = 0.5,
        selector: Any = "top_k",
        scores_initializer: Any = None,
        scores_regularizer: Any = None,
        train_bias: bool = True,
        train_scores: bool = True,
        train_kernel: bool = False,
        seed: int | dict[str, int] | None = None,
        **kwargs: Any,
    ) -> None:
        specs = self.kernel_specs
        fractions = k if isinstance(k, dict) else dict.fromkeys((spec.name for spec in specs), selectors.check_k(k))
        if not isinstance(seed, dict):
            seed = initializers.fresh_seed() if seed is None else initializers.check_seed(seed)
        signature = inspect.signature(super().__init__)
        stock = signature.bind_partial(*args, **kwargs).arguments
        stock |= stock.pop("kwargs", {})
        if "use_bias" in signature.parameters:
            stock.setdefault("use_bias", False)
        if stock.get("weights") is not None:
            raise ValueError(
                "A masked layer draws its frozen weights itself. Received: `weights`. Make a stock layer with these "
                'weights, and mask it with mask_model(weights="keep").'
            )
        chosen: dict[str, KernelArguments] = {}
        for spec in specs:
            if spec.name not in fractions:
                continue
            argument = f"{spec.argument}_initializer"
            one_seed = seed[spec.name] if isinstance(seed, dict) else kernel_seed(seed, spec, specs)
            identifier = stock.get(argument) or "signed_constant"
            is_first = all(other.argument != spec.argument for other in specs if other.name in chosen)
            if not is_first:  # with the same seed, both kernels would have the same values
                identifier = initializers.without_seed(identifier)
            one_selector = selector.get(spec.name, selector) if isinstance(selector, dict) else selector
            arguments = KernelArguments.fill(
                fractions[spec.name], one_seed, one_selector, scores_initializer, identifier
            )
            chosen[spec.name] = arguments
            if is_first:
                stock[argument] = arguments.initializer
        super().__init__(**stock)
        regularizer = keras.regularizers.get(scores_regularizer)
        kernels = {
            spec.name: MaskedKernel(self, spec, chosen[spec.name], regularizer)
            for spec in specs
            if spec.name in chosen and spec.is_there(self)
        }
        object.__setattr__(self, "masked_kernels", kernels)
        for name, value in (("train_bias", train_bias), ("train_scores", train_scores), ("train_kernel", train_kernel)):
            object.__setattr__(self, name, bool(value))
        if getattr(self, "lora_rank", None) or self.quantization_mode:
            raise ValueError(self._make_bypass_message("LoRA and quantized dtypes"))
        for kernel in kernels.values():
            check_rematerialization(self, kernel.selector)

    @property
    def _only_kernel(self) -> MaskedKernel:
        kernels = list(self.masked_kernels.values())
        if len(kernels) != 1:
            raise AttributeError(
                f"Layer '{self.name}' has several masked kernels: {list(self.masked_kernels)}. Use those of "
                "`masked_kernels`, such as layer.masked_kernels[name].mask()."
            )
        return kernels[0]

    @property
    def k(self) -> Any:
        """The fraction of weights kept, in (0, 1]; for several kernels, a dict by name. Set one number for all."""
        kernels = self.masked_kernels
        return self._only_kernel.k if len(kernels) == 1 else {name: kernel.k for name, kernel in kernels.items()}

    @k.setter
    def k(self, value: float) -> None:
        for kernel in self.masked_kernels.values():
            kernel.k = value

    @property
    def kept(self) -> int:
        """The number of weights that the selector keeps outside of training, in all kernels together."""
        return sum(kernel.kept for kernel in self.masked_kernels.values())

    def mask(self, training: bool = False) -> tf.Tensor:
        """Returns the mask of the kernel.

        Args:
            training: bool. True returns the mask that the next call in training would use, which differs for
                selectors that draw.

        Returns:
            float32 tensor of the kernel's shape, exactly 0 or 1.

        Raises:
            AttributeError: if the layer is not built, or if it has several kernels: use `masked_kernels`.
        """
        return self._only_kernel.mask(training)

    def baked_kernel(self) -> tf.Tensor:
        """Returns the masked kernel in the variable's dtype; -0.0 becomes +0.0."""
        return self._only_kernel.baked()

    @property
    def frozen_kernel(self) -> Any:
        """The variable of the frozen kernel."""
        return self._only_kernel.kernel

    @property
    def scores(self) -> Any:
        """The variable of the scores; None before the layer is built."""
        return self._only_kernel.scores

    @property
    def seed(self) -> int:
        """The seed of the kernel, its initial scores and its draws. With several kernels, the seed of the first."""
        return next(iter(self.masked_kernels.values())).seed

    @property
    def selector(self) -> selectors.Selector:
        """The selector of the layer."""
        return next(iter(self.masked_kernels.values())).selector

    @property
    def scores_initializer(self) -> Any:
        """The initializer of the scores."""
        return next(iter(self.masked_kernels.values())).scores_initializer

    @property
    def scores_regularizer(self) -> Any:
        """The regularizer of the scores."""
        return next(iter(self.masked_kernels.values())).scores_regularizer

    def get_config(self) -> dict[str, Any]:
        kernels = list(self.masked_kernels.values())
        first = kernels[0]
        several = len(kernels) > 1
        scores_initializer = first.scores_initializer
        if several:  # each kernel fills in its own seed
            scores_initializer = initializers.without_seed(scores_initializer)
        return {
            **super().get_config(),
            "k": {kernel.name: kernel.k for kernel in kernels} if several else first.k,
            "selector": self._serialize_selectors(),
            "scores_initializer": _keras.without_sharing(initializers.serialize(scores_initializer)),
            "scores_regularizer": keras.regularizers.serialize(first.scores_regularizer),
            "train_bias": self.train_bias,
            **MaskArguments.of(self).describe_training(),
            "seed": {kernel.name: kernel.seed for kernel in kernels} if several else first.seed,
        }

    def _serialize_selectors(self) -> dict[str, Any]:
        """Returns the config of the selector; a dict by the names of the kernels if these are places of one group."""
        configs = {name: selectors.serialize(kernel.selector) for name, kernel in self.masked_kernels.items()}
        first, *others = map(_keras.without_sharing, configs.values())
        return next(iter(configs.values())) if all(other == first for other in others) else configs

    @classmethod
    def to_stock_serialized(cls, config: dict[str, Any]) -> dict[str, Any]:
        """Returns the serialized stock layer that corresponds to a config of this class."""
        masked_only = {parameter.name for parameter in own_parameters()}
        masked_only |= {f"{spec.argument}_initializer" for spec in cls.kernel_specs}
        config = {name: to_stock(value) for name, value in config.items() if name not in masked_only}
        stock = stock_class(cls)
        return {"module": "keras.layers", "class_name": stock.__name__, "config": config, "registered_name": None}
