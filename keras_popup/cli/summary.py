"""The command `summary`."""

from collections.abc import Sequence

from absl import flags

from keras_popup.cli.flags import parse
from keras_popup.cli.models import find_model_file, load_model
from keras_popup.cli.quiet import import_quietly

_SUMMARY_HELP = """\
keras-popup summary: show which layers of a model are masked, and how large the masks are

usage:
  keras-popup summary MODEL     MODEL is the folder of a run or search, a .keras file or a ticket

Prints a row for each masked kernel: how many weights, how many the mask keeps, the fraction k and the seed of the
kernel. With more than 40 kernels, a row is a block of them. The last lines are the bytes of all masks, at one bit per
weight and at the entropy limit.

example:
  keras-popup summary runs/first
"""


def summary(arguments: Sequence[str]) -> int:
    """`keras-popup summary`: prints what is masked in a model and returns the exit status."""
    values = flags.FlagValues()
    text = "A row for every kernel, and for every layer with weights and no mask, with the reason."
    flags.DEFINE_boolean("all", False, text, flag_values=values)
    if (given := parse(values, "summary", arguments, _SUMMARY_HELP, "MODEL")) is None:
        return 0
    file = find_model_file(given[0])
    with import_quietly():
        from keras_popup.conversion import mask_summary, masked_layers
    model = load_model(file)
    if not masked_layers(model):
        raise ValueError(f"'{file}' has no masks: it is a plain model.")
    mask_summary(model, show_all=values.all)
    return 0
