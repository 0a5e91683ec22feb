"""The protocols of the papers and of their code: the defaults of what a configuration leaves out."""

import dataclasses

BASE = "base"
"""The name of the model of a `base`: whatever network that is."""


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How a network is trained. It fills what a configuration leaves out."""

    learning_rate: float
    epochs: int = 100
    batch_size: int = 128
    optimizer: str = "sgd"
    momentum: float = 0.9
    l2: float = 1e-4
    schedule: str = "cosine"
    warmup_epochs: float = 0
    label_smoothing: float = 0.0
    augment: str | None = None
    pixels: str | None = None
    selector: str | None = None
    train_norms: bool = False


def _methods(edge_popup: Protocol, dense: Protocol | None = None) -> dict[str, Protocol]:
    # Zhou et al., arXiv 1905.01067, as run again by Ramanujan et al.: high learning rates and no decay of the logits.
    supermask = dataclasses.replace(edge_popup, learning_rate=50.0, l2=0.0)
    # Nothing is learned; BatchNormalization's moving averages take an epoch.
    random = dataclasses.replace(edge_popup, learning_rate=0.0, l2=0.0, epochs=1, warmup_epochs=0)
    dense = dense or edge_popup
    # Learned weights again, under a mask. Weight decay is left out: it is for scores, or for all weights.
    finetune = dataclasses.replace(dense, l2=0.0)
    return {"edge-popup": edge_popup, "supermask": supermask, "random": random, "dense": dense, "finetune": finetune}


# Ramanujan et al., arXiv 1911.13299: section 4 and the configuration files of the authors' code.
_DENSE_ADAM = Protocol(learning_rate=3e-4, batch_size=60, optimizer="adam", l2=0.0, schedule="constant")


_SMALL = _methods(Protocol(learning_rate=0.1), dense=Protocol(learning_rate=0.01))


_RESNET_ON_CIFAR = _methods(Protocol(learning_rate=0.1, batch_size=256, l2=5e-4))


_IMAGENET = _methods(
    Protocol(learning_rate=0.256, batch_size=256, momentum=0.875, l2=3.05e-5, warmup_epochs=5, label_smoothing=0.1)
)

# Masks, or all weights, of a trained network: docs/tasks.md has what was measured.
_BASE = _methods(Protocol(learning_rate=1e-3, epochs=20, optimizer="adam", l2=0.0))
_BASE["supermask"] = Protocol(learning_rate=50.0, epochs=20, l2=0.0)

PROTOCOLS: dict[str, dict[str, Protocol]] = {
    **dict.fromkeys(("fc", "conv2", "conv4", "conv6", "conv8"), _SMALL),
    **dict.fromkeys(("resnet8", "resnet18"), _RESNET_ON_CIFAR),
    **dict.fromkeys(("resnet34", "resnet50", "resnet101", "wide_resnet50", "mobilenet"), _IMAGENET),
    BASE: _BASE,
}
"""The protocols of the papers, by model and method."""

# Zhou et al., arXiv 1905.01067, and their code: https://github.com/uber-research/deconstructing-lottery-tickets. Their
# example trains the fully connected network for 2,000 epochs; of the others the code does not say.
_ZHOU = Protocol(learning_rate=100.0, batch_size=250, l2=0.0, schedule="constant", augment="none", pixels="0_to_1")

# What was better in the short trainings of docs/recipes.md. Networks that were not measured have none.
_TUNED = {
    "fc": Protocol(learning_rate=0.1, epochs=30, l2=0.0, selector="multicoat:coats=2"),
    "conv2": Protocol(learning_rate=0.5, epochs=30),
    "conv4": Protocol(learning_rate=0.5, epochs=30, l2=0.0, warmup_epochs=1, label_smoothing=0.1),
    "resnet8": Protocol(learning_rate=0.5, epochs=30, l2=0.0, train_norms=True, selector="multicoat:coats=2"),
}

RECIPES: dict[str, dict[str, dict[str, Protocol]]] = {
    "paper": PROTOCOLS,
    "tuned": {model: {"edge-popup": protocol} for model, protocol in _TUNED.items()},
    "zhou": {model: {"supermask": _ZHOU} for model in ("fc", "conv2", "conv4", "conv6")},
}
"""The protocols of each recipe, by model and method."""
