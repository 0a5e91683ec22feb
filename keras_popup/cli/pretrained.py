"""The command `pretrained`."""

from collections.abc import Sequence

from absl import flags

from keras_popup.cli.flags import UsageError, parse
from keras_popup.pretrained import list_networks, read_card

_PRETRAINED_HELP = """\
keras-popup pretrained: the networks that come with the package

usage:
  keras-popup pretrained        lists them
  keras-popup pretrained NAME   the card of one: data, licence, recipe, commands, accuracy, bytes

Their names stand for MODEL in evaluate, predict, summary and export.

examples:
  keras-popup pretrained fashion_mnist/fc
  keras-popup predict fashion_mnist/fc examples/images/boot.png
"""


def pretrained(arguments: Sequence[str]) -> int:
    """`keras-popup pretrained [NAME]`: prints the networks of the package, or the card of one."""
    values = flags.FlagValues()
    if (given := parse(values, "pretrained", arguments, _PRETRAINED_HELP, "[NAME...]")) is None:
        return 0
    if unknown := [name for name in given if name not in list_networks()]:
        raise UsageError(f"NAME must be one of {', '.join(list_networks())}. Received: {', '.join(unknown)}.")
    for name in given:
        print(f"{read_card(name)}\n")
    if not given:
        width = max(map(len, list_networks()))
        for card in map(read_card, list_networks()):
            print(f"{card.name:<{width}} {card.test_accuracy:7.2%}  {card.bytes:>7,} bytes  {card.title}")
        print("\nnext:\n  keras-popup pretrained NAME       its card\n  keras-popup predict NAME IMAGE...")
    return 0
