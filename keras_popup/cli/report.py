"""The command `report`."""

from collections.abc import Sequence
from typing import Any

from absl import flags

from keras_popup.cli.flags import UsageError, parse
from keras_popup.cli.models import check_new
from keras_popup.cli.quiet import say
from keras_popup.records import RunFolder, SearchFolder

_REPORT_HELP = """\
keras-popup report: write an HTML page about a run or a search

usage:
  keras-popup report FOLDER     the folder of a run or a search, finished or not

Writes report.html into the folder. The page needs no network. A search writes it at its end, and so does
keras-popup train --pictures.

examples:
  keras-popup report runs/first
  keras-popup report runs/search --overwrite
"""


def report(arguments: Sequence[str]) -> int:
    """`keras-popup report FOLDER`: writes the page about a run or search, and prints its path."""
    values = flags.FlagValues()
    flags.DEFINE_boolean("overwrite", False, "Replace the page if it exists.", flag_values=values)
    if (given := parse(values, "report", arguments, _REPORT_HELP, "FOLDER")) is None:
        return 0
    # Without TensorFlow: both read plain data.
    write: Any
    if SearchFolder(given[0]).is_one():
        from keras_popup.search import write_report as write

        page = SearchFolder(given[0]).report
    elif RunFolder(given[0]).is_one():
        from keras_popup.training import write_report as write

        page = RunFolder(given[0]).report
    else:
        raise UsageError(f"FOLDER must be the folder of a run or a search. Received: '{given[0]}'.")
    check_new(page, values.overwrite)
    say("Drawing the page.")
    print(write(given[0]))
    return 0
