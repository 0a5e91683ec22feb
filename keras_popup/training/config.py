"""`RunConfig`: the arguments of a training run, each with its help and its range. Loads no TensorFlow."""

import dataclasses
import os
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from keras_popup._fractions import check_k
from keras_popup.training.protocols import _DENSE_ADAM, _SMALL, BASE, PROTOCOLS, RECIPES, Protocol

_SELECTOR_OF = {"supermask": "bernoulli"}
_WITHOUT_NORMS = ("dense", "random", "finetune")
"""The methods that do not train normalizations beside masks."""


class Bounds(NamedTuple):
    """Which values an argument may have.

    Attributes:
        allow: function that tells whether a value is allowed.
        text: the allowed values in words, which follow "must be" in errors.
    """

    allow: Callable[[Any], bool]
    text: str


def between(least: float, most: float, text: str = "") -> Bounds:
    """Returns the bounds of numbers from `least` to `most`. `text` replaces the words for it."""
    return Bounds(lambda value: least <= value <= most, text or f"from {least:,} to {most:,}")


# The upper ends are far above what anybody trains with. They catch a mistake before any work is done.
MOST = 1_000_000
_WIDTH = Bounds(lambda value: 0.0 < value <= 1000.0, "a positive number up to 1,000")
_RATE = between(0.0, 1e6, f"a number from 0 to {MOST:,}")
_BELOW_ONE = Bounds(lambda value: 0.0 <= value < 1.0, "in [0, 1)")
_SHARE = Bounds(lambda value: 0.0 < value <= 1.0, "in (0, 1]")
_SELECTORS = ("top_k", "signed", "multicoat", "n_m", "block", "global_top_k", "bernoulli")
_SELECTOR = Bounds(
    lambda value: value.partition(":")[0] in _SELECTORS,
    f"one of {', '.join(_SELECTORS)}, or one with arguments, such as multicoat:coats=3",
)
_SEED = Bounds(lambda value: 0 <= value < 2**32, "an integer in [0, 2**32)")

_NOT_FOR = {
    "dense": "left out for the method 'dense', which has no masks",
    "random": "left out for the method 'random', which learns nothing",
    "finetune": "left out for the method 'finetune', whose masks and kernels are those of the run in `from_run`",
    "bernoulli": "left out: bernoulli learns how many weights are kept",
    BASE: "left out with a base: the network is the base's",
}


def option(
    default: Any,
    text: str,
    choices: Sequence[str] | None = None,
    *,
    bounds: Bounds | None = None,
    not_for: Sequence[str] = (),
    place: bool = False,
    hashed: bool = True,
    flag: str = "",
) -> Any:
    """Returns a field of a configuration. The command line has a flag for it.

    Args:
        default: the value that it has if it is left out.
        text: the help.
        choices: the values that it may have.
        bounds: `Bounds` of its values.
        not_for: the methods, or "bernoulli", that do not have this argument.
        place: whether it says where a run is computed, so that a resumed run may have another.
        hashed: whether it is part of the configuration's hash.
        flag: the name of the flag, if it is not that of the argument.
    """
    metadata = {"help": text, "choices": choices, "bounds": bounds, "not_for": tuple(not_for), "place": place}
    metadata["flag"] = flag
    return dataclasses.field(default=default, hash=None if hashed else False, metadata=metadata)


def check_options(config: Any, kind: type) -> None:
    """Checks the type and the range of each option of a configuration.

    Args:
        config: the configuration.
        kind: class whose options are checked.

    Raises:
        ValueError: if an option is out of its range.
    """
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        if "help" not in field.metadata:
            continue
        name, value, hint = field.name, getattr(config, field.name), hints[field.name]
        choices, bounds = field.metadata["choices"], field.metadata["bounds"]
        _check(config, name, _is_of_type(value, hint), f"of type {hint.__name__ if type(hint) is type else hint}")
        if value is None:
            continue
        _check(config, name, not choices or value in choices, f"one of {', '.join(choices or ())}")
        if bounds:
            _check(config, name, bounds.allow(value), bounds.text)


def _is_of_type(value: Any, hint: Any) -> bool:
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    plain = tuple(typing.get_origin(kind) or kind for kind in kinds)
    if isinstance(value, bool):
        return bool in plain
    return isinstance(value, plain) or (float in plain and isinstance(value, int))


