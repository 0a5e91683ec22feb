"""What is known of each network in the package. Loads no TensorFlow.

A network is two files in networks/: NAME.ticket, and NAME.toml, its card. There is no other list of them.
"""

import dataclasses
import tomllib
from pathlib import Path

_NETWORKS = Path(__file__).parent / "networks"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Card:
    """What a network is, how good it is, and how to make it again.

    Attributes:
        name: str, such as "fashion_mnist/fc".
        title: str, what it is in a few words.
        input: str, the images that it takes.
        dataset: str, the name of its dataset, as `keras_popup.datasets.load` takes it.
        data: str, where the data come from.
        data_licence: str, the licence of the data.
        recipe: str, how it was trained.
        commands: list of str, the commands that made it. They need the data only.
        test_accuracy: float, measured on all test images.
        test_images: int, how many there are.
        weights: int, the weights of its masked layers.
        kept: int, those of them that its masks keep.
        bytes: int, the size of the ticket.
        machine: str, on what it was trained, and how long.
    """

    name: str
    title: str
    input: str
    dataset: str
    data: str
    data_licence: str
    recipe: str
    commands: list[str]
    test_accuracy: float
    test_images: int
    weights: int
    kept: int
    bytes: int
    machine: str

    def __str__(self) -> str:
        rows = {
            "what": self.title,
            "takes": self.input,
            "test accuracy": f"{self.test_accuracy:.2%} of {self.test_images:,} images",
            "size": f"{self.bytes:,} bytes; keeps {self.kept:,} of {self.weights:,} random weights",
            "data": self.data,
            "their licence": self.data_licence,
            "recipe": self.recipe,
            "machine": self.machine,
            "made by": "\n".join(self.commands),
        }
        lines = [f"{name:<14} {line}" for name, text in rows.items() for line in text.splitlines()[:1]]
        lines += [f"{'':<14} {command}" for command in self.commands[1:]]
        return "\n".join([self.name, *lines])


def list_networks() -> list[str]:
    """Returns the names of all networks in the package, in the order of the alphabet.

    Example:

    >>> import keras_popup
    >>> "fashion_mnist/fc" in keras_popup.pretrained.list_networks()
    True
    """
    return sorted(path.relative_to(_NETWORKS).with_suffix("").as_posix() for path in _NETWORKS.rglob("*.ticket"))


def find_ticket(name: str) -> Path:
    """Returns the path of the ticket of a network.

    Args:
        name: str, one of `list_networks()`.

    Raises:
        ValueError: if there is no such network.
    """
    if name not in list_networks():
        raise ValueError(f"`name` must be one of {', '.join(list_networks())}. Received: {name!r}.")
    return _NETWORKS / f"{name}.ticket"


def read_card(name: str) -> Card:
    """Returns the card of a network: what it is, how good it is, and how to make it again.

    Args:
        name: str, one of `list_networks()`.

    Returns:
        A `Card`. Its `str()` is a text of some lines.

    Raises:
        ValueError: if there is no such network.

    Example:

    >>> import keras_popup
    >>> keras_popup.pretrained.read_card("fashion_mnist/fc").bytes
    33687
    """
    content = find_ticket(name).with_suffix(".toml").read_text(encoding="utf-8")
    return Card(name=name, **tomllib.loads(content))
