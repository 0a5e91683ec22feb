"""The command line: it finds the command, runs it and prints its errors."""

import sys
from collections.abc import Sequence

from keras_popup import __version__
from keras_popup.cli.evaluate import evaluate
from keras_popup.cli.export import export
from keras_popup.cli.flags import UsageError
from keras_popup.cli.predict import predict
from keras_popup.cli.pretrained import pretrained
from keras_popup.cli.report import report
from keras_popup.cli.search import search
from keras_popup.cli.signals import name_of, status_of, terminated_by_exception
from keras_popup.cli.summary import summary
from keras_popup.cli.ticket import ticket
from keras_popup.cli.train import train
from keras_popup.cli.watch import watch

_USAGE = """\
keras-popup: find subnetworks of randomly weighted networks

usage:
  keras-popup train [flags]     train a network and leave a run folder
  keras-popup search [flags]    search over k, width and more, or for the best network of a given size
  keras-popup report FOLDER     write an HTML page about a run or a search
  keras-popup watch FOLDER      follow a run or a search that another process trains
  keras-popup evaluate MODEL    the accuracy of a model on test images
  keras-popup predict MODEL IMAGE...   what a model sees in images
  keras-popup pretrained [NAME] the networks that come with the package, and their cards
  keras-popup summary MODEL     show which layers of a model are masked, and how large the masks are
  keras-popup export MODEL      write a model for TensorFlow Serving, LiteRT or ONNX Runtime
  keras-popup ticket pack MODEL write a model as its seeds and masks, about one bit per weight
  keras-popup ticket unpack|info|verify TICKET
  keras-popup COMMAND --help    all flags of a command
  keras-popup --version

MODEL is the folder of a run or search, a .keras file, a ticket, or a name of `keras-popup pretrained`; for `ticket
pack` only the first two.

a first try, in under a minute:
  keras-popup predict fashion_mnist/fc examples/images/boot.png
  keras-popup train --model conv2 --dataset digits --epochs 20 --out runs/first
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Returns:
        The exit status: 0, 1 for a run that failed, 2 for wrong arguments, 3 for a loss that diverged, 130 for
        Ctrl-C, 143 for SIGTERM.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = arguments[0] if arguments else "--help"
    if command in ("--help", "-h", "help"):
        print(_USAGE, end="")
        return 0
    if command == "--version":
        print(f"keras-popup {__version__}")
        return 0
    commands = {
        "train": train,
        "search": search,
        "report": report,
        "watch": watch,
        "evaluate": evaluate,
        "predict": predict,
        "pretrained": pretrained,
        "summary": summary,
        "export": export,
        "ticket": ticket,
    }
    try:
        if command not in commands:
            raise UsageError(f"Unknown command {command!r}. Expected: {', '.join(commands)}. See keras-popup --help.")
        with terminated_by_exception():
            return commands[command](arguments[1:])
    except KeyboardInterrupt as stop:
        print(f"\nkeras-popup: {name_of(stop)}.", file=sys.stderr)
        return status_of(stop)
    except UsageError as error:
        print(f"keras-popup: {error}", file=sys.stderr)
        return 2
    except (ValueError, TypeError, OSError, ImportError, ArithmeticError, RuntimeError) as error:
        print(f"keras-popup: {error}", file=sys.stderr)
        return 1