def _check(config: Any, name: str, good: bool, expected: str) -> None:
    if not good:
        raise ValueError(f"`{name}` must be {expected}. Received: {name}={getattr(config, name)!r}.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
    """The arguments of a training run. None stands for the protocol of the model and method.

    Raises:
        ValueError: if an argument is out of its range. Nothing is loaded before.

    Example:

    >>> from keras_popup.training import RunConfig
    >>> RunConfig(model="conv4", k=0.3).with_protocol().learning_rate
    0.1
    >>> RunConfig(model="conv4", k={"conv*": 0.3, "*": 0.5}).k
    {'conv*': 0.3, '*': 0.5}
    """

    model: str = option("conv4", "The network. 'base' is that of --base.", tuple(PROTOCOLS))
    recipe: str = option(
        "paper",
        "How what is left out below is trained. 'paper' is the protocol of the paper on edge-popup, for 100 epochs. "
        "'tuned' was better in 30 epochs or fewer, for fc, conv2, conv4 and resnet8. 'zhou' is that of the paper on "
        "supermasks. docs/recipes.md has what each part brings.",
        tuple(RECIPES),
    )
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
        "How the network is found. 'edge-popup' keeps the weights with the best scores, a fraction k of them. "
        "'supermask' learns for each weight the probability that it is kept; it has no k. 'random' keeps weights at "
        "random and learns nothing. 'dense' learns the weights and keeps all. 'finetune' keeps the masks of another "
        "run (--from) and learns the weights under them.",
        tuple(_SMALL),
    )
    k: float | dict[str, float] = option(  # noqa: RUF009
        0.5,
        "Fraction of each layer's weights that is kept, in (0, 1].",
        not_for=("dense", "bernoulli", "finetune"),
        hashed=False,  # a dict cannot be; equal configurations have equal hashes all the same
    )
    from_run: str | None = option(
        None,
        "The folder of the run whose masks and weights --method finetune begins with. Arguments that are left out, "
        "such as --model and --dataset, are then those of that run.",
        flag="from",
    )
    base: str | None = option(
        None,
        "A trained network, the .keras file or the folder of a run with --method dense. Its weights stay as they are, "
        "and masks over them are learned. With --method dense, all its weights are trained further.",
    )
    new_head: bool = option(
        False,
        "Give the base a new last layer, for the classes of --dataset. It is trained, and has no mask.",
        not_for=("random",),
    )
    pixels: str | None = option(
        None,
        "What pixels the network takes: as they are, from 0 to 255; divided by 255; from -1 to 1; or standardized by "
        "the mean and deviation of --dataset. Default: standardized. A base that prepares images itself has none; for "
        "another base it must be given.",
        ("0_to_255", "0_to_1", "-1_to_1", "standardized"),
    )
    scores_initializer: str | None = option(
        None,
        "How the scores begin: by the sizes of the weights, or at random. Default: magnitude with a base, else at "
        "random.",
        ("magnitude", "score_uniform"),
        not_for=("dense", "bernoulli", "finetune"),
    )
    k_schedule: str | None = option(
        None,
        "How k falls from 1 to its value during training, as a function of the time t from 0 to 1: in a straight "
        "line, as (1 - t)**3, or as k**t. If left out, k is constant.",
        ("linear", "cubic", "geometric"),
        not_for=("dense", "random", "bernoulli", "finetune"),
    )
    k_schedule_end: float = option(
        1.0, "When k_schedule reaches k, as a share of the training.", bounds=_SHARE, not_for=("dense",)
    )
    redraw_every: int | None = option(
        None,
        "Draw weights that the masks do not keep anew after so many steps (IteRand). The paper's are 300. If left out, "
        "kernels stay as they are.",
        bounds=between(1, MOST),
        not_for=("dense", "random", "finetune", BASE),
    )
    redraw_rate: float = option(
        0.1, "The share of these weights that is drawn anew.", bounds=_SHARE, not_for=("dense", "random", "finetune")
    )
    redraw_from: str = option(
        "seed",
        "Where the new values come from: 'seed', random ones (IteRand), or 'best', those of the weights with the best "
        "scores (weight recycling); then the weights with the worst scores get them.",
        ("seed", "best"),
        not_for=("dense", "random", "bernoulli", "finetune"),
    )
    activation: str = option(
        "relu",
        "The activation of the network's layers; 'binary' is -1 or 1 by the sign.",
        ("relu", "binary"),
        not_for=(BASE,),
    )
    width: float = option(1.0, "Factor of the channels of every layer but the last.", bounds=_WIDTH, not_for=(BASE,))
    selector: str | None = option(
        None,
        "How weights are chosen by their scores: top_k, signed, multicoat, n_m, block, global_top_k or "
        "bernoulli. Arguments follow the name: multicoat:coats=3, n_m:m=8, top_k:pruned=0.5:locked=0.1. "
        "docs/methods.md tells when to use which. "
        "Default by the method: bernoulli for supermask, else top_k.",
        bounds=_SELECTOR,
    )
    rescale: bool = option(
        False,
        "Whether bernoulli multiplies the weights that are kept by n / kept: dynamic weight rescaling.",
        not_for=("dense", "finetune"),
    )
    kernel_initializer: str = option(
        "signed_constant",
        "Initializer of the frozen kernels: signed_constant, unsigned_constant, kaiming_normal, kaiming_uniform, "
        "xavier_normal, xavier_signed_constant, or one of Keras's.",
        not_for=("dense", "finetune", BASE),
    )
    scaled: bool = option(
        False,
        "Whether the frozen kernels are divided by sqrt(k), as in the paper on edge-popup. Its code divides by "
        "sqrt(1 - k), which is the same at k = 0.5 only.",
        not_for=("dense", "finetune", BASE),
    )
    train_norms: bool | None = option(
        None,
        "Train gamma and beta of normalizations beside the masks. They add their bytes to a ticket.",
        not_for=_WITHOUT_NORMS,
    )
    epochs: int | None = option(None, "Passes over the training images.", bounds=between(1, MOST))
    batch_size: int | None = option(
        None, "Images in a step of training, on all devices together.", bounds=between(1, MOST)
    )
    optimizer: str | None = option(
        None, "The optimizer of the scores, or of a dense network's weights.", ("sgd", "adam")
    )
    learning_rate: float | None = option(None, "The learning rate at the start, after the warm-up.", bounds=_RATE)
    momentum: float | None = option(None, "Momentum of SGD, in [0, 1).", bounds=_BELOW_ONE)
    l2: float | None = option(
        None,
        "Coupled weight decay: l2 / 2 * sum(s**2) of the scores in the loss, or of a dense network's weights.",
        bounds=_RATE,
    )
    schedule: str | None = option(
        None, "Schedule of the learning rate; 'cosine' falls to 0 at the end.", ("cosine", "constant")
    )
    warmup_epochs: float | None = option(None, "Epochs in which the learning rate rises from 0.", bounds=_RATE)
    label_smoothing: float | None = option(None, "Label smoothing, in [0, 1).", bounds=_BELOW_ONE)
    augment: str | None = option(
        None,
        "Augmentation of the training images. If left out, it follows from the data.",
        ("none", "crop_flip", "resized_crop"),
    )
    image_size: int | None = option(None, "Pixels that images are cropped and resized to.", bounds=between(1, 10_000))
    validation: float = option(
        0.1, "Share of the training images set apart; 0 trains on all of them.", bounds=_BELOW_ONE
    )
    seed: int = option(1, "Seed of the kernels, scores, validation split, order and augmentation.", bounds=_SEED)
    precision: str = option(
        "float32", "Keras dtype policy.", ("float32", "mixed_bfloat16", "mixed_float16"), not_for=(BASE,)
    )
    jit_compile: str = option(
        "auto", "Whether XLA compiles the step; 'true' needs --nodeterministic.", ("auto", "true", "false")
    )
    deterministic: bool = option(
        True, "Whether the same seed gives the same history. TensorFlow then uses deterministic operations and no XLA."
    )
    strategy: str = option(
        "auto",
        "Where to train: 'none' on one device, 'mirrored' on several of this machine, 'multiworker' on all machines "
        "that TF_CONFIG names. 'auto' is 'mirrored' if there are two GPUs or more, or if --devices is given.",
        ("auto", "none", "mirrored", "multiworker"),
        place=True,
    )
    devices: str | None = option(
        None,
        "Comma-separated devices for 'mirrored', such as GPU:0,GPU:1. If left out, all GPUs. CPU:0,CPU:1 splits the "
        "CPU, for testing.",
        place=True,
    )
    mask_statistics: str | None = option(
        None,
        "Where to write statistics of the masks after every epoch, such as the share that changed: 'history' for "
        "history.csv, 'tensorboard' for TensorBoard too, in the run folder.",
        ("history", "tensorboard"),
        not_for=("dense",),
    )

    def __post_init__(self) -> None:
        check_options(self, RunConfig)
        self._check_k()
        for field in dataclasses.fields(RunConfig):
            for kind in field.metadata["not_for"]:
                used = kind in (self.method, self.model) or (kind == "bernoulli" and self.draws)
                _check(self, field.name, not used or getattr(self, field.name) == field.default, _NOT_FOR[kind])
        self._check_method()
        self._check_devices()

    def _check_k(self) -> None:
        if not isinstance(self.k, dict):
            check_k(self.k)
            return
        good = self.k and all(isinstance(name, str) and _is_of_type(k, float) for name, k in self.k.items())
        _check(self, "k", bool(good), "a number, or a dict of numbers by patterns, such as {'conv*': 0.3, '*': 0.5}")
        for pattern, k in self.k.items():
            try:
                check_k(k)
            except ValueError as error:
                raise ValueError(f"Layers '{pattern}': {error}") from None

    def _check_method(self) -> None:
        """Checks the arguments that depend on the method and on each other."""
        selectors = {"supermask": "bernoulli", "random": "top_k", "dense": "top_k", "finetune": "top_k"}
        good = self.selector in (None, selectors.get(self.method, self.selector))
        _check(self, "selector", good, f"left out for the method '{self.method}'")
        _check(self, "rescale", self.draws or not self.rescale, "false, except for bernoulli (--method supermask)")
        one_k = self.k_schedule is None or not isinstance(self.k, dict)
        _check(self, "k_schedule", one_k, "left out if layers have fractions of their own")
        redraws = self.redraw_every is not None
        _check(self, "redraw_rate", self.redraw_rate == 0.1 or redraws, "0.1 without redraw_every")
        _check(self, "redraw_from", self.redraw_from == "seed" or redraws, "'seed' without redraw_every")
        one_k = not isinstance(self.k, dict) or (self.selector or "").partition(":")[0] != "global_top_k"
        _check(self, "k", one_k, "one number with the selector global_top_k, which has one k for the whole network")
        end = self.k_schedule_end == 1.0 or self.k_schedule is not None
        _check(self, "k_schedule_end", end, "1 without k_schedule")
        learns = self.method != "random" or not self.learning_rate
        _check(self, "learning_rate", learns, "0, or left out: 'random' learns nothing")
        finetunes = self.method == "finetune"
        _check(self, "from_run", (self.from_run is not None) == finetunes, "the folder of a run, for 'finetune' alone")
        has_base = self.model == BASE
        expected = "the .keras file or folder of a run, for the model 'base' alone. Leave `model` out, or give 'base'"
        _check(self, "base", (self.base is not None) == has_base or finetunes, expected)
        _check(self, "new_head", has_base or not self.new_head, "false without a base")
        by_size = self.scores_initializer == "magnitude"
        _check(self, "scores_initializer", has_base or not by_size, "left out without a base: all weights are one size")
        _check(self, "l2", not finetunes or not self.l2, "0, or left out: 'finetune' has no weight decay")
        if self.epochs is not None and self.warmup_epochs is not None:
            expected = f"less than the epochs, {self.epochs} (the protocol's, if not given). Use 0 for no warm-up"
            _check(self, "warmup_epochs", self.warmup_epochs < self.epochs, expected)

    def _check_devices(self) -> None:
        one_device = self.strategy in ("auto", "none") and self.devices is None
        if self.jit_compile == "true":
            _check(self, "jit_compile", not self.deterministic, "'auto' or 'false', or 'true' with --nodeterministic")
            _check(self, "jit_compile", one_device, "'auto' or 'false' on several devices")
        if self.devices is None:
            return
        allowed = self.strategy in ("auto", "mirrored")
        _check(self, "devices", allowed, f"left out for the strategy '{self.strategy}'")
        names = [name.strip() for name in self.devices.split(",")]
        for name in names:
            good = re.fullmatch(r"(CPU|GPU):\d{1,3}", name) is not None
            _check(self, "devices", good, f"names such as GPU:0,GPU:1, which '{name}' is not")
        _check(self, "devices", len(set(names)) == len(names), "different devices")

    @property
    def draws(self) -> bool:
        """Whether masks are drawn, and there is no k."""
        return (
            self.method not in ("dense", "finetune") and (self.selector or _SELECTOR_OF.get(self.method)) == "bernoulli"
        )

    def title(self) -> str:
        """Returns the title of the run's pictures."""
        network = f"{self.model}, width {self.width:g}"
        if self.base is not None:
            network = f"on {os.path.basename(os.path.normpath(self.base))}"
        return f"{network}, {self.dataset}, {self._describe_method()}"

    def _describe_method(self) -> str:
        if self.method == "dense":
            return "learned weights"
        if self.method == "finetune":
            return "finetuned"
        if self.draws:
            return "supermask, rescaled" if self.rescale else "supermask"
        k = self.k if isinstance(self.k, dict) else {"": self.k}
        fractions = ", ".join(f"k = {each:g}" + (f" for {pattern}" if pattern else "") for pattern, each in k.items())
        return f"{fractions}, at random" if self.method == "random" else fractions

    def to_json(self) -> dict[str, Any]:
        """Returns the arguments, as run folders record them."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, recorded: Mapping[str, Any]) -> "RunConfig":
        """Returns the configuration of recorded arguments, also of those of an earlier version."""
        return RunConfig(**_with_new_names(recorded))

    def _list_none(self) -> set[str]:
        """Returns the names of the arguments that the method does not have."""
        return {field.name for field in dataclasses.fields(RunConfig) if self.method in field.metadata["not_for"]}

    def _find_protocol(self) -> Protocol:
        recipe, method = RECIPES[self.recipe], "supermask" if self.draws else self.method
        if protocol := recipe.get(self.model, {}).get(method):
            return protocol
        known = [f"{method} of {model}" for model, protocols in recipe.items() for method in protocols]
        raise ValueError(
            f"The recipe {self.recipe!r} is for {', '.join(known)}. Received: model={self.model!r}, "
            f"method={method!r}. Leave `recipe` out, or give 'paper'."
        )

    def resolve(self, name: str) -> Any:
        """Returns an argument, or the protocol's in place of None."""
        value = getattr(self, name)
        return getattr(self._find_protocol(), name) if value is None else value

    def with_protocol(self) -> "ResolvedRunConfig":
        """Returns this configuration with the protocol's values in place of None.

        Raises:
            ValueError: if there is no protocol and no learning rate, as for Adam on scores.
        """
        protocol = self._find_protocol()
        if self.optimizer == "adam":
            if protocol == _SMALL["dense"]:
                protocol = _DENSE_ADAM
            elif self.learning_rate is None and self.method != "random" and protocol.optimizer != "adam":
                raise ValueError(
                    f"`optimizer`='adam' has no protocol for model={self.model!r}, method={self.method!r}. Give a "
                    "learning rate, such as --learning_rate 0.001."
                )
        if self.optimizer == "sgd" and protocol.optimizer == "adam" and self.learning_rate is None:
            raise ValueError(
                f"`optimizer`='sgd' has no protocol for model={self.model!r}, method={self.method!r}. Give a learning "
                "rate, such as --learning_rate 0.1."
            )
        selector = protocol.selector or _SELECTOR_OF.get(self.method, "top_k")
        values = {**dataclasses.asdict(protocol), "selector": selector}
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        missing = {name: value for name, value in values.items() if own[name] is None and name not in self._list_none()}
        return ResolvedRunConfig(**{**own, **missing})


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResolvedRunConfig(RunConfig):
    """A `RunConfig` with the protocol's values: `RunConfig.with_protocol` returns it."""

    selector: str
    epochs: int
    batch_size: int
    optimizer: str
    learning_rate: float
    momentum: float
    l2: float
    schedule: str
    warmup_epochs: float
    label_smoothing: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if missing := [name for name in ResolvedRunConfig.__annotations__ if getattr(self, name) is None]:
            raise TypeError(f"A ResolvedRunConfig needs {', '.join(missing)}. Use RunConfig.with_protocol().")


