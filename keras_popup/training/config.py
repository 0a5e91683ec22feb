"""`RunConfig`: the one place where the arguments of a training run live. Loads no TensorFlow."""

import dataclasses
import math
import re
import typing
from collections.abc import Sequence
from typing import Any

from keras_popup.training.protocols import _DENSE_ADAM, _SMALL, PROTOCOLS

_SELECTOR_OF = {"supermask": "bernoulli"}


PLACES = ("strategy", "devices")
"""Arguments that say where a run is computed, not what: a resumed run may have others."""


OF_MASKS = (
    "k",
    "layer_k",
    "k_schedule",
    "k_schedule_end",
    "rescale",
    "kernel_initializer",
    "scaled",
    "mask_statistics",
)
"""Arguments that a network with learned weights does not have."""


def option(default: Any, text: str, choices: Sequence[str] | None = None) -> Any:
    """Returns a field of a configuration, of which a flag is made."""
    return dataclasses.field(default=default, metadata={"help": text, "choices": choices})


def check_options(config: Any) -> None:
    """Checks the types of a configuration's options, and that they are among their choices. Raises ValueError."""
    hints = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):
        if "choices" not in field.metadata:
            continue
        value, choices, hint = getattr(config, field.name), field.metadata["choices"], hints[field.name]
        if not isinstance(value, hint | int if float in (hint, *typing.get_args(hint)) else hint):
            raise ValueError(f"`{field.name}` must be of type {hint}. Received: {value!r}.")
        if value is not None and choices and value not in choices:
            raise ValueError(f"`{field.name}` must be one of {', '.join(choices)}. Received: {value!r}.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
    """The arguments of a training run. None stands for the protocol of the model and method.

    Raises:
        ValueError: if an argument is out of its range, before anything is loaded.

    Example:

    >>> from keras_popup.training import RunConfig
    >>> RunConfig(model="conv4", k=0.3).with_protocol().learning_rate
    0.1
    """

    model: str = option("conv4", "The network.", tuple(PROTOCOLS))
    dataset: str = option(
        "digits", "'digits', a name of TensorFlow Datasets such as cifar10, or any name for a folder of images."
    )
    data_dir: str | None = option(
        None,
        "A folder of images, <split>/<class>/*.jpg or png with the splits train and test, validation or val; or the "
        "directory of TensorFlow Datasets.",
    )
    method: str = option(
        "edge-popup",
        "How the network is found: 'edge-popup' keeps the k best-scored weights; 'supermask' draws each with a "
        "probability that is learned, and has no k; 'random' keeps weights at random and learns nothing; 'dense' "
        "learns the weights and keeps all.",
        tuple(_SMALL),
    )
    k: float = option(0.5, "Fraction of each layer's weights that is kept, in (0, 1].")
    layer_k: str | None = option(
        None,
        "Other fractions for some layers, by patterns of their names, of which the first that matches counts: "
        "'conv*=0.3;dense*=0.5'.",
    )
    k_schedule: str | None = option(
        None,
        "How k falls from 1 to its value in training, t from 0 to 1: in a line, as (1 - t)**3 does, or as k**t. "
        "Constant if not given.",
        ("linear", "cubic", "geometric"),
    )
    k_schedule_end: float = option(1.0, "Share of the training, in (0, 1], after which k_schedule has come to k.")
    width: float = option(1.0, "Factor of the channels of every layer but the last.")
    selector: str | None = option(
        None,
        "What chooses the weights by their scores. By the method: bernoulli for supermask, else top_k.",
        ("top_k", "bernoulli"),
    )
    rescale: bool = option(
        False, "Whether bernoulli multiplies the weights kept by n / kept: dynamic weight rescaling."
    )
    kernel_initializer: str = option(
        "signed_constant",
        "Of the frozen kernels: signed_constant, unsigned_constant, kaiming_normal, kaiming_uniform, xavier_normal, "
        "xavier_signed_constant, or one of Keras's.",
    )
    scaled: bool = option(False, "Whether the frozen kernels are divided by sqrt(k).")
    epochs: int | None = option(None, "Passes over the training images.")
    batch_size: int | None = option(None, "Images in a step of training, on all devices together.")
    optimizer: str | None = option(
        None, "The optimizer of the scores, or of a dense network's weights.", ("sgd", "adam")
    )
    learning_rate: float | None = option(None, "The learning rate at the start, after the warm-up.")
    momentum: float | None = option(None, "Momentum of SGD, in [0, 1).")
    l2: float | None = option(
        None, "Coupled weight decay: l2 / 2 * sum(s**2) of the scores in the loss, or of a dense network's weights."
    )
    schedule: str | None = option(
        None, "Schedule of the learning rate; 'cosine' falls to 0 at the end.", ("cosine", "constant")
    )
    warmup_epochs: float | None = option(None, "Epochs in which the learning rate rises from 0.")
    label_smoothing: float | None = option(None, "Label smoothing, in [0, 1).")
    augment: str | None = option(
        None,
        "Augmentation of the training images; chosen by the data if not given.",
        ("none", "crop_flip", "resized_crop"),
    )
    image_size: int | None = option(None, "Pixels that images are cropped and resized to.")
    validation: float = option(0.1, "Share of the training images set apart; 0 trains on all of them.")
    seed: int = option(1, "Seed of the kernels, scores, validation split, order and augmentation.")
    precision: str = option("float32", "Keras dtype policy.", ("float32", "mixed_bfloat16", "mixed_float16"))
    jit_compile: str = option(
        "auto", "Whether XLA compiles the step; needs --nodeterministic.", ("auto", "true", "false")
    )
    deterministic: bool = option(
        True, "Same seed, same history: holds TensorFlow to deterministic operations and does without XLA."
    )
    strategy: str = option(
        "auto",
        "Where: 'none' on one device, 'mirrored' on several of this machine, 'multiworker' on all machines that "
        "TF_CONFIG names. 'auto' is 'mirrored' where there are two GPUs or more, or --devices.",
        ("auto", "none", "mirrored", "multiworker"),
    )
    devices: str | None = option(
        None,
        "For 'mirrored', and of no other strategy: such as GPU:0,GPU:1. All GPUs if not given. CPU:0,CPU:1 divides "
        "the CPU, to try it.",
    )

    mask_statistics: str | None = option(
        None,
        "Statistics of the masks after every epoch, such as the share that changed: in history.csv, or for TensorBoard "
        "too, in the run folder.",
        ("history", "tensorboard"),
    )

    def __post_init__(self) -> None:
        check_options(self)
        xla_works = self.jit_compile != "true" or not self.deterministic
        one_device = self.strategy in ("auto", "none") and self.devices is None
        self._check("jit_compile", xla_works, "'auto' or 'false', or 'true' with --nodeterministic")
        self._check("jit_compile", self.jit_compile != "true" or one_device, "'auto' or 'false' on several devices")
        names = self.devices is None or self.strategy in ("auto", "mirrored")
        self._check("devices", names, f"left out for the strategy '{self.strategy}'")
        listed = [name.strip() for name in self.devices.split(",")] if self.devices is not None else []
        for name in listed:
            named = re.fullmatch(r"(CPU|GPU):\d{1,3}", name) is not None
            self._check("devices", named, f"names such as GPU:0,GPU:1, which '{name}' is not")
        self._check("devices", len(set(listed)) == len(listed), "different devices")
        self._check("k", 0.0 < self.k <= 1.0, "in (0, 1]: the fraction of weights kept")
        if self.draws:
            has_no_k = "left out: bernoulli learns how many weights are kept"
            self._check("k", self.k == 0.5, has_no_k)
            self._check("layer_k", self.layer_k is None, has_no_k)
            self._check("k_schedule", self.k_schedule is None, has_no_k)
        self._check("rescale", self.draws or not self.rescale, "false, but for bernoulli (--method supermask)")
        if self.k_schedule is not None:
            one_k = self.method == "edge-popup" and self.layer_k is None
            self._check("k_schedule", one_k, "left out, but for edge-popup with one k in all layers")
        self._check("k_schedule_end", 0.0 < self.k_schedule_end <= 1.0, "in (0, 1]")
        self._check("k_schedule_end", self.k_schedule_end == 1.0 or self.k_schedule is not None, "1 without k_schedule")
        fits = {"supermask": (None, "bernoulli"), "random": (None, "top_k"), "dense": (None, "top_k")}
        good = self.selector in fits.get(self.method, (self.selector,))
        self._check("selector", good, f"left out for the method '{self.method}'")
        if self.method == "dense":
            for name in OF_MASKS:
                left_out = getattr(self, name) == getattr(RunConfig, name)
                self._check(name, left_out, "left out for the method 'dense', which has no masks")
        if self.method == "random":
            self._check("learning_rate", not self.learning_rate, "0, or left out: 'random' learns nothing")
        for pattern, k in layer_fractions(self.layer_k).items():
            self._check("layer_k", 0.0 < k <= 1.0, f"fractions in (0, 1], which that of '{pattern}' is not")
        self._check("width", 0.0 < self.width < math.inf, "a positive number")
        self._check("epochs", self.epochs is None or self.epochs >= 1, "1 or more")
        self._check("batch_size", self.batch_size is None or self.batch_size >= 1, "1 or more")
        self._check("learning_rate", _in_range(self.learning_rate), "a number >= 0")
        self._check("momentum", _in_range(self.momentum, 1.0), "in [0, 1)")
        self._check("l2", _in_range(self.l2), "a number >= 0")
        self._check("warmup_epochs", _in_range(self.warmup_epochs), "a number >= 0")
        if self.epochs is not None and self.warmup_epochs is not None:
            expected = f"less than the epochs, {self.epochs} (the protocol's, if not given); 0 does without"
            self._check("warmup_epochs", self.warmup_epochs < self.epochs, expected)
        self._check("label_smoothing", _in_range(self.label_smoothing, 1.0), "in [0, 1)")
        self._check("image_size", self.image_size is None or self.image_size >= 1, "1 or more")
        self._check("validation", _in_range(self.validation, 1.0), "in [0, 1)")
        self._check("seed", 0 <= self.seed < 2**32, "an integer in [0, 2**32)")

    @property
    def draws(self) -> bool:
        """Whether masks are drawn, and there is no k."""
        return self.method != "dense" and (self.selector or _SELECTOR_OF.get(self.method)) == "bernoulli"

    def title(self) -> str:
        """Returns what pictures of the run are called."""
        return f"{self.model}, width {self.width:g}, {self.dataset}, {self._chosen()}"

    def _chosen(self) -> str:
        if self.method == "dense":
            return "learned weights"
        if self.draws:
            return "supermask, rescaled" if self.rescale else "supermask"
        fractions = f"k = {self.k:g}" + (f", {self.layer_k}" if self.layer_k else "")
        return f"{fractions}, at random" if self.method == "random" else fractions

    def _check(self, name: str, good: bool, expected: str) -> None:
        if not good:
            raise ValueError(f"`{name}` must be {expected}. Received: {name}={getattr(self, name)!r}.")

    def with_protocol(self) -> "RunConfig":
        """Returns this configuration with the protocol's values for those that are None.

        Raises:
            ValueError: if there is no protocol, as for Adam on scores, and no learning rate.
        """
        protocol = PROTOCOLS[self.model]["supermask" if self.draws else self.method]
        if self.optimizer == "adam":
            if protocol == _SMALL["dense"]:
                protocol = _DENSE_ADAM
            elif self.learning_rate is None and self.method != "random":
                raise ValueError(
                    "There is no protocol of `optimizer`='adam' here. Give a learning rate, as --learning_rate 0.001. "
                    f"Received: model={self.model!r}, method={self.method!r}."
                )
        values = {**dataclasses.asdict(protocol), "selector": _SELECTOR_OF.get(self.method, "top_k")}
        return dataclasses.replace(
            self, **{name: value for name, value in values.items() if getattr(self, name) is None}
        )


def given(value: Any) -> Any:
    """Returns a value that `with_protocol` has filled in."""
    assert value is not None
    return value


def defaults() -> dict[str, Any]:
    """Returns the default arguments of a run: those of runs that a version with fewer arguments has recorded."""
    return dataclasses.asdict(RunConfig().with_protocol())


def layer_fractions(text: str | None, read: Any = float) -> dict[str, Any]:
    """Returns what `layer_k` says, by pattern.

    Args:
        text: such as "conv*=0.3;dense*=0.5".
        read: what reads the text behind "=".

    Raises:
        ValueError: if it cannot be read.
    """
    fractions: dict[str, Any] = {}
    for entry in (text or "").split(";") if text is not None else ():
        pattern, _, value = (part.strip() for part in entry.partition("="))
        try:
            given = read(value)
        except ValueError:
            given = None
        if not pattern or given is None or pattern in fractions:
            raise ValueError(f"`layer_k` must be such as 'conv*=0.3;dense*=0.5'. Received: layer_k={text!r}.")
        fractions[pattern] = given
    return fractions


def _in_range(value: float | None, end: float = math.inf) -> bool:
    return value is None or 0.0 <= value < end