_FIELDS = dataclasses.fields(RunConfig)

OF_MASKS = tuple(field.name for field in _FIELDS if "dense" in field.metadata["not_for"])
"""Arguments that a network with learned weights does not have."""

PLACES = tuple(field.name for field in _FIELDS if field.metadata["place"])
"""Arguments that say where a run is computed. They do not change its result: a resumed run may have others."""


def defaults() -> dict[str, Any]:
    """Returns the default arguments of a run, with the protocol's values."""
    return RunConfig().with_protocol().to_json()


def read_arguments(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arguments of a recorded run or search, in the form of this version.

    Earlier versions had fewer arguments: their runs have the defaults of the others.
    """
    return {**defaults(), **_with_new_names(recorded)}


def _with_new_names(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Returns recorded arguments of an earlier version by the names of this one.

    `layer_k` had patterns, "conv*=0.3;dense*=0.5". `pixels` was for a base alone. `train_norms` was False where a
    method does not have it.
    """
    arguments = dict(recorded)
    if arguments.get("method") in _WITHOUT_NORMS:
        arguments["train_norms"] = None
    if "base_pixels" in arguments:
        arguments["pixels"] = arguments.pop("base_pixels")
    text = arguments.pop("layer_k", None)
    if text is not None and not isinstance(arguments.get("k"), str):  # of a search, a range of k is text
        entries = (entry.partition("=") for entry in text.split(";"))
        k = {pattern.strip(): float(value) for pattern, _, value in entries}
        arguments["k"] = k if "*" in k else {**k, "*": arguments.get("k", 0.5)}
    return arguments
